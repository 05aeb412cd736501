// The tray: photos that were chosen and not sent yet, as small pictures that can be taken out again, and those that
// cannot be restored with the reason. Sending is in `submission`.

import { button, el, find, oncePerFrame, setText } from "./dom.js";
import { validationError, scaleError } from "./validation.js";
import { readImageHeader } from "./image_header.js";
import { discard, thumbnail } from "./thumbnail.js";
import { duration } from "./format.js";
import { sizeWords } from "./result_size.js";
import { text } from "./text.js";
import { tileActions } from "./tile_actions.js";

const READ_CONCURRENCY = 8;
let lastId = 0;

export class Tray extends EventTarget {
  /**
   * `scale` and `format` give what is chosen for a photo just now; `seconds` the time that the photos which are ready will
   * take, or null; `preview` gets a photo that somebody wants to look at first; `parts` what else a photo's tile shows.
   */
  constructor({ scale, format, seconds, preview, parts }) {
    super();
    Object.assign(this, { scale, format, seconds, preview, parts, config: null, photos: [], refused: [], sending: false });
    this.draw = oncePerFrame(() => this.#draw());
    find("tray-clear").addEventListener("click", () => this.clear());
    find("refused-clear").addEventListener("click", () => this.#clearRefused());
  }

  /** Check new files and show them, in the order in which they came. */
  async add(files) {
    for (let start = 0; start < files.length; start += READ_CONCURRENCY) {
      const some = files.slice(start, start + READ_CONCURRENCY);
      const facts = await Promise.all(some.map((file) => readImageHeader(file).catch(() => null)));
      some.forEach((file, place) => this.#addPhoto(file, facts[place]));
    }
  }

  /** The photos that can be sent as it is chosen for each. */
  ready() {
    return this.photos.filter((photo) => !this.#scaleError(photo));
  }

  /** Those of some photos that are still here and can be sent with these options, whatever the form says by now. */
  fitting(chosen, optionsOf) {
    return this.photos.filter((photo) => {
      if (!chosen.includes(photo)) return false;
      const { scale, output_format: format } = optionsOf(photo);
      return !scaleError(photo.facts, Number(scale), this.config, format);
    });
  }

  /** The photo was accepted by the service: it leaves, and its small picture goes with it. */
  release(photo) {
    this.photos = this.photos.filter((other) => other !== photo);
    photo.tile.remove();
    this.#changed();
    return photo.canvas;
  }

  /** The service refused it with a sentence. */
  refuse(photo, sentence) {
    this.photos = this.photos.filter((other) => other !== photo);
    this.#reject(photo.file, sentence);
    photo.tile.remove();
    discard(photo.canvas);
    this.#changed();
  }

  /** Photos that are on their way just now stay as they are; all others can be changed. */
  lock(photos) {
    for (const photo of this.photos) {
      const locked = photos.includes(photo);
      if (locked && photo.tile.contains(document.activeElement)) find("sending-stop").focus();
      photo.tile.inert = locked;
    }
  }

  clear() {
    for (const photo of this.photos) {
      photo.tile.remove();
      discard(photo.canvas);
    }
    this.photos = [];
    this.#changed();
  }

  #addPhoto(file, facts) {
    const sentence = facts ? validationError(file, facts, this.config)
      : text("invalid.unreadable");
    if (sentence) return this.#reject(file, sentence);
    const photo = { id: (lastId += 1), file, facts, rotate: 0, canvas: thumbnail(file, facts) };
    photo.tile = this.#tile(photo);
    this.photos.push(photo);
    this.pendingTiles ??= document.createDocumentFragment();
    this.pendingTiles.append(photo.tile);
    this.#changed();
  }

  #tile(photo) {
    const { file, facts } = photo;
    photo.note = el("span", { class: "tile-note" });
    return el("li", { class: "tile" },
      el("div", { class: "tile-photo", data: { format: facts.format } }, photo.canvas,
        tileActions(photo, { onturned: () => this.#changed(), onpreview: (one) => this.preview(one) })),
      el("span", { class: "tile-name", title: file.name }, file.name), photo.note, this.parts(photo),
      button(text("tray.remove", { name: file.name }), { symbol: "close", quiet: true, class: "tile-remove", onclick: () => this.#remove(photo) }));
  }

  #remove(photo) {
    const neighbour = photo.tile.nextElementSibling ?? photo.tile.previousElementSibling;
    this.release(photo);
    discard(photo.canvas);
    (neighbour?.querySelector(".tile-remove") ?? find("choose-files")).focus();
  }

  #reject(file, sentence) {
    this.refused.push({ name: file.name, sentence });
    this.#changed();
  }

  #clearRefused() {
    this.refused = [];
    this.#changed();
    find("choose-files").focus();
  }

  #changed() {
    this.draw();
    this.dispatchEvent(new Event("change"));
  }

  #draw() {
    if (this.pendingTiles) find("tiles").append(this.pendingTiles);
    this.pendingTiles = null;
    find("tray").hidden = this.photos.length === 0;
    document.body.classList.toggle("has-tray", this.photos.length > 0);
    if (this.config) this.#drawScales();
    this.#drawButton();
    this.#drawRefused();
  }

  #drawScales() {
    for (const photo of this.photos) {
      const sentence = this.#scaleError(photo);
      photo.tile.classList.toggle("too-large", sentence !== null);
      setText(photo.note, sentence ?? sizeWords(photo.facts, photo.file, this.scale(photo)));
    }
  }

  #scaleError(photo) {
    return scaleError(photo.facts, this.scale(photo), this.config, this.format(photo));
  }

  #drawButton() {
    const ready = this.config ? this.ready() : [];
    const seconds = this.seconds();
    setText(find("tray-title"), text("tray.chosen", { count: this.photos.length }));
    setText(find("restore-words"), text("tray.restore_photos", { count: ready.length }));
    setText(find("restore-time"), seconds && ready.length ? text("time.about", { time: duration(seconds) }) : "");
    find("restore").disabled = this.sending || ready.length === 0;
    find("tray-clear").disabled = this.sending;
  }

  #drawRefused() {
    find("refused").hidden = this.refused.length === 0;
    if (!this.refused.length || this.shown === this.refused.length) return void (this.shown = this.refused.length);
    this.shown = this.refused.length;
    setText(find("refused-title"), text("refused.title", { count: this.refused.length }));
    find("refused-list").replaceChildren(...this.refused.map(({ name, sentence }) =>
      el("li", {}, el("strong", {}, name), " ", sentence)));
  }
}
