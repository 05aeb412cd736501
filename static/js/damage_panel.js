// The damage of a photo over its picture: how much of it is marked, the threshold, and a brush that adds and takes away;
// then the photo can be repaired with exactly that mask.

import * as api from "./api.js";
import { answered, answerLine } from "./answers.js";
import { DamageBrush, SIZES } from "./damage_brush.js";
import { DamageLayer } from "./damage_layer.js";
import { loadDamage, maskFile } from "./damage_loading.js";
import { ADD, REMOVE } from "./damage_mask.js";
import { announce, button, el, find, oncePerFrame, setAttribute, setText } from "./dom.js";
import { share as shareWords, percent, size } from "./format.js";
import { text } from "./text.js";

const MOVE = 0;
const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const MUCH = 0.25; // from here on the service warns too

export class DamagePanel {
  #mask = null;
  #of = null; // the job and the attempt of the mask
  #factor = 1;
  #isLost = false; // what was filled was not kept
  #layer = new DamageLayer();
  #section = find("damage");
  #loading = null;
  #drawSoon = oncePerFrame(() => this.#drawAll());
  #thresholdBefore = null;

  /** `act` has close(), and sent(attempt, job) for the job that a mask made. */
  constructor(compare, act) {
    Object.assign(this, { compare, act });
    this.brush = new DamageBrush(compare, () => this.#mask, (rectangle) => this.#painted(rectangle));
    compare.before.canvas.append(this.#layer.canvas);
    this.#build();
    this.#section.addEventListener("keydown", (event) => this.#undoKey(event));
    compare.stage.addEventListener("keydown", (event) => this.#undoKey(event));
  }

  /** Show the damage of an attempt; `repairs` says whether it can be repaired here. */
  async open(job, attempt, repairs) {
    this.#section.hidden = false;
    this.send.hidden = !repairs;
    if (this.#mask && this.#of.attempt.id === attempt.id) return this.#begin();
    this.forget();
    const loading = (this.#loading = new AbortController());
    this.#controls(false);
    setText(this.state, text("damage.loading"));
    try {
      const { mask, factor, isLost } = await loadDamage(job.job_id, attempt, loading.signal);
      if (loading.signal.aborted) return;
      Object.assign(this, { repairs });
      [this.#mask, this.#factor, this.#isLost, this.#of] = [mask, factor, isLost, { job, attempt }];
      this.#begin();
    } catch (problem) {
      if (loading.signal.aborted) return;
      if (problem.status === undefined && !(problem instanceof TypeError)) throw problem; // a fault of this page
      setText(this.state, problem.status === undefined ? text("damage.unreadable") : problem.message);
    }
  }

  close() {
    this.#loading?.abort();
    this.#section.hidden = true;
    this.compare.brush = null;
    this.brush.hide();
    this.#layer.canvas.hidden = true;
  }

  /** Give the memory back. */
  forget() {
    this.#loading?.abort();
    this.#mask = this.#of = null;
    this.#layer.clear();
    const line = answerLine(); // an answer that is on its way belongs to the photo before
    this.line.replaceWith(line);
    this.line = line;
  }

  /** What keys do while it is open. */
  get acts() {
    if (!this.#mask) return {};
    const acts = {
      damage_undo: () => this.#undo(), damage_redo: () => this.#redo(), brush_swap: () => this.#choose(this.brush.kind === ADD ? REMOVE : ADD),
      brush_smaller: () => this.#resize(this.brush.size / SIZES.step), brush_larger: () => this.#resize(this.brush.size * SIZES.step),
    };
    if (this.brush.kind) Object.assign(acts, { move: ({ key, shiftKey }) => this.brush.nudge(STEPS[key], shiftKey), brush_dab: () => this.brush.dab() });
    return acts;
  }

  #build() {
    const slider = (facts) => el("input", { type: "range", ...facts });
    this.tools = [[MOVE, "damage.move"], [ADD, "damage.add"], [REMOVE, "damage.remove"]].map(([kind, words]) =>
      button(text(words), { data: { kind }, onclick: () => this.#choose(kind) }));
    this.size = slider({ id: "damage-size", min: SIZES.least, max: SIZES.most, value: SIZES.usual, "aria-label": text("damage.size"), on: { input: () => this.#resize(Number(this.size.value)) } });
    this.threshold = slider({ id: "damage-threshold", min: 1, max: 99, on: { input: () => this.#moveThreshold(), change: () => this.#keepThreshold() } });
    this.thresholdValue = el("output", { class: "value", for: "damage-threshold" });
    this.thresholdRow = el("div", { class: "damage-slider" }, el("label", { for: "damage-threshold" }, text("damage.sensitivity"), " ", this.thresholdValue), this.threshold);
    this.undo = button(text("damage.undo"), { symbol: "turn-left", quiet: true, class: "round", onclick: () => this.#undo() });
    this.redo = button(text("damage.redo"), { symbol: "again", quiet: true, class: "round", onclick: () => this.#redo() });
    this.visible = el("input", { type: "checkbox", role: "switch", checked: true, on: { change: () => this.#showLayer() } });
    this.reset = button(text("damage.reset"), { onclick: () => this.#reset() });
    this.send = button(text("damage.repair"), { class: "primary", onclick: () => this.#send() });
    this.state = el("p", { class: "damage-state", id: "damage-state" });
    this.note = el("p", { class: "muted" });
    this.line = answerLine();
    this.#section.replaceChildren(
      el("div", { class: "damage-head" }, el("h3", { id: "damage-title" }, text("damage.title")), this.state,
        el("label", { class: "switch" }, this.visible, el("span", {}, text("damage.show"))),
        button(text("damage.close"), { symbol: "close", quiet: true, class: "round", onclick: () => this.act.close() })),
      el("div", { class: "damage-tools" },
        el("div", { class: "segments", role: "group", "aria-label": text("damage.tools") }, this.tools),
        el("span", { class: "damage-steps" }, this.undo, this.redo),
        el("div", { class: "damage-slider" }, el("label", { for: "damage-size" }, text("damage.size")), this.size),
        this.thresholdRow),
      el("div", { class: "damage-foot" }, this.send, this.reset, this.line, this.note));
  }

  /** The mask is there. */
  #begin() {
    const { probability } = this.#mask;
    this.#layer.begin(this.#mask);
    this.#showLayer();
    this.thresholdRow.hidden = !probability;
    this.#controls(true);
    this.#choose(this.brush.kind);
    this.#showThreshold();
    this.#drawAll();
  }

  #controls(on) {
    for (const control of [...this.tools, this.size, this.threshold, this.undo, this.redo, this.visible, this.reset, this.send]) control.disabled = !on;
  }

  #choose(kind) {
    this.brush.kind = kind;
    for (const tool of this.tools) setAttribute(tool, "aria-pressed", String(Number(tool.dataset.kind) === kind));
    this.compare.brush = kind ? this.brush : null;
    this.compare.stage.dataset.brush = String(kind);
    this.brush.draw();
  }

  #resize(pixels) {
    this.brush.resize(pixels);
    this.size.value = this.brush.size;
  }

  #showLayer() {
    this.#layer.canvas.hidden = !this.visible.checked;
  }

  #moveThreshold() {
    this.#thresholdBefore ??= this.#mask.threshold;
    const value = Number(this.threshold.value), { foundAt } = this.#mask;
    this.#mask.moveThreshold(value === sliderOf(foundAt) ? foundAt : (100 - value) / 100);
    this.#showThreshold();
    this.#drawSoon();
  }

  #keepThreshold() {
    if (this.#thresholdBefore !== null) this.#mask.keepThreshold(this.#thresholdBefore);
    this.#thresholdBefore = null;
    this.#tell();
  }

  /** More to the right marks more, which is a lower threshold. */
  #showThreshold() {
    const value = sliderOf(this.#mask.threshold);
    this.threshold.value = value;
    setText(this.thresholdValue, percent(value / 100));
  }

  #painted(rectangle) {
    if (!rectangle) return this.#drawAll();
    if (rectangle.right > rectangle.left) this.#layer.draw(this.#mask, rectangle);
    this.#tell();
  }

  #drawAll() {
    if (!this.#mask) return;
    this.#layer.draw(this.#mask);
    this.#tell();
  }

  #tell() {
    const mask = this.#mask, { attempt } = this.#of;
    const share = this.#isLost && !mask.isChanged ? attempt.result.params.repair.share : mask.share;
    setText(this.state, text("damage.share", { share: shareWords(share) }));
    setAttribute(this.threshold, "aria-valuetext", `${this.thresholdValue.textContent}, ${this.state.textContent}`);
    this.undo.disabled = !mask.canUndo;
    this.redo.disabled = !mask.canRedo;
    this.reset.disabled = this.send.disabled = !mask.isChanged;
    const size_ = size(mask.width, mask.height);
    setText(this.note, [
      text(this.#words(mask, attempt)),
      mask.share > MUCH && text("damage.much"), this.#factor > 1 && text("damage.reduced", { size: size_ }),
    ].filter(Boolean).join(" "));
  }

  #words(mask, attempt) {
    if (this.#isLost) return "damage.lost";
    if (mask.isChanged) return "damage.honest";
    return attempt.result.params?.repair && mask.count ? "damage.unchanged" : "damage.nothing";
  }

  #undo() {
    this.#step(() => this.#mask.undo());
  }

  #redo() {
    this.#step(() => this.#mask.redo());
  }

  #reset() {
    this.#step(() => this.#mask.reset());
  }

  #step(work) {
    const held = document.activeElement;
    work();
    this.#showThreshold();
    this.#drawAll();
    if (held?.disabled) this.tools.find((tool) => tool.getAttribute("aria-pressed") === "true").focus(); // a disabled button loses the focus
    announce(this.state.textContent);
  }

  #undoKey(event) {
    if (this.#section.hidden || !this.#mask || !(event.ctrlKey || event.metaKey) || event.altKey) return;
    const key = event.key.toLowerCase(), redoes = key === "y" || (key === "z" && event.shiftKey);
    if (!redoes && key !== "z") return;
    event.preventDefault();
    if (redoes) this.#redo();
    else this.#undo();
  }

  async #send() {
    const { job, attempt } = this.#of;
    const made = await answered({ button: this.send, line: this.line }, async () => {
      const file = await maskFile(this.#mask, attempt, this.#factor);
      return api.job((await api.repairWith(job.job_id, attempt.id, file)).job_id);
    }, { busy: text("damage.sending") });
    if (made) this.act.sent(attempt, made);
  }
}

const sliderOf = (threshold) => Math.min(99, Math.max(1, Math.round(100 * (1 - threshold))));
