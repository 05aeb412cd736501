// True pixels over one side of a comparison: tiles of the service, drawn on a canvas no larger than what is seen. Only
// a limited number is kept, and what has left the view is not loaded any more, so that memory stays flat.

import { fetchImage } from "./api.js";
import { el, oncePerFrame } from "./dom.js";
import { levelFor, levelSizes, tilesIn } from "./tile_grid.js";

const MAX_KEPT = 40; // of 4 MB each once decoded
const MAX_CONCURRENT = 3;
const RETRY_SECONDS = 5;
const MARGIN = 0.25; // of the view, on each side, loaded ahead

export class TileLayer {
  #tiles = new Map(); // key -> {bitmap, level, place}, used last at the end
  #loading = new Map(); // key -> AbortController
  #wanted = [];
  #pausedUntil = 0;

  /** `onstate` hears "loading" until the first tile has come, then "ready", or "missing" where the service has none. */
  constructor(onstate) {
    this.onstate = onstate;
    this.canvas = el("canvas", { class: "tiles-canvas", "aria-hidden": "true", hidden: true });
    this.drawSoon = oncePerFrame(() => this.#draw());
    this.source = null;
  }

  /** Show another picture: its size in pixels and `address(level, x, y)`; null shows none and gives all memory back. */
  show(source) {
    this.#forget();
    this.source = source && { ...source, sizes: levelSizes(source.width, source.height) };
    this.canvas.hidden = !source;
    this.canvas.dataset.covers = false;
    if (!source) return void (this.canvas.width = this.canvas.height = 0);
    this.#tell("loading");
  }

  /** The view changed: `view` as of the comparison, of whose picture this one is another size. */
  look(view) {
    if (!this.source) return;
    this.view = view;
    const shown = seenPart(view, 0), near = seenPart(view, MARGIN);
    const zoom = (view.width / this.source.width) * view.zoom;
    const { sizes } = this.source;
    this.level = levelFor(zoom, sizes.length);
    const whole = tilesIn({ left: 0, top: 0, right: 1, bottom: 1 }, sizes.length - 1, sizes); // what is always there
    this.#wanted = unique([...whole, ...tilesIn(shown, this.level, sizes), ...tilesIn(near, this.level, sizes)]).slice(0, MAX_KEPT);
    this.#abandon();
    this.#loadNext();
    this.#draw();
  }

  /** The first tile comes alone: it waits until the picture has been cut up, and would hold connections of the page. */
  #loadNext() {
    if (Date.now() < this.#pausedUntil) return;
    for (const tile of this.#wanted) {
      if (this.#loading.size >= (this.#tiles.size ? MAX_CONCURRENT : 1)) return;
      if (!this.#tiles.has(keyOf(tile)) && !this.#loading.has(keyOf(tile))) this.#load(tile);
    }
  }

  async #load(tile) {
    const { source } = this, key = keyOf(tile), aborter = new AbortController();
    this.#loading.set(key, aborter);
    try {
      const bitmap = await createImageBitmap(await fetchImage(source.address(tile.level, tile.x, tile.y), aborter.signal));
      if (source !== this.source || aborter.signal.aborted) return bitmap.close();
      this.#tiles.set(key, { ...tile, bitmap });
      this.#tell("ready");
      this.drawSoon();
    } catch (problem) {
      if (source !== this.source || problem.name === "AbortError") return;
      this.#failed(problem);
    } finally {
      if (this.#loading.get(key) === aborter) this.#loading.delete(key);
      if (source === this.source) this.#loadNext();
    }
  }

  /** What is there stays. Asked too much, or out of reach: wait. Anything else: nothing more is asked for. */
  #failed({ status, retryAfterSeconds }) {
    const seconds = retryAfterSeconds ?? (status === 0 ? RETRY_SECONDS : Infinity);
    this.#pausedUntil = Date.now() + 1000 * seconds;
    if (Number.isFinite(seconds)) setTimeout(() => this.#loadNext(), 1000 * seconds);
    else if (!this.#tiles.size) this.#tell("missing");
  }

  /** What is not wanted any more is not waited for. */
  #abandon() {
    const keys = new Set(this.#wanted.map(keyOf));
    for (const [key, aborter] of this.#loading) {
      if (keys.has(key)) continue;
      aborter.abort();
      this.#loading.delete(key);
    }
  }

  #draw() {
    const { view, canvas, source } = this;
    if (!source || !view || canvas.hidden) return;
    const ratio = view.ratio;
    const width = Math.round(view.stage.width * ratio), height = Math.round(view.stage.height * ratio);
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    canvas.style.setProperty("width", `${view.stage.width}px`);
    canvas.style.setProperty("height", `${view.stage.height}px`);
    canvas.style.setProperty("transform", `translate(${-view.x}px, ${-view.y}px)`);
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, width, height);
    const part = seenPart(view, 0);
    const seen = [...this.#tiles.values()].filter((tile) => overlap(tile, part) && tile.level >= this.level);
    for (const tile of seen.sort((one, other) => other.level - one.level)) { // coarse ones below
      const left = Math.round((view.x + tile.left * view.width * view.scale) * ratio);
      const top = Math.round((view.y + tile.top * view.height * view.scale) * ratio);
      const right = Math.round((view.x + tile.right * view.width * view.scale) * ratio);
      const bottom = Math.round((view.y + tile.bottom * view.height * view.scale) * ratio);
      context.drawImage(tile.bitmap, left, top, right - left, bottom - top);
    }
    canvas.dataset.covers = seen.some(({ level }) => level === source.sizes.length - 1); // the picture below is not painted
    this.#dropFar();
  }

  /** Keep those that are wanted and the ones loaded last, up to the limit. */
  #dropFar() {
    const wanted = new Set(this.#wanted.map(keyOf));
    for (const [key, tile] of this.#tiles) {
      if (this.#tiles.size <= MAX_KEPT) break;
      if (wanted.has(key)) continue;
      tile.bitmap.close();
      this.#tiles.delete(key);
    }
    this.canvas.dataset.kept = this.#tiles.size;
    this.canvas.dataset.sharp = this.#wanted.every((tile) => this.#tiles.has(keyOf(tile)));
    this.canvas.dataset.level = this.level;
  }

  #forget() {
    for (const aborter of this.#loading.values()) aborter.abort();
    for (const { bitmap } of this.#tiles.values()) bitmap.close();
    this.#loading.clear();
    this.#tiles.clear();
    this.#wanted = [];
    this.#pausedUntil = 0;
    this.state = null;
  }

  #tell(state) {
    if (this.state === state) return;
    this.state = state;
    this.onstate(state);
  }
}

const keyOf = ({ level, x, y }) => `${level} ${x} ${y}`;

const unique = (tiles) => [...new Map(tiles.map((tile) => [keyOf(tile), tile])).values()];

const overlap = (one, other) =>
  one.left < other.right && one.right > other.left && one.top < other.bottom && one.bottom > other.top;

/** The rectangle of the picture (fractions of it) on the stage, with `margin` times the stage more on each side. */
function seenPart(view, margin) {
  const share = (stage, offset, side) => [
    (-offset - margin * stage) / (side * view.scale), (-offset + (1 + margin) * stage) / (side * view.scale),
  ];
  const [left, right] = share(view.stage.width, view.x, view.width);
  const [top, bottom] = share(view.stage.height, view.y, view.height);
  const within = (value) => Math.min(1, Math.max(0, value));
  return { left: within(left), top: within(top), right: within(right), bottom: within(bottom) };
}
