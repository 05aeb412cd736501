// The patches of a preview side by side: the untouched one and each restored one, all at the same zoom and place, so that
// whoever moves one moves all.

import { button, el, find, oncePerFrame, setAttribute, setText } from "./dom.js";
import { watchGestures } from "./gestures.js";
import { withCommand } from "./shell_command.js";
import { warningTexts, text } from "./text.js";
import { Viewport } from "./viewport.js";

const PAN_PIXELS = 40;
const PANS = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
const ORIGINAL = "original";

export class PreviewPatches {
  #list = find("preview-patches");
  #rows = new Map(); // name -> the elements of a patch
  // What `watchGestures` asks of a view without a divider.
  mode = "side";
  held = false;
  cut = 0;
  view = new Viewport(1, 1);

  constructor() {
    this.draw = oncePerFrame(() => this.#draw());
    new ResizeObserver(() => this.#measure()).observe(this.#list);
    this.#list.addEventListener("keydown", (event) => this.#key(event));
    find("preview-fit").addEventListener("click", () => this.#zoom(() => this.view.fit()));
    find("preview-100").addEventListener("click", () => this.#zoom(() => this.view.zoomTo(1)));
  }

  hold() {}

  slideTo() {}

  /**
   * Make room for what comes: the untouched patch, a JPEG as base64, and a place for each of `variants`, rows of `key`, `name`
   * and `use` (the words of its button). `size` is that of a restored patch; `onuse` gets the key of the one that is chosen.
   */
  begin(original, size, variants, onuse) {
    this.clear();
    this.view = new Viewport(size.width, size.height, devicePixelRatio);
    this.#add(ORIGINAL, text("preview.original"), null);
    for (const { key, name, use } of variants) this.#add(key, name, button(use, { class: "small", onclick: () => onuse(key) }));
    this.#list.replaceChildren(...[...this.#rows.values()].map(({ element }) => element));
    this.#fill(ORIGINAL, original);
    find("preview-zoom").hidden = false;
    this.#measure();
    if (this.view.zoom < 1) this.#zoom(() => this.view.zoomTo(1)); // reduced, all of them would look alike
  }

  /** A restored patch has come; `note` says what made it. What it warns of is told once for all of them. */
  show(key, { image, warnings }, note) {
    this.#fill(key, image);
    setText(this.#rows.get(key).note, note);
    const told = [...find("preview-warnings").children].map((one) => one.dataset.words);
    const fresh = warningTexts(warnings).filter((words) => !told.includes(words));
    find("preview-warnings").append(...fresh.map((words) => el("li", { data: { words } }, withCommand(words))));
  }

  /** How long the whole photo takes in this quality. */
  showTime(key, words) {
    const row = this.#rows.get(key);
    if (row) setText(row.time, words);
  }

  /** What has not come will not come. */
  end() {
    for (const { element } of this.#rows.values()) if (element.dataset.state === "waiting") element.dataset.state = "missing";
  }

  /** Let go of all patches. */
  clear() {
    for (const { image } of this.#rows.values()) if (image.src) URL.revokeObjectURL(image.src);
    this.#rows.clear();
    this.#list.replaceChildren();
    find("preview-warnings").replaceChildren();
    find("preview-zoom").hidden = true;
  }

  #add(key, name, use) {
    const image = el("img", { alt: "", draggable: "false" });
    const stage = el("div", { class: "patch-stage", tabindex: "0", role: "img", "aria-label": text("preview.patch_of", { name }) }, image);
    const note = el("p", { class: "patch-note" }), time = el("p", { class: "patch-time" });
    const element = el("li", { class: "patch", data: { key, state: "waiting" } }, stage,
      el("div", { class: "patch-words" }, el("h3", {}, name), time, note), use);
    watchGestures(stage, null, this);
    this.#rows.set(key, { element, stage, image, note, time });
  }

  #fill(key, base64) {
    const { element, image } = this.#rows.get(key);
    const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
    image.src = URL.createObjectURL(new Blob([bytes], { type: "image/jpeg" }));
    element.dataset.state = "ready";
    this.draw();
  }

  #measure() {
    const stage = this.#rows.get(ORIGINAL)?.stage;
    if (!stage?.clientWidth) return;
    this.view.resize(stage.clientWidth, stage.clientHeight);
    this.draw();
  }

  #zoom(work) {
    work();
    this.draw();
  }

  #key(event) {
    const pan = PANS[event.key], { view } = this;
    if (!event.target.matches(".patch-stage") || event.ctrlKey || event.metaKey || event.altKey) return;
    if (pan) view.panBy(pan[0] * PAN_PIXELS, pan[1] * PAN_PIXELS);
    else if (event.key === "+" || event.key === "=") view.zoomBy(1);
    else if (event.key === "-") view.zoomBy(-1);
    else if (event.key === "0") view.fit();
    else if (event.key === "1") view.zoomTo(1);
    else return;
    event.preventDefault();
    this.draw();
  }

  #draw() {
    const { view } = this;
    for (const { stage, image } of this.#rows.values()) {
      stage.classList.toggle("movable", view.canPan);
      image.style.width = `${view.width * view.scale}px`;
      image.style.height = `${view.height * view.scale}px`;
      image.style.transform = `translate(${view.x}px, ${view.y}px)`;
    }
    setAttribute(find("preview-fit"), "aria-pressed", String(view.fitted));
    setAttribute(find("preview-100"), "aria-pressed", String(!view.fitted && Math.abs(view.zoom - 1) < 0.01));
  }
}
