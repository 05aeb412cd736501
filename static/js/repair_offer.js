// Offers to repair the photos of the tray that look damaged: a small copy of each goes to the service for a quick look,
// one at a time. Neither dropping nor sending photos waits for it, and nothing is changed without a press.

import * as api from "./api.js";
import { announce, button, el, find } from "./dom.js";
import { turned } from "./result_size.js";
import { REPAIR_OFF } from "./settings_values.js";
import { text } from "./text.js";
import { decodeSmall, discard, paint } from "./thumbnail.js";

const SIDE_PIXELS = 1024;
const JPEG_QUALITY = 0.92;
const MOST_BYTES_AS_SENT = 16e6; // of a photo that this browser cannot make small
const MOST_LOOKS = 12; // in a tray: who brings more knows what they are
const REST_MILLISECONDS = 400; // after photos were dropped, and between two looks

export class RepairOffer {
  #looks = new WeakMap(); // photo -> whether a repair is suggested; null while it is looked at
  #dismissed = new WeakSet();
  #photos = [];
  #busy = false;
  #shown = "";
  #box = find("repair-offer");

  /** `repairOf(photo)` gives what is chosen, null where nothing can be; `turnOn(photos)` and `turnOnAll()` choose it. */
  constructor({ repairOf, turnOn, turnOnAll }) {
    Object.assign(this, { repairOf, turnOn, turnOnAll });
  }

  /** The photos of the tray, or what is chosen for them, may be other ones; none where nothing can be repaired. */
  update(photos) {
    this.#photos = photos;
    this.#draw();
    this.#look();
  }

  async #look() {
    if (this.#busy) return;
    this.#busy = true;
    for (let photo = this.#next(); photo; photo = this.#next()) {
      do await sleep(REST_MILLISECONDS); while (find("preview").open); // the service makes one preview at a time
      if (this.#photos.includes(photo)) await this.#lookAt(photo);
      this.#draw();
    }
    this.#busy = false;
  }

  #next() {
    const looked = this.#photos.filter((photo) => this.#looks.has(photo)).length;
    return looked < MOST_LOOKS ? this.#photos.find((photo) => !this.#looks.has(photo) && this.#isOff(photo)) : undefined;
  }

  /** A look that fails suggests nothing; one for which there is no room comes later. */
  async #lookAt(photo) {
    this.#looks.set(photo, null);
    try {
      const copy = await smallCopy(photo);
      if (copy) this.#looks.set(photo, (await api.quickLook(copy)).suggested);
    } catch (problem) {
      if (!problem.retryAfterSeconds) return;
      await sleep(1000 * problem.retryAfterSeconds);
      this.#looks.delete(photo);
    }
  }

  #isOff(photo) {
    return this.repairOf(photo) === REPAIR_OFF;
  }

  /** Drawn anew only where it says something else, so that the focus stays. */
  #draw() {
    const found = this.#photos.filter((photo) => this.#looks.get(photo) && !this.#dismissed.has(photo) && this.#isOff(photo));
    const shown = `${found.map(({ id }) => id)}/${this.#photos.length}`;
    this.#box.hidden = !found.length;
    if (shown === this.#shown) return;
    this.#shown = shown;
    if (!found.length) return this.#box.replaceChildren();
    const count = found.length, words = count === 1 ? text("offer.one", { name: found[0].file.name }) : text("offer.several", { count });
    const alone = this.#photos.length === 1;
    this.#box.replaceChildren(el("span", {}, words),
      ...alone ? [] : [button(text("offer.these", { count }), { class: "small", onclick: () => this.#chosen(() => this.turnOn(found)) })],
      button(text(alone ? "offer.repair" : "offer.all"), { class: "small", onclick: () => this.#chosen(() => this.turnOnAll()) }),
      button(text("offer.dismiss"), { symbol: "close", quiet: true, class: "round", onclick: () => this.#dismiss(found) }));
  }

  #chosen(turnOn) {
    turnOn();
    announce(text("offer.chosen"));
    find("restore").focus(); // the pressed button has gone
  }

  #dismiss(found) {
    for (const photo of found) this.#dismissed.add(photo);
    this.#draw();
    find("restore").focus();
  }
}

const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** A JPEG of a photo as it lies in the file; where this browser cannot open it the file itself, if it is small. */
async function smallCopy({ file, facts, rotate }) {
  const bitmap = await decodeSmall(file, rotate % 180 ? turned(facts) : facts, SIDE_PIXELS).catch(() => null);
  if (!bitmap) return file.size <= MOST_BYTES_AS_SENT ? file : null;
  const canvas = el("canvas");
  paint(canvas, bitmap, 0);
  bitmap.close();
  const copy = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", JPEG_QUALITY));
  discard(canvas);
  return copy && new File([copy], file.name || "photo", { type: copy.type });
}
