// Zoom and pan of a picture: how large it is shown and which part. Pure geometry in CSS pixels of the stage and the
// picture's own pixels; both sides of a comparison share one viewport.

const MAX_ZOOM = 8;
const STEP = 1.25;

export class Viewport {
  /** The picture's size in its own pixels; `ratio` is how many screen pixels make one CSS pixel. */
  constructor(width, height, ratio = 1) {
    Object.assign(this, { width, height, ratio, stage: { width: 1, height: 1 }, scale: 1, x: 0, y: 0, fitted: true });
  }

  /** CSS pixels per picture pixel that show the whole picture; a small one grows to fill, up to four screen pixels. */
  get fitScale() {
    const fit = Math.min(this.stage.width / this.width, this.stage.height / this.height);
    return Math.min(fit, 4 / this.ratio);
  }

  /** How many screen pixels one picture pixel takes: 1 is 100 %. */
  get zoom() {
    return this.scale * this.ratio;
  }

  /** The stage got another size; what was in its middle stays there. */
  resize(width, height) {
    const middle = this.#pointAt(this.stage.width / 2, this.stage.height / 2);
    this.stage = { width, height };
    if (this.fitted) return this.fit();
    this.#placeAt(middle, width / 2, height / 2);
  }

  fit() {
    this.fitted = true;
    this.scale = this.fitScale;
    this.#clamp();
  }

  /** Show at `zoom` (1 is 100 %), keeping the picture's point under (x, y) of the stage where it is. */
  zoomTo(zoom, x = this.stage.width / 2, y = this.stage.height / 2) {
    const point = this.#pointAt(x, y);
    const least = Math.min(this.fitScale, 1 / this.ratio);
    this.scale = Math.min(Math.max(zoom / this.ratio, least), MAX_ZOOM / this.ratio);
    this.fitted = Math.abs(this.scale - this.fitScale) < 1e-9;
    this.#placeAt(point, x, y);
  }

  zoomBy(steps, x, y) {
    this.zoomTo(this.zoom * STEP ** steps, x, y);
  }

  panBy(dx, dy) {
    this.x += dx;
    this.y += dy;
    this.#clamp();
  }

  /** Show a rectangle (fractions of the picture) large, with some room around it. */
  show([left, top, right, bottom]) {
    const room = 0.6;
    const width = (right - left) * this.width * (1 + room), height = (bottom - top) * this.height * (1 + room);
    const scale = Math.min(this.stage.width / width, this.stage.height / height);
    this.zoomTo(scale * this.ratio);
    this.#placeAt({ x: ((left + right) / 2) * this.width, y: ((top + bottom) / 2) * this.height },
      this.stage.width / 2, this.stage.height / 2);
  }

  /** Whether there is more picture than stage. */
  get canPan() {
    return this.width * this.scale > this.stage.width + 1 || this.height * this.scale > this.stage.height + 1;
  }

  #pointAt(x, y) {
    return { x: (x - this.x) / this.scale, y: (y - this.y) / this.scale };
  }

  #placeAt(point, x, y) {
    this.x = x - point.x * this.scale;
    this.y = y - point.y * this.scale;
    this.#clamp();
  }

  /** A picture smaller than the stage is centred; a larger one never leaves a gap at an edge. */
  #clamp() {
    this.x = clamped(this.x, this.width * this.scale, this.stage.width);
    this.y = clamped(this.y, this.height * this.scale, this.stage.height);
  }
}

function clamped(offset, picture, stage) {
  if (picture <= stage) return (stage - picture) / 2;
  return Math.min(0, Math.max(stage - picture, offset));
}
