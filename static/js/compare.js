// The comparison of two pictures of one scene: a slider, side by side, or held to see the one before; both sides share
// one viewport, so they zoom and move together.

import { el, oncePerFrame, setAttribute, setText } from "./dom.js";
import { watchGestures } from "./gestures.js";
import { percent } from "./format.js";
import { text } from "./text.js";
import { TileLayer } from "./tile_layer.js";
import { Viewport } from "./viewport.js";

const SLIDER_STEPS = { ArrowLeft: -0.01, ArrowRight: 0.01, ArrowDown: -0.01, ArrowUp: 0.01, PageDown: -0.1, PageUp: 0.1 };
const PAN_PIXELS = 60;

export class Compare {
  /** `onview` is called whenever zoom, mode or position changed, `ontiles` with a side and the state of its tiles. */
  constructor(onview, ontiles) {
    this.onview = onview;
    this.mode = "slider";
    this.cut = 0.5;
    this.held = false;
    this.draw = oncePerFrame(() => this.#draw());
    this.before = side("before", text("compare.before"), (state) => ontiles("before", state));
    this.after = side("after", text("compare.after"), (state) => ontiles("after", state));
    this.marker = el("div", { class: "face-marker", hidden: true });
    this.after.canvas.append(this.marker);
    this.handle = el("div", { class: "handle", role: "slider", tabindex: "0", "aria-label": text("compare.divider"),
      "aria-valuemin": "0", "aria-valuemax": "100", on: { keydown: (event) => this.#slideByKey(event) } },
    el("span", { class: "handle-grip" }));
    this.stage = el("div", { class: "stage", role: "group", "aria-label": text("compare.stage"), tabindex: "0",
      on: { keydown: (event) => this.#moveByKey(event), keyup: (event) => event.key === " " && this.hold(false) } },
    this.before.pane, this.after.pane, this.handle);
    watchGestures(this.stage, this.handle, this);
    new ResizeObserver(() => this.#measure()).observe(this.stage);
  }

  /** Show two pictures; size is that of the result in its own pixels. For each side a promise that it is there, or known to be missing. */
  show({ before, after, width, height, name }) {
    this.view = new Viewport(width, height, devicePixelRatio);
    this.cut = 0.5;
    this.hold(false);
    this.mark(null);
    for (const { tiles } of [this.before, this.after]) tiles.show(null);
    const arriving = {
      before: this.load("before", before, text("compare.name_before", { name })),
      after: this.load("after", after, text("compare.name_after", { name })),
    };
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
    for (const which of ["before", "after"]) {
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
    setAttribute(this.handle, "aria-valuetext", text("compare.cut", { before: percent(this.cut), after: percent(1 - this.cut) }));
    this.onview(this);
  }

  #slideByKey(event) {
    const target = { Home: 0, End: 1 }[event.key] ?? (event.key in SLIDER_STEPS ? this.cut + SLIDER_STEPS[event.key] : null);
    if (target === null) return;
    event.preventDefault();
    event.stopPropagation();
    this.slideTo(target);
  }

  #moveByKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const pan = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    const does = pan ? () => this.view.panBy(PAN_PIXELS * pan[0], PAN_PIXELS * pan[1]) : {
      "+": () => this.view.zoomBy(1), "=": () => this.view.zoomBy(1), "-": () => this.view.zoomBy(-1),
      0: () => this.view.fit(), 1: () => this.view.zoomTo(1), 4: () => this.view.zoomTo(4),
      " ": () => (this.held = true),
    }[event.key];
    if (!does) return;
    event.preventDefault();
    does();
    this.draw();
  }
}

function side(which, words, ontiles) {
  const image = el("img", { alt: "", draggable: "false", decoding: "async" });
  const tiles = new TileLayer(ontiles);
  const canvas = el("div", { class: "side-canvas" }, tiles.canvas, image);
  const tag = el("span", { class: "side-tag", "aria-hidden": "true" });
  setText(tag, words);
  return { image, canvas, tiles, pane: el("div", { class: `side side-${which}` }, canvas, tag) };
}

const percentOf = (share) => `${100 * share}%`;
