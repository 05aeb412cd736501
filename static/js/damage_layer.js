// What is marked, drawn in red over the picture before: a canvas of the mask's own size, filled where it changed.

import { el } from "./dom.js";

const RED = 0xb028_28ff; // alpha, blue, green, red
const MOST_PIXELS_AT_ONCE = 1e6;

export class DamageLayer {
  canvas = el("canvas", { class: "damage-layer", "aria-hidden": "true", hidden: true });

  /** Begin with a mask of this size. */
  begin({ width, height }) {
    Object.assign(this.canvas, { width, height });
  }

  /** Draw a part of a mask, or all of it. */
  draw(mask, { left, top, right, bottom } = { left: 0, top: 0, right: mask.width, bottom: mask.height }) {
    const context = this.canvas.getContext("2d"), width = right - left;
    const rows = Math.max(1, Math.floor(MOST_PIXELS_AT_ONCE / width));
    for (let from = top; from < bottom; from += rows) {
      const image = new ImageData(width, Math.min(rows, bottom - from));
      const pixels = new Uint32Array(image.data.buffer);
      for (let at = 0, y = from; at < pixels.length; y += 1)
        for (let x = left; x < right; x += 1, at += 1) if (mask.has(y * mask.width + x)) pixels[at] = RED;
      context.putImageData(image, left, from);
    }
  }

  /** Give the memory back. */
  clear() {
    Object.assign(this.canvas, { width: 0, height: 0, hidden: true });
  }
}
