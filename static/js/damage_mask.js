// Which pixels of a photo are repaired: what was found over a threshold that can be moved, and what a brush added or took
// away, with undo. Pure arithmetic on arrays; a rectangle here has left, top, right and bottom, the last two exclusive.

const LOW_SHARE = 0.85; // as in the service: a mark reaches as far as this share of the threshold
export const RIM_PIXELS = 3; // as in the service: how far the rim of damage reaches
const TILE_PIXELS = 64; // what undo keeps of a stroke are squares of this side
const MOST_KEPT_BYTES = 32e6;

/** What a brush does to a pixel; 0 leaves it as it was found. */
export const ADD = 1, REMOVE = 2;

/**
 * Mark in `out` (0 or 1 a pixel) the islands over most of the threshold that reach the threshold somewhere. `probability`
 * is 0 to 255 a pixel, row by row, the threshold a share of that; where `inFace` is not 0 another one holds.
 */
export function markIslands(probability, width, threshold, out, inFace = null, faceThreshold = threshold) {
  const high = [255 * threshold, 255 * faceThreshold], low = high.map((value) => LOW_SHARE * value);
  const stack = [];
  const isOver = (limits, at) => probability[at] > (inFace ? limits[inFace[at]] : limits[0]);
  const mark = (at) => {
    out[at] = 1;
    stack.push(at);
  };
  out.fill(0);
  for (let seed = 0; seed < probability.length; seed += 1) {
    if (out[seed] || !isOver(high, seed)) continue;
    mark(seed);
    while (stack.length) {
      const here = stack.pop(), column = here % width;
      const first = column > 0 ? -1 : 0, last = column < width - 1 ? 1 : 0;
      for (let row = here - width; row <= here + width; row += width) {
        if (row < 0 || row >= probability.length) continue;
        for (let at = row + first; at <= row + last; at += 1) if (!out[at] && isOver(low, at)) mark(at);
      }
    }
  }
}

/** Mark in `out` what was `found` within so many pixels of a mark: the rim that was filled with an island stays its own. */
function keepRims(out, found, width, pixels) {
  const height = out.length / width, kept = [];
  const isNear = (column, line) => {
    const left = Math.max(0, column - pixels), right = Math.min(width - 1, column + pixels);
    const last = Math.min(height - 1, line + pixels);
    for (let y = Math.max(0, line - pixels); y <= last; y += 1)
      for (let at = y * width + left; at <= y * width + right; at += 1) if (out[at]) return true;
    return false;
  };
  for (let at = 0; at < out.length; at += 1)
    if (found[at] && !out[at] && isNear(at % width, Math.floor(at / width))) kept.push(at);
  for (const at of kept) out[at] = 1;
}

export class DamageMask {
  #base; // what is marked without the brush
  #over = null; // room for what is over another threshold
  #inFace = null; // 1 where the threshold of faces holds
  #edits;
  #painted = 0; // pixels with an edit
  #done = [];
  #undone = [];
  #stroke = null;

  /**
   * `found` is the mask that was used (0 or 1 a pixel) and `probability` what it was made from, at `threshold`, inside
   * the rectangles `faces` ([left, top, right, bottom]) at `faceThreshold`; without a probability the threshold cannot be
   * moved, without either everything is painted by hand. `rim` is how many pixels the used mask reaches beyond its islands.
   */
  constructor(width, height, { found = null, probability = null, threshold = 0.5, faces = [], faceThreshold = null, rim = RIM_PIXELS } = {}) {
    Object.assign(this, { width, height, probability, threshold, rim, foundAt: threshold, faceThreshold: faceThreshold ?? threshold });
    if (probability && faces.length) this.#inFace = this.#rectangles(faces);
    this.found = found ?? new Uint8Array(width * height);
    this.#edits = new Uint8Array(width * height);
    this.#base = this.found;
    this.#recount();
  }

  /** How many pixels are marked. */
  count = 0;

  /** The part of the photo that is marked, 0 to 1. */
  get share() {
    return this.count / (this.width * this.height);
  }

  /** Whether it may differ from what was found. */
  get isChanged() {
    return this.threshold !== this.foundAt || this.#painted > 0;
  }

  get canUndo() {
    return this.#done.length > 0;
  }

  get canRedo() {
    return this.#undone.length > 0;
  }

  /** Whether a pixel is marked. */
  has(at) {
    const edit = this.#edits[at];
    return edit ? edit === ADD : this.#base[at] === 1;
  }

  /** Move the threshold; what was painted stays. Undo takes back what was moved since `keepThreshold`. */
  moveThreshold(threshold) {
    this.threshold = threshold;
    if (threshold === this.foundAt || !this.probability) this.#base = this.found;
    else {
      this.#over ??= new Uint8Array(this.found.length);
      markIslands(this.probability, this.width, threshold, this.#over, this.#inFace, this.#faceThresholdAt(threshold));
      keepRims(this.#over, this.found, this.width, this.rim);
      this.#base = this.#over;
    }
    this.#recount();
  }

  /** The threshold was let go, and stood at `before` when it was taken. */
  keepThreshold(before) {
    if (before !== this.threshold) this.#keep({ tiles: new Map(), threshold: before });
  }

  /** Begin a stroke of the brush; `end` keeps it as one step, `cancel` takes it back. */
  begin() {
    this.#stroke = { tiles: new Map(), threshold: this.threshold };
  }

  /** Draw from a point to another with a round brush, in pixels; gives the rectangle that may look different now. */
  paint(from, to, radius, kind) {
    const rectangle = this.#within({
      left: Math.floor(Math.min(from.x, to.x) - radius), top: Math.floor(Math.min(from.y, to.y) - radius),
      right: Math.ceil(Math.max(from.x, to.x) + radius) + 1, bottom: Math.ceil(Math.max(from.y, to.y) + radius) + 1,
    });
    if (rectangle.left >= rectangle.right || rectangle.top >= rectangle.bottom) return null;
    this.#save(rectangle);
    for (let y = rectangle.top; y < rectangle.bottom; y += 1) {
      for (let x = rectangle.left; x < rectangle.right; x += 1)
        if (distance(x + 0.5, y + 0.5, from, to) <= radius) this.#set(y * this.width + x, kind);
    }
    return rectangle;
  }

  end() {
    if (this.#stroke?.tiles.size) this.#keep(this.#stroke);
    this.#stroke = null;
  }

  /** Take the stroke back that has begun; gives the rectangle to draw again. */
  cancel() {
    const stroke = this.#stroke;
    this.#stroke = null;
    if (stroke) this.#swap(stroke);
  }

  /** Back to what was found, in one step that can be undone. */
  reset() {
    this.begin();
    const { width, height } = this;
    for (let top = 0; top < height; top += TILE_PIXELS) {
      for (let left = 0; left < width; left += TILE_PIXELS) {
        const tile = this.#within({ left, top, right: left + TILE_PIXELS, bottom: top + TILE_PIXELS });
        if (this.#copy(tile).some(Boolean)) this.#save(tile);
      }
    }
    this.#keep(this.#stroke);
    this.#stroke = null;
    this.#edits.fill(0);
    this.moveThreshold(this.foundAt);
  }

  undo() {
    this.#step(this.#done, this.#undone);
  }

  redo() {
    this.#step(this.#undone, this.#done);
  }

  /** One row of a picture `factor` times as large, 255 where it is marked and 0 elsewhere, into `out`. */
  rowInto(out, y, factor) {
    const start = Math.floor(y / factor) * this.width;
    for (let column = 0, x = 0; x < out.length; column += 1) {
      const value = this.has(start + column) ? 255 : 0;
      for (const end = Math.min(out.length, x + factor); x < end; x += 1) out[x] = value;
    }
  }

  /** Faces stay the more careful part, however far the threshold is moved. */
  #faceThresholdAt(threshold) {
    return 1 - (1 - threshold) * ((1 - this.faceThreshold) / (1 - this.foundAt));
  }

  #rectangles(boxes) {
    const map = new Uint8Array(this.width * this.height);
    for (const [x0, y0, x1, y1] of boxes) {
      const { left, top, right, bottom } = this.#within({ left: Math.floor(x0), top: Math.floor(y0), right: Math.ceil(x1), bottom: Math.ceil(y1) });
      for (let y = top; y < bottom; y += 1) map.fill(1, y * this.width + left, y * this.width + Math.max(left, right));
    }
    return map;
  }

  #set(at, kind) {
    this.count += (kind === ADD) - this.has(at);
    this.#painted += this.#edits[at] === 0;
    this.#edits[at] = kind;
  }

  #step(from, to) {
    const entry = from.pop();
    if (!entry) return;
    this.#swap(entry);
    to.push(entry);
  }

  /** What is kept and what is there change places, so that the same entry leads back. */
  #swap(entry) {
    for (const [key, before] of entry.tiles) {
      const tile = this.#tileOf(key);
      entry.tiles.set(key, this.#copy(tile));
      let at = 0;
      for (let y = tile.top; y < tile.bottom; y += 1) {
        const length = tile.right - tile.left;
        this.#edits.set(before.subarray(at, at + length), y * this.width + tile.left);
        at += length;
      }
    }
    const { threshold } = this;
    if (entry.threshold !== threshold) {
      this.moveThreshold(entry.threshold);
      entry.threshold = threshold;
    } else this.#recount();
  }

  /** The oldest steps go when they take too much memory; the last one stays. */
  #keep(entry) {
    this.#done.push(entry);
    this.#undone = [];
    while (this.#done.length > 1 && this.#keptBytes() > MOST_KEPT_BYTES) this.#done.shift();
  }

  #keptBytes() {
    return this.#done.reduce((sum, { tiles }) => sum + tiles.size * TILE_PIXELS ** 2, 0);
  }

  /** Remember the squares below a rectangle as they were before this stroke. */
  #save({ left, top, right, bottom }) {
    const columns = this.#columns;
    for (let row = Math.floor(top / TILE_PIXELS); row * TILE_PIXELS < bottom; row += 1) {
      for (let column = Math.floor(left / TILE_PIXELS); column * TILE_PIXELS < right; column += 1) {
        const key = row * columns + column;
        if (!this.#stroke.tiles.has(key)) this.#stroke.tiles.set(key, this.#copy(this.#tileOf(key)));
      }
    }
  }

  get #columns() {
    return Math.ceil(this.width / TILE_PIXELS);
  }

  #tileOf(key) {
    const left = (key % this.#columns) * TILE_PIXELS, top = Math.floor(key / this.#columns) * TILE_PIXELS;
    return this.#within({ left, top, right: left + TILE_PIXELS, bottom: top + TILE_PIXELS });
  }

  #copy({ left, top, right, bottom }) {
    const copy = new Uint8Array((right - left) * (bottom - top));
    for (let y = top; y < bottom; y += 1)
      copy.set(this.#edits.subarray(y * this.width + left, y * this.width + right), (y - top) * (right - left));
    return copy;
  }

  #within({ left, top, right, bottom }) {
    return { left: Math.max(0, left), top: Math.max(0, top), right: Math.min(this.width, right), bottom: Math.min(this.height, bottom) };
  }

  #recount() {
    let count = 0, painted = 0;
    for (let at = 0; at < this.#edits.length; at += 1) {
      count += this.has(at);
      painted += this.#edits[at] > 0;
    }
    Object.assign(this, { count });
    this.#painted = painted;
  }
}

/** Of a point from the line between two others. */
function distance(x, y, from, to) {
  const along = { x: to.x - from.x, y: to.y - from.y };
  const length = along.x ** 2 + along.y ** 2;
  const share = length ? Math.min(1, Math.max(0, ((x - from.x) * along.x + (y - from.y) * along.y) / length)) : 0;
  return Math.hypot(x - from.x - share * along.x, y - from.y - share * along.y);
}
