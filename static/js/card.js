// One photo of a job as a card: its picture, how far it is, and what can be done with it. It gets one attempt and
// sends no requests: opening and retrying are callbacks.

import { answerLine } from "./answers.js";
import { cardAddress } from "./image_sources.js";
import { ended, GONE } from "./jobs.js";
import { button, el, icon, setAttribute, setText } from "./dom.js";
import { lazyImage, releaseImage } from "./lazy_image.js";
import { discard } from "./thumbnail.js";
import { exactSeconds, percent, size } from "./format.js";
import { stageText, statusText } from "./status_text.js";
import { dragOut } from "./drag_out.js";
import { errorText, text } from "./text.js";

export class Card {
  /** `local` is a small picture from the tray, if the photo was chosen in this page; `act` has open, retry and removeOne. */
  constructor(job, attempt, local, act) {
    Object.assign(this, { jobId: job.job_id, attempt, act, shows: null, arriving: [], signature: "", inBatch: job.attempts.length > 1 });
    this.line = answerLine();
    this.words = el("span", { class: "card-words" });
    this.note = el("span", { class: "card-note" });
    this.ring = el("span", { class: "card-ring", hidden: true }, el("span", { class: "card-percent" }));
    this.frame = el("span", { class: "card-frame" });
    this.open = el("button", { type: "button", class: "card-open", on: {
      click: () => this.attempt.result ? act.open(this.jobId, this.attempt.id) : null,
      pointerenter: () => this.#prepareWipe(), pointermove: (event) => this.#wipe(event),
      pointerleave: () => this.open.classList.remove("wiping"),
    } }, this.frame, this.ring);
    dragOut(this.open, () => this.attempt.result && this.attempt);
    this.actions = el("span", { class: "card-actions" });
    this.element = el("li", { class: "card" }, this.open,
      el("div", { class: "card-text" },
        el("span", { class: "card-name", title: attempt.original_filename }, attempt.original_filename),
        this.words, this.note), this.actions, this.line);
    this.#showInitial(local);
  }

  /** Bring the card up to date; nothing is touched when nothing changed. */
  update(attempt) {
    const signature = [attempt.status, attempt.progress, attempt.stage, attempt.version, attempt.result?.url].join(" ");
    if (signature === this.signature) return;
    this.signature = signature;
    this.attempt = attempt;
    this.element.dataset.status = attempt.status;
    const working = isWorking(attempt);
    this.ring.hidden = !working;
    if (working) {
      this.ring.style.setProperty("--share", attempt.progress);
      setText(this.ring.firstChild, percent(attempt.progress));
    }
    this.#label();
    if (this.status !== attempt.status || this.url !== attempt.result?.url) this.#statusChanged();
  }

  /** The card leaves: give its pictures back. */
  remove() {
    for (const image of [this.before, this.shows, ...this.arriving]) this.#discard(image);
    this.element.remove();
  }

  #showInitial(local) {
    if (local) this.#show(local);
    else if (!this.attempt.result) this.#load("original");
  }

  /** What changes only with the status: actions and picture. */
  #statusChanged() {
    const { attempt } = this;
    this.status = attempt.status;
    this.url = attempt.result?.url;
    setAttribute(this.open, "disabled", !attempt.result);
    setAttribute(this.open, "draggable", attempt.result ? "true" : null);
    this.#drawButtons();
    if (attempt.result) this.#load("result");
  }

  /** Those of a photo at work stay as it goes on, so that none is replaced under a press. */
  #drawButtons() {
    const { attempt } = this;
    const offers = ended(attempt) ? `${attempt.status} ${attempt.result?.url}` : "active";
    if (offers === this.offers) return;
    this.offers = offers;
    const held = this.actions.contains(document.activeElement);
    this.actions.replaceChildren(...this.#buttons());
    if (held) this.actions.firstElementChild?.focus();
  }

  /** In a batch each photo can also be cancelled or removed; a job of one photo has that in its head. */
  #buttons() {
    const { attempt } = this;
    const name = attempt.original_filename;
    if (attempt.status === GONE) return [];
    const over = ended(attempt), remove = over ? text("card.remove", { name }) : text("card.cancel", { name });
    return [
      attempt.result && el("a", {
        class: "button quiet", href: attempt.result.url, download: "", "aria-label": text("card.download", { name }), title: text("viewer.download"),
      }, icon("download")),
      over && !attempt.result && button(text("card.retry"), { symbol: "again", "aria-label": text("card.retry_label", { name }),
        onclick: this.#press((pressed) => this.act.retry(pressed, this.jobId, this.attempt)) }),
      this.inBatch && button(remove, { symbol: over ? "bin" : "close", quiet: true, class: "quiet",
        onclick: this.#press((pressed) => this.act.removeOne(pressed, this.jobId, this.attempt)) }),
    ].filter(Boolean);
  }

  #press(act) {
    return ({ currentTarget }) => act({ button: currentTarget, line: this.line });
  }

  #label() {
    const { attempt, words } = this;
    const name = attempt.original_filename;
    if (attempt.result) {
      setText(words, `${size(attempt.result.width, attempt.result.height)} · ${exactSeconds(attempt.result.seconds ?? 0)}`);
      setAttribute(this.open, "aria-label", text("card.compare", { name }));
    } else {
      const working = isWorking(attempt);
      const gone = attempt.status === GONE;
      setText(words, gone ? text("card.gone") : attempt.status === "processing" ? stageText(attempt.stage) : statusText(attempt.status));
      const far = working ? percent(attempt.progress) : text(gone ? "card.gone" : "card.not_restored");
      setAttribute(this.open, "aria-label", `${name}: ${far}`);
    }
    setText(this.note, attempt.error ? errorText(attempt.error) : "");
  }

  #load(which) {
    const image = lazyImage(cardAddress(this.jobId, this.attempt, which), {
      onready: (loaded) => this.#arrived(loaded),
    });
    image.className = "card-picture arriving";
    this.frame.append(image);
    this.arriving.push(image);
  }

  /** What was asked for before it comes too late: an original must not lie over its result. */
  #arrived(picture) {
    const late = this.arriving.splice(0, this.arriving.indexOf(picture) + 1).slice(0, -1);
    for (const image of late) this.#discard(image);
    this.#show(picture);
  }

  /** The picture that was there goes only when the new one is there, so nothing flashes. */
  #show(picture) {
    const old = this.shows;
    this.shows = picture;
    picture.className = "card-picture";
    if (!picture.isConnected) this.frame.append(picture);
    if (old && old !== picture) this.#discard(old);
  }

  #discard(picture) {
    if (!picture) return;
    if (picture instanceof HTMLCanvasElement) discard(picture);
    else releaseImage(picture);
    picture.remove();
  }

  /** A pointer over a restored photo wipes between before and after. */
  #prepareWipe() {
    if (!this.attempt.result || this.before) return;
    this.before = lazyImage(cardAddress(this.jobId, this.attempt, "original"));
    this.before.className = "card-picture card-before";
    this.frame.append(this.before);
  }

  #wipe(event) {
    if (event.pointerType !== "mouse" || !this.before?.src || !this.attempt.result) return;
    const box = this.frame.getBoundingClientRect();
    this.open.classList.add("wiping");
    this.frame.style.setProperty("--cut", `${(100 * (event.clientX - box.left)) / box.width}%`);
  }
}

/** One that was only read ahead waits like the others. */
const isWorking = ({ status, stage }) => status === "processing" && stage !== "waiting";
