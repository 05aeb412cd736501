// One restored photo, large: the comparison with its tools, its facts and warnings, and its faces; previous and next
// photo, other attempts at it, and the browser's back button.

import { Again } from "./again.js";
import { refuse } from "./answers.js";
import { AttemptChoice } from "./attempt_choice.js";
import { withCommand } from "./shell_command.js";
import { Compare } from "./compare.js";
import { Damage } from "./damage.js";
import { announce, el, find, setAttribute, setText } from "./dom.js";
import { dragOut } from "./drag_out.js";
import { Faces } from "./faces.js";
import { factRows } from "./result_facts.js";
import { sideAddress, tileSource } from "./image_sources.js";
import { percent } from "./format.js";
import { text, textOf, warningTexts } from "./text.js";
import { viewerActs } from "./viewer_keys.js";

const SIDES = ["before", "after"];
const MODES = ["slider", "side", "hold"];
const ZOOMS = { "zoom-fit": null, "zoom-100": 1, "zoom-400": 4 };

export class Viewer {
  /**
   * `act` has again(pressed, jobId, attempt), which gives the new job, and repairs(), whether photos can be repaired here;
   * onmissing() is told when modules cannot be had.
   */
  constructor(jobs, act) {
    Object.assign(this, { jobs, shown: null, mode: MODES[0] });
    this.dialog = find("viewer");
    this.compare = new Compare(() => this.#viewChanged(), (side, state) => this.#tilesChanged(side, state));
    find("viewer-stage").replaceWith(this.compare.stage);
    this.faces = new Faces({
      onblend: (jobId, attempt) => this.#blended(jobId, attempt),
      onhighlight: (box, near) => this.#highlightFace(box, near),
      onproblem: (problem) => refuse(find("faces").hidden ? find("viewer-answer") : find("faces-answer"), problem),
    });
    this.choice = new AttemptChoice((right, left) => this.#compareAttempts(right, left));
    this.again = new Again(jobs, { restore: act.again, compare: (right, left) => this.#compareAttempts(right, left) });
    this.damage = new Damage(this.compare, {
      enter: () => this.#enterDamage(), leave: () => this.#setMode(this.mode, false), available: act.repairs, onmissing: act.onmissing,
      sent: (attempt, job) => this.#repaired(attempt, job),
    });
    for (const what of ["changed", "dropped"]) jobs.addEventListener(what, ({ detail }) => this.shown && this.#jobChanged(detail));
    this.#addListeners();
  }

  /** Show an attempt beside the original, or beside another attempt; the browser's back button closes it again. */
  open(jobId, attemptId, leftId = null) {
    const job = this.jobs.get(jobId);
    const attempt = job?.attempts.find(({ id }) => id === attemptId);
    if (!attempt?.result) return;
    if (!this.dialog.open) {
      this.opener = document.activeElement;
      history.pushState({ viewer: true }, "");
      this.dialog.showModal();
      this.compare.stage.focus({ preventScroll: true });
    }
    const left = this.jobs.attemptsAt({ job, attempt }).find((row) => row.attempt.id === leftId && leftId !== attemptId) ?? null;
    this.shown = { job, attempt, left, before: null, after: null, tiles: {} };
    this.again.show(attempt);
    this.damage.show(job, attempt);
    this.#fill();
    this.faces.show(job, attempt);
  }

  close() {
    if (this.dialog.open) this.dialog.close();
  }

  #addListeners() {
    this.dialog.addEventListener("close", () => this.#closed());
    this.dialog.addEventListener("cancel", (event) => {
      if (!this.damage.isOpen) return;
      event.preventDefault(); // the first Escape closes the panel, the next one the comparison
      this.damage.close();
    });
    find("viewer-close").addEventListener("click", () => this.close());
    find("viewer-previous").addEventListener("click", () => this.#step(-1));
    find("viewer-next").addEventListener("click", () => this.#step(1));
    find("viewer-again").addEventListener("click", () => this.again.press(this.shown.job.job_id, this.shown.attempt));
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
  }

  /** The acts of the rows for the viewer in the table of `shortcuts`. */
  get acts() {
    return { ...viewerActs(this.compare, { step: (by) => this.#step(by),
      nextMode: () => this.#setMode(MODES[(MODES.indexOf(this.mode) + 1) % MODES.length]) }), ...this.damage.acts };
  }

  #closed() {
    this.damage.forget();
    this.shown = null;
    this.again.show(null);
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

  #setMode(mode, aloud = true) {
    if (aloud) this.damage.close();
    this.mode = mode;
    for (const name of MODES) setAttribute(find(`mode-${name}`), "aria-pressed", name === mode ? "true" : "false");
    this.compare.setMode(mode);
    if (aloud) announce(textOf("mode", mode));
    else if (this.shown) this.#nameHold();
  }

  /** The picture before stands alone, and what was found lies on it. */
  #enterDamage() {
    const { job, attempt, left } = this.shown;
    if (left) this.open(job.job_id, attempt.id);
    for (const name of MODES) setAttribute(find(`mode-${name}`), "aria-pressed", "false");
    this.compare.setMode("damage");
  }

  /** A mask was taken: what comes of it is told as when a photo is restored again. */
  #repaired(attempt, job) {
    this.damage.close();
    this.jobs.merge(job);
    this.again.follow(attempt, job);
    find("viewer-answer").scrollIntoView({ block: "nearest" });
  }

  #nameHold() {
    setText(find("hold-before"), text(this.shown.left ? "viewer.hold_left" : "viewer.hold_before"));
  }

  #compareAttempts(rightId, leftId) {
    const found = this.jobs.completed().find(({ attempt }) => attempt.id === rightId);
    if (found) this.open(found.job.job_id, rightId, leftId);
  }

  /** Another attempt can be compared, or what is looked at is gone. */
  #jobChanged(id) {
    const { job, left } = this.shown, now = this.jobs.get(id);
    if ([job, left?.job].some((one) => one?.job_id === id) && (!now || now.gone)) this.#showGone(job.job_id === id);
    else if (this.jobs.attemptsAt(this.shown).length !== this.shown.attempts) this.#showChoice();
  }

  /** What is on the screen stays; nothing is offered that would fail. */
  #showGone(isWhole) {
    find("viewer-gone").hidden = false;
    find("compare-choice").hidden = true;
    if (!isWhole) return;
    for (const id of ["viewer-download", "viewer-again"]) find(id).hidden = true;
    this.faces.hide();
    this.damage.withdraw();
    announce(text("viewer.gone"));
  }

  #showChoice() {
    const rows = this.jobs.attemptsAt(this.shown);
    this.shown.attempts = rows.length;
    this.choice.show(rows, this.shown.attempt.id, this.shown.left?.attempt.id ?? null);
  }

  #fill() {
    const { job, attempt, left } = this.shown;
    const { result } = attempt;
    const name = attempt.original_filename;
    const all = this.jobs.completed();
    const here = all.findIndex((row) => row.attempt.id === attempt.id);
    setText(find("viewer-title"), name);
    setText(find("viewer-place"), all.length > 1 ? text("viewer.place", { number: here + 1, count: all.length }) : "");
    find("viewer-previous").disabled = here <= 0;
    find("viewer-next").disabled = here >= all.length - 1;
    this.#fillDownload();
    this.#showChoice();
    find("viewer-gone").hidden = true;
    for (const id of ["viewer-download", "viewer-again"]) find(id).hidden = false;
    if (!this.damage.isOpen) this.#nameHold();
    find("facts").replaceChildren(...factRows(job, attempt).flatMap(([term, value]) =>
      [el("dt", {}, term), el("dd", {}, value)]));
    find("warnings").replaceChildren(...warningTexts(result.warnings).map((words) => el("li", {}, withCommand(words))));
    find("warnings").hidden = result.warnings.length === 0;
    for (const side of SIDES) this.shown[side] = this.#address(side);
    const { shown } = this;
    const { width, height } = left && left.attempt.result.width > result.width ? left.attempt.result : result;
    const words = left && { before: this.choice.nameOf(left.attempt.id), after: this.choice.nameOf(attempt.id) };
    const arriving = this.compare.show({ before: shown.before, after: shown.after, width, height, name, words });
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

  /** The attempt behind a side, and which of its pictures: on the left the original, or the result of another attempt. */
  #pictureOf(side) {
    const { job, attempt, left } = this.shown;
    return side === "before" && left ? { ...left, which: "after" } : { job, attempt, which: side };
  }

  #address(side) {
    const { tiles, pixels = this.#screenPixels() } = this.shown;
    const { job, attempt, which } = this.#pictureOf(side);
    const tiled = tiles[side] ? tiles[side] !== "missing" : undefined;
    return sideAddress(job.job_id, attempt, which, pixels, tiled);
  }

  #showTiles(side) {
    const { job, attempt, which } = this.#pictureOf(side);
    delete this.shown.tiles[side];
    this.compare.showTiles(side, tileSource(job.job_id, attempt, which));
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
