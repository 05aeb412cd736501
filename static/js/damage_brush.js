// The brush on the picture: where the pointer or the arrow keys hold it, as a ring of its size, and the strokes that it
// draws. The stage's own gestures call it; a second finger takes the stroke back and zooms.

import { el } from "./dom.js";

const KEY_SHARE = 0.5; // of the brush that an arrow key moves it
export const SIZES = { least: 4, most: 160, usual: 28, step: 1.25 }; // screen pixels across

export class DamageBrush {
  /** What it does (`ADD` or `REMOVE` of the mask). */
  kind = 0;
  size = SIZES.usual;
  #ring = el("span", { class: "brush-ring", "aria-hidden": "true", hidden: true });
  #at = null; // in the stage
  #last = null; // of the stroke, in the mask

  /** `compare` has the stage and its view; `mask` gives what is painted on; `ondraw` gets each rectangle that changed, null for all. */
  constructor(compare, mask, ondraw) {
    Object.assign(this, { compare, mask, ondraw });
    compare.stage.append(this.#ring);
    compare.stage.addEventListener("pointerleave", () => (this.#ring.hidden = true));
  }

  /** A press at a point of the stage. */
  begin(at) {
    this.mask().begin();
    this.#last = this.#pointOf(at);
    this.move(at);
  }

  move(at) {
    this.hover(at);
    const to = this.#pointOf(at), mask = this.mask();
    const changed = mask.paint(this.#last, to, this.#radius, this.kind);
    this.#last = to;
    if (changed) this.ondraw(changed);
  }

  end() {
    this.mask().end();
    this.#last = null;
    this.ondraw({ left: 0, top: 0, right: 0, bottom: 0 });
  }

  cancel() {
    if (!this.#last) return;
    this.#last = null;
    this.mask().cancel();
    this.ondraw(null);
  }

  /** The pointer is over a point of the stage. */
  hover(at) {
    this.#at = { x: at.x, y: at.y };
    this.draw();
  }

  /** Move by the keys, a direction as [x, y]; with `down` it draws. The picture follows at the edges. */
  nudge([right, down], draws) {
    const step = Math.max(1, KEY_SHARE * this.size);
    this.#at ??= this.#middle;
    const from = this.#at;
    if (draws) this.begin(from);
    const to = { x: from.x + step * right, y: from.y + step * down };
    const { view } = this.compare, inside = clampedTo(to, view.stage);
    const before = { x: view.x, y: view.y };
    view.panBy(inside.x - to.x, inside.y - to.y);
    const moved = { x: inside.x, y: inside.y };
    if (draws) {
      this.move(moved);
      this.end();
    } else this.hover(moved);
    if (view.x !== before.x || view.y !== before.y) this.compare.draw();
  }

  /** One touch of the brush where it is. */
  dab() {
    this.#at ??= this.#middle;
    this.begin(this.#at);
    this.end();
  }

  resize(size) {
    this.size = Math.min(SIZES.most, Math.max(SIZES.least, Math.round(size)));
    this.draw();
  }

  /** Show the ring where the brush is. */
  draw() {
    this.#ring.hidden = !this.#at || !this.kind;
    if (this.#ring.hidden) return;
    const { style } = this.#ring;
    for (const side of ["width", "height"]) style.setProperty(side, `${this.size}px`);
    style.setProperty("transform", `translate(${this.#at.x - this.size / 2}px, ${this.#at.y - this.size / 2}px)`);
    this.#ring.dataset.kind = this.kind;
  }

  /** Put it away. */
  hide() {
    this.#at = null;
    this.#ring.hidden = true;
  }

  get #middle() {
    const { width, height } = this.compare.view.stage;
    return { x: width / 2, y: height / 2 };
  }

  /** Pixels of the mask for each screen pixel. */
  get #ratio() {
    const { view } = this.compare;
    return this.mask().width / (view.width * view.scale);
  }

  get #radius() {
    return Math.max(0.75, (this.size / 2) * this.#ratio);
  }

  #pointOf({ x, y }) {
    const { view } = this.compare;
    return { x: (x - view.x) * this.#ratio, y: (y - view.y) * this.#ratio };
  }
}

const clampedTo = ({ x, y }, { width, height }) => ({ x: Math.min(width, Math.max(0, x)), y: Math.min(height, Math.max(0, y)) });
