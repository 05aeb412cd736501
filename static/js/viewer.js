// One restored photo, large: the comparison with its tools, its facts and warnings, and its faces; previous and next
// photo, and the browser's back button.

import { withCommand } from "./shell_command.js";
import { Compare } from "./compare.js";
import { announce, el, find, setAttribute, setText } from "./dom.js";
import { dragOut } from "./drag_out.js";
import { Faces } from "./faces.js";
import { factRows } from "./result_facts.js";
import { sideAddress, tileSource } from "./image_sources.js";
import { percent } from "./format.js";
import { text, textOf, warningText } from "./text.js";

const SIDES = ["before", "after"];
const MODES = ["slider", "side", "hold"];
const ZOOMS = { "zoom-fit": null, "zoom-100": 1, "zoom-400": 4 };

export class Viewer {
  /** `act` has again(jobId, attempt) and problem(error). */
  constructor(jobs, act) {
    Object.assign(this, { jobs, act, shown: null });
    this.dialog = find("viewer");
    this.compare = new Compare(() => this.#viewChanged(), (side, state) => this.#tilesChanged(side, state));
    find("viewer-stage").replaceWith(this.compare.stage);
    this.faces = new Faces({
      onblend: (jobId, attempt) => this.#blended(jobId, attempt),
      onhighlight: (box, near) => this.#highlightFace(box, near),
      onproblem: (problem) => act.problem(problem),
    });
    this.#addListeners();
  }

  /** Show an attempt; the browser's back button closes it again. */
  open(jobId, attemptId) {
    const job = this.jobs.get(jobId);
    const attempt = job?.attempts.find(({ id }) => id === attemptId);
    if (!attempt?.result) return;
    if (!this.dialog.open) {
      this.opener = document.activeElement;
      history.pushState({ viewer: true }, "");
      this.dialog.showModal();
      this.compare.stage.focus({ preventScroll: true });
    }
    this.shown = { job, attempt, before: null, after: null, tiles: {} };
    this.#fill();
    this.faces.show(job, attempt);
  }

  close() {
    if (this.dialog.open) this.dialog.close();
  }

  #addListeners() {
    this.dialog.addEventListener("close", () => this.#closed());
    find("viewer-close").addEventListener("click", () => this.close());
    find("viewer-previous").addEventListener("click", () => this.#step(-1));
    find("viewer-next").addEventListener("click", () => this.#step(1));
    find("viewer-again").addEventListener("click", () => this.act.again(this.shown.job.job_id, this.shown.attempt));
    dragOut(find("viewer-download"), () => this.shown?.attempt);
    addEventListener("popstate", () => {
      this.close();
      setTimeout(() => this.#restoreFocus()); // the browser first goes to the address's own mark, such as #main
    });
    for (const mode of MODES) find(`mode-${mode}`).addEventListener("click", () => this.#setMode(mode));
    for (const [id, zoom] of Object.entries(ZOOMS))
      find(id).addEventListener("click", () => (zoom ? this.compare.zoomTo(zoom) : this.compare.fit()));
    const hold = find("hold-before");
    for (const event of ["pointerdown", "pointerup", "pointerleave", "pointercancel"])
      hold.addEventListener(event, () => this.compare.hold(event === "pointerdown"));
    for (const event of ["keydown", "keyup"]) hold.addEventListener(event, ({ key }) =>
      [" ", "Enter"].includes(key) && this.compare.hold(event === "keydown"));
    hold.addEventListener("blur", () => this.compare.hold(false));
    this.dialog.addEventListener("keydown", (event) => this.#shortcut(event));
  }

  #shortcut(event) {
    if (event.target.matches("input, textarea, select") || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "n") this.#step(1);
    if (event.key === "p") this.#step(-1);
  }

  #closed() {
    this.shown = null;
    this.faces.hide();
    this.compare.clear();
    this.#restoreFocus();
    if (history.state?.viewer) history.back();
  }

  /** To where it was before; going back in the history takes it away once more, so this is called after that too. */
  #restoreFocus() {
    if (!this.dialog.open) this.opener?.focus({ preventScroll: true });
  }

  #step(by) {
    const all = this.jobs.completed();
    const here = all.findIndex(({ attempt }) => attempt.id === this.shown.attempt.id);
    const next = all[here + by];
    if (next) this.open(next.job.job_id, next.attempt.id);
  }

  #setMode(mode) {
    for (const name of MODES) setAttribute(find(`mode-${name}`), "aria-pressed", name === mode ? "true" : "false");
    this.compare.setMode(mode);
    announce(textOf("mode", mode));
  }

  #fill() {
    const { job, attempt } = this.shown;
    const { result } = attempt;
    const name = attempt.original_filename;
    const all = this.jobs.completed();
    const here = all.findIndex((row) => row.attempt.id === attempt.id);
    setText(find("viewer-title"), name);
    setText(find("viewer-place"), all.length > 1 ? text("viewer.place", { number: here + 1, count: all.length }) : "");
    find("viewer-previous").disabled = here <= 0;
    find("viewer-next").disabled = here >= all.length - 1;
    this.#fillDownload();
    find("facts").replaceChildren(...factRows(job, attempt).flatMap(([term, value]) =>
      [el("dt", {}, term), el("dd", {}, value)]));
    find("warnings").replaceChildren(...result.warnings.map((warning) => el("li", {}, withCommand(warningText(warning)))));
    find("warnings").hidden = result.warnings.length === 0;
    const pixels = this.#screenPixels();
    for (const side of SIDES) this.shown[side] = sideAddress(job.job_id, attempt, side, pixels);
    const { shown } = this;
    const arriving = this.compare.show({ before: shown.before, after: shown.after, width: result.width, height: result.height, name });
    for (const side of SIDES) // what is at hand comes first, and no side waits for the other
      arriving[side].then(() => this.shown === shown && this.#showTiles(side));
  }

  #fillDownload() {
    const { attempt } = this.shown;
    setAttribute(find("viewer-download"), "href", attempt.result.url);
    setAttribute(find("viewer-download"), "aria-label", text("viewer.download_label", { name: attempt.original_filename }));
  }

  #screenPixels() {
    const box = this.compare.stage.getBoundingClientRect();
    return Math.max(box.width, box.height) * devicePixelRatio;
  }

  /** The view changed: tell the zoom, and fetch sharper pictures when one looks closer than those that are there. */
  #viewChanged() {
    if (!this.shown) return;
    const { job, attempt } = this.shown;
    const { view } = this.compare;
    setText(find("zoom-value"), percent(view.zoom));
    for (const [id, zoom] of Object.entries(ZOOMS)) {
      const on = zoom ? Math.abs(view.zoom - zoom) < 0.005 : view.fitted;
      setAttribute(find(id), "aria-pressed", on ? "true" : "false");
    }
    const pixels = Math.max(view.width, view.height) * view.zoom;
    if (pixels <= (this.shown.pixels ?? 2048)) return;
    this.shown.pixels = pixels;
    for (const side of SIDES) this.#loadSharper(side, this.#address(side));
  }

  #address(side) {
    const { job, attempt, tiles, pixels = this.#screenPixels() } = this.shown;
    return sideAddress(job.job_id, attempt, side, pixels, tiles[side] && tiles[side] !== "missing");
  }

  #showTiles(side) {
    const { job, attempt, tiles } = this.shown;
    delete tiles[side];
    this.compare.showTiles(side, tileSource(job.job_id, attempt, side));
    this.#showReduced();
  }

  /** Where the service has no tiles, its largest rendition stands in for them. */
  #tilesChanged(side, state) {
    if (!this.shown) return;
    this.shown.tiles[side] = state;
    if (state === "missing") this.#loadSharper(side, this.#address(side));
    this.#showReduced();
  }

  #showReduced() {
    const state = this.shown.tiles.after;
    const words = state === "loading" ? text("viewer.loading_tiles") : state === "missing" ? text("viewer.reduced") : "";
    setText(find("reduced"), words);
    find("reduced").hidden = !words;
  }

  #loadSharper(which, address) {
    if (this.shown[which] === address) return;
    this.shown[which] = address;
    this.compare.load(which, address);
  }

  #highlightFace(box, near = false) {
    this.compare.mark(box);
    if (box && near) this.compare.showBox(box);
  }

  #blended(jobId, attempt) {
    this.shown.attempt = attempt;
    this.jobs.mergeAttempt(jobId, attempt);
    this.shown.job = this.jobs.get(jobId);
    this.#fillDownload();
    this.#showTiles("after");
    this.#loadSharper("after", this.#address("after"));
    announce(text("faces.blended"));
  }
}
