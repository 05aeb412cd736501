// The comparison of two pictures of one scene: a slider, side by side, or held to see the one before; both sides share
// one viewport, so they zoom and move together. In the mode "damage" the one before is seen, and held the one after.

import { el, oncePerFrame, setAttribute, setText } from "./dom.js";
import { watchGestures } from "./gestures.js";
import { percent } from "./format.js";
import { text } from "./text.js";
import { TileLayer } from "./tile_layer.js";
import { Viewport } from "./viewport.js";

const SIDES = ["before", "after"];

export class Compare {
  /** `onview` is called whenever zoom, mode or position changed, `ontiles` with a side and the state of its tiles. */
  constructor(onview, ontiles) {
    this.onview = onview;
    this.mode = "slider";
    this.cut = 0.5;
    this.held = false;
    this.brush = null; // what one finger does in place of moving; see `watchGestures`
    this.draw = oncePerFrame(() => this.#draw());
    this.before = side("before", (state) => ontiles("before", state));
    this.after = side("after", (state) => ontiles("after", state));
    this.marker = el("div", { class: "face-marker", hidden: true });
    this.after.canvas.append(this.marker);
    this.handle = el("div", { class: "handle", role: "slider", tabindex: "0", "aria-label": text("compare.divider"),
      "aria-valuemin": "0", "aria-valuemax": "100" },
    el("span", { class: "handle-grip" }));
    this.stage = el("div", { class: "stage", role: "group", "aria-label": text("compare.stage"), tabindex: "0" },
      this.before.pane, this.after.pane, this.handle);
    watchGestures(this.stage, this.handle, this);
    new ResizeObserver(() => this.#measure()).observe(this.stage);
  }

  /**
   * Show two pictures; size is that of the larger result in its own pixels, `words` what each side is called, where that
   * is not before and after. For each side a promise that it is there, or known to be missing.
   */
  show({ before, after, width, height, name, words = null }) {
    this.view = new Viewport(width, height, devicePixelRatio);
    this.cut = 0.5;
    this.hold(false);
    this.mark(null);
    for (const { tiles } of [this.before, this.after]) tiles.show(null);
    this.words = words;
    SIDES.forEach((which) => setText(this[which].tag, words?.[which] ?? text(which === "before" ? "compare.before" : "compare.after")));
    const named = (which) => text("compare.named", { name, side: this[which].tag.textContent });
    const arriving = { before: this.load("before", before, named("before")), after: this.load("after", after, named("after")) };
    this.#measure();
    return arriving;
  }

  /** Show true pixels over one side, from a `tileSource` or null. */
  showTiles(which, source) {
    this[which].tiles.show(source);
    this.draw();
  }

  /** Put another picture on one side; the old one stays until the new one is there. */
  async load(which, address, words) {
    const { image } = this[which];
    if (words) image.alt = words;
    const token = (this[which].token = {});
    if (!image.getAttribute("src")?.length || words) {
      this.stage.dataset[which] = "loading";
      image.src = address;
      await image.decode().catch(() => {});
    } else {
      const next = new Image();
      next.src = address;
      await next.decode().catch(() => {});
      if (this[which].token === token && next.naturalWidth) image.src = address;
    }
    if (this[which].token === token) this.stage.dataset[which] = image.naturalWidth ? "ready" : "missing";
  }

  /** Let go of both pictures. */
  clear() {
    for (const which of SIDES) {
      this[which].token = null;
      this[which].image.removeAttribute("src");
      this[which].tiles.show(null);
    }
  }

  setMode(mode) {
    this.mode = mode;
    this.hold(false);
    this.#measure();
  }

  /** In every mode: while held, only the picture before is seen. */
  hold(on) {
    this.held = on;
    this.draw();
  }

  slideTo(cut) {
    this.cut = Math.min(1, Math.max(0, cut));
    this.draw();
  }

  fit() {
    this.view.fit();
    this.draw();
  }

  zoomTo(zoom) {
    this.view.zoomTo(zoom);
    this.draw();
  }

  /** Frame a rectangle (fractions of the picture), or nothing with null. */
  mark(box) {
    this.marker.hidden = box === null;
    if (!box) return;
    const [left, top, right, bottom] = box;
    const inset = [top, 1 - right, 1 - bottom, left].map((share) => percentOf(share)).join(" ");
    this.marker.style.setProperty("inset", inset);
  }

  showBox(box) {
    this.view.show(box);
    this.draw();
  }

  #measure() {
    if (!this.view) return;
    const box = this.stage.getBoundingClientRect();
    if (!box.width) return;
    const halves = this.mode === "side" && box.width >= box.height;
    const stacked = this.mode === "side" && !halves;
    this.stage.dataset.layout = halves ? "columns" : stacked ? "rows" : "one";
    this.view.resize(halves ? box.width / 2 : box.width, stacked ? box.height / 2 : box.height);
    this.draw();
  }

  #draw() {
    if (!this.view) return;
    const { view, stage } = this;
    for (const { canvas, tiles } of [this.before, this.after]) {
      canvas.style.setProperty("width", `${view.width * view.scale}px`);
      canvas.style.setProperty("height", `${view.height * view.scale}px`);
      canvas.style.setProperty("transform", `translate(${view.x}px, ${view.y}px)`);
      tiles.look(view);
    }
    stage.dataset.mode = this.mode;
    setAttribute(stage, "data-held", this.held ? "true" : "false");
    setAttribute(stage, "data-pan", view.canPan ? "true" : "false");
    stage.style.setProperty("--cut", percentOf(this.cut));
    this.handle.hidden = this.mode !== "slider";
    setAttribute(this.handle, "aria-valuenow", Math.round(100 * this.cut));
    const cut = { before: percent(this.cut), after: percent(1 - this.cut) };
    setAttribute(this.handle, "aria-valuetext", this.words
      ? text("compare.cut_attempts", { ...cut, left: this.words.before, right: this.words.after }) : text("compare.cut", cut));
    this.onview(this);
  }
}

function side(which, ontiles) {
  const image = el("img", { alt: "", draggable: "false", decoding: "async" });
  const tiles = new TileLayer(ontiles);
  const canvas = el("div", { class: "side-canvas" }, tiles.canvas, image);
  const tag = el("span", { class: "side-tag", "aria-hidden": "true" });
  return { image, canvas, tiles, tag, pane: el("div", { class: `side side-${which}` }, canvas, tag) };
}

const percentOf = (share) => `${100 * share}%`;
