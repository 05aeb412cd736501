// The photo in the preview, on which one chooses the part to look at: by a click, or with the arrow keys and Enter.

import { el, find } from "./dom.js";
import { turned } from "./result_size.js";
import { decodeSmall, discard, paint } from "./thumbnail.js";

const SIDE_PIXELS = 960;
const STEPS = { ArrowLeft: [-0.5, 0], ArrowRight: [0.5, 0], ArrowUp: [0, -0.5], ArrowDown: [0, 0.5] }; // of the part's own sides

export class PreviewPlace {
  #box = find("preview-photo");
  #marker = el("span", { class: "place-marker", hidden: true });
  #photo = null;
  #canvas = null;
  #at = null;

  /** `onpick` gets the middle of the wanted part in pixels of the photo, {x, y}. */
  constructor(onpick) {
    this.onpick = onpick;
    this.#box.append(this.#marker);
    this.#box.addEventListener("click", (event) => this.#pick(event));
    this.#box.addEventListener("keydown", (event) => this.#move(event));
  }

  /** Show a photo of the tray; whether this browser can. */
  async show(photo) {
    this.clear();
    this.#photo = photo;
    const upright = photo.rotate % 180 ? turned(photo.facts) : photo.facts;
    const bitmap = await decodeSmall(photo.file, upright, SIDE_PIXELS).catch(() => null);
    if (!bitmap || this.#photo !== photo) {
      bitmap?.close();
      return false;
    }
    this.#canvas = el("canvas", { "aria-hidden": "true" });
    paint(this.#canvas, bitmap, photo.rotate / 90);
    bitmap.close();
    this.#box.prepend(this.#canvas);
    this.#box.hidden = false;
    return true;
  }

  /** Frame the part that is shown: its corner and size, and the size of the photo, as the service says them. */
  mark({ x, y, width, height, photo_width, photo_height }) {
    this.#at = { x, y, width, height, photo_width, photo_height };
    const sides = { left: x / photo_width, top: y / photo_height, width: width / photo_width, height: height / photo_height };
    for (const [name, share] of Object.entries(sides)) this.#marker.style.setProperty(name, `${100 * share}%`);
    this.#marker.hidden = false;
  }

  /** The photo is not looked at any more. */
  clear() {
    if (this.#canvas) discard(this.#canvas);
    this.#photo = this.#canvas = this.#at = null;
    this.#marker.hidden = this.#box.hidden = true;
  }

  #pick(event) {
    if (event.detail === 0) return this.#at && this.onpick(middleOf(this.#at)); // by the keyboard
    const box = this.#canvas.getBoundingClientRect();
    const width = this.#at?.photo_width ?? this.#photo.facts.width, height = this.#at?.photo_height ?? this.#photo.facts.height;
    this.onpick({
      x: within(Math.floor(((event.clientX - box.left) / box.width) * width), width - 1),
      y: within(Math.floor(((event.clientY - box.top) / box.height) * height), height - 1),
    });
  }

  #move(event) {
    const step = STEPS[event.key];
    if (!step || !this.#at) return;
    event.preventDefault();
    const { x, y, width, height, photo_width, photo_height } = this.#at;
    this.mark({ ...this.#at, x: within(x + Math.round(step[0] * width), photo_width - width), y: within(y + Math.round(step[1] * height), photo_height - height) });
  }
}

const within = (value, most) => Math.max(0, Math.min(most, value));
const middleOf = ({ x, y, width, height }) => ({ x: x + Math.floor(width / 2), y: y + Math.floor(height / 2) });
