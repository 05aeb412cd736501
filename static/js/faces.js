// The strip of faces below a comparison: each with its own before and after and a slider for its strength, which
// blends the result again at once. The viewer shows the new result.

import { say } from "./answers.js";
import * as api from "./api.js";
import { el, find, setAttribute, setText } from "./dom.js";
import { percent } from "./format.js";
import { faceReasonText } from "./status_text.js";
import { text } from "./text.js";

const DEBOUNCE_MILLISECONDS = 180;

export class Faces {
  /** `onblend` gets the new facts of the attempt; `onhighlight` a rectangle (fractions) to look at, or null. */
  constructor({ onblend, onhighlight, onproblem }) {
    Object.assign(this, { onblend, onhighlight, onproblem });
    this.section = find("faces");
    this.list = find("faces-list");
    this.line = find("faces-answer");
    this.pending = {};
    this.timer = 0;
  }

  /** Show the faces of an attempt; the strip hides while there are none. */
  async show(job, attempt) {
    this.hide();
    const faces = attempt.result.faces ?? [];
    if (!faces.length) return;
    const token = (this.token = { jobId: job.job_id, attempt });
    let found;
    try {
      const page = await api.faces(job.job_id);
      found = page.attempts.find((row) => row.attempt_id === attempt.id);
    } catch (problem) {
      if (problem.status !== 404 && problem.status !== 409) return this.onproblem(problem);
    }
    if (this.token !== token) return;
    this.#draw(found ?? { faces, reblendable: false, version: 1 });
  }

  hide() {
    this.token = null;
    this.pending = {};
    clearTimeout(this.timer);
    this.abort?.abort();
    this.section.hidden = true;
    say(this.line, "good", "");
    this.list.replaceChildren();
  }

  #draw({ faces, reblendable, version }) {
    this.section.hidden = false;
    this.rows = new Map();
    const restored = faces.filter((face) => face.restored).length;
    setText(find("faces-title"), text("unit.faces", { count: faces.length }));
    setText(find("faces-note"), text(reblendable ? "faces.move" : restored ? "faces.fixed" : "faces.none"));
    this.list.replaceChildren(...faces.map((face) => this.#row(face, reblendable, version)));
  }

  #row(face, reblendable, version) {
    const number = face.index + 1;
    const value = el("output", { class: "value" }, percent(face.strength ?? 1));
    const after = face.after_url && el("img", { class: "face-after", alt: text("faces.after", { number }), src: versioned(face.after_url, version) });
    const look = el("button", { type: "button", class: "face-look", "aria-label": text("faces.look", { number }),
      on: { click: () => this.onhighlight(this.#box(face), true), pointerenter: () => this.onhighlight(this.#box(face)),
        pointerleave: () => this.onhighlight(null), focus: () => this.onhighlight(this.#box(face)), blur: () => this.onhighlight(null) } },
    face.before_url && el("img", { class: "face-before", alt: text("faces.before", { number }), src: versioned(face.before_url, 1) }), after || null);
    const input = face.restored && reblendable && el("input", { type: "range", min: 0, max: 100, step: 5,
      value: 100 * (face.strength ?? 1), "aria-label": text("faces.strength", { number }),
      "aria-valuetext": percent(face.strength ?? 1), on: { input: (event) => this.#strengthChanged(face.index, event.target) } });
    this.rows.set(face.index, { face, after, value, input });
    return el("li", { class: "face" }, look, el("div", { class: "face-words" },
      el("span", { class: "face-name" }, text("faces.name", { number }), " ", input ? value : null),
      input || el("span", { class: "face-note" }, face.restored ? text("faces.restored") : faceReasonText(face.reason))));
  }

  /** The face's rectangle as fractions of the photo. */
  #box({ box }) {
    const { original_width: width, original_height: height } = this.token.attempt;
    return [box[0] / width, box[1] / height, box[2] / width, box[3] / height].map((share) => Math.min(1, Math.max(0, share)));
  }

  #strengthChanged(index, input) {
    this.pending[index] = input.value / 100;
    this.#showStrength(index, this.pending[index]);
    this.#blendAfter(DEBOUNCE_MILLISECONDS);
  }

  #showStrength(index, strength) {
    const { value, input } = this.rows.get(index);
    setText(value, percent(strength));
    setAttribute(input, "aria-valuetext", percent(strength));
  }

  #blendAfter(milliseconds) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.#blend(), milliseconds);
  }

  /** One blend at a time; what was moved meanwhile follows in the next. */
  async #blend() {
    const { token } = this;
    if (!token || this.abort) return;
    const strengths = this.pending;
    this.pending = {};
    this.abort = new AbortController();
    let waits = false;
    this.section.dataset.busy = "true";
    try {
      const answer = await api.blendFaces(token.jobId, token.attempt.id, strengths, this.abort.signal);
      if (this.token === token) this.#blended(answer, strengths);
    } catch (problem) {
      if (this.token === token) waits = this.#refused(problem, strengths);
    }
    this.abort = null;
    delete this.section.dataset.busy;
    if (this.token === token && Object.keys(this.pending).length && !waits) this.#blend();
  }

  /** Where the service asks to wait, the same is asked for then: gives true. Else the sliders show again what the result has. */
  #refused(problem, strengths) {
    this.onproblem(problem);
    if (problem.retryAfterSeconds) {
      this.pending = { ...strengths, ...this.pending };
      this.#blendAfter(1000 * problem.retryAfterSeconds);
      return true;
    }
    for (const index of Object.keys(strengths)) if (!(index in this.pending)) this.#putBack(Number(index));
    return false;
  }

  #putBack(index) {
    const { face, input } = this.rows.get(index), strength = face.strength ?? 1;
    input.value = 100 * strength;
    this.#showStrength(index, strength);
  }

  #blended(answer, strengths) {
    const { attempt } = this.token;
    say(this.line, "good", "");
    for (const [index, strength] of Object.entries(strengths)) {
      const row = this.rows.get(Number(index));
      row.face = { ...row.face, strength };
      if (row.after) row.after.src = versioned(row.face.after_url, answer.version);
    }
    const result = { ...attempt.result, ...answer.result, url: answer.url ?? answer.result?.url ?? attempt.result.url };
    const known = answer.faces ?? answer.result?.faces;
    if (known) result.faces = result.faces.map((face) => ({ ...face, ...known.find((row) => row.index === face.index) }));
    this.token.attempt = { ...attempt, version: answer.version, result };
    this.onblend(this.token.jobId, this.token.attempt);
  }
}

/** A picture whose content changes with each blend has an address that does so too. */
const versioned = (address, version) => `${address}${address.includes("?") ? "&" : "?"}v=${version}`;
