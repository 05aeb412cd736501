// How long it takes. The seconds come from the service (`/api/v1/estimate` before the start, `seconds_left` of a job
// afterwards); here they become words, and a countdown that does not climb without a reason.

import * as api from "./api.js";
import { duration } from "./format.js";
import { QUALITIES } from "./status_text.js";
import { text } from "./text.js";

const ASK_AFTER_MILLISECONDS = 200; // of rest, while somebody chooses
const LONGER_SHARE = 0.25, LONGER_SECONDS = 3; // an estimate that grows by more than this is told, else the count rests
const LATE_SECONDS = 1; // after which a countdown at its end says that it was wrong
const NEARLY_DONE = 0.9;
const EXAMPLE = { width: 1000, height: 1000 };
const MOST_SIZES = 50; // that the service takes in one question
const MOST_GROUPS = 8; // of photos with other settings: more are not asked about, and no total is told

/** Asks what the chosen photos will take, and dispatches `change` with each answer. */
export class PlannedTime extends EventTarget {
  #timer = 0;
  #number = 0;
  #total = null;
  answer = null;

  /**
   * `options` are those of the form, for which the times of all qualities are told; `groups` the chosen photos, as facts
   * (width, height) with the options of each group.
   */
  ask(options, groups) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#ask(options, groups), ASK_AFTER_MILLISECONDS);
  }

  async #ask(options, groups) {
    const number = (this.#number += 1);
    const key = JSON.stringify(options);
    const own = groups.find((group) => JSON.stringify(group.options) === key);
    const others = groups.filter((group) => group !== own);
    const asked = others.length < MOST_GROUPS ? others : [];
    const [answer, ...further] = await Promise.all([this.#answer(options, own?.photos ?? []), ...asked.map((group) => this.#answer(group.options, group.photos))]);
    if (number !== this.#number) return; // asked again meanwhile
    this.answer = answer;
    this.#total = others.length === asked.length ? total([answer, ...further]) : null;
    this.dispatchEvent(new Event("change"));
  }

  async #answer({ prompt, ...options }, photos) { // what somebody wrote has no place in an address
    const known = photos.filter(({ width, height }) => width && height);
    const asked = [];
    for (let start = 0; start < Math.max(1, known.length); start += MOST_SIZES) {
      const some = known.slice(start, start + MOST_SIZES);
      asked.push(api.estimate(some.length ? some : [EXAMPLE], options));
    }
    const answers = await Promise.all(asked).catch(() => null);
    return answers && { ...joined(answers), photos: known.length };
  }

  /** Seconds until the chosen photos are done, the queue before them counted; null while nobody can tell. */
  get seconds() {
    return this.#total;
  }

  /** Words beside each quality and beside the `model` that was chosen: for the photos that wait, else per megapixel. */
  get words() {
    const rows = [...this.answer?.qualities ?? [], { quality: "model", seconds: this.answer?.seconds ?? null }];
    return Object.fromEntries([...QUALITIES, "model"].map((quality) => {
      const seconds = rows.find((row) => row.quality === quality)?.seconds ?? null;
      if (seconds === null) return [quality, ""];
      return [quality, text(this.answer.photos ? "time.about" : "time.per_megapixel", { time: duration(seconds) })];
    }));
  }
}

/** The answers for parts of a long list as one. */
function joined([first, ...others]) {
  const sum = (seconds, more) => more.reduce((all, one) => (all === null || one === null ? null : all + one), seconds);
  const qualities = first.qualities.map((row, place) => ({ ...row, seconds: sum(row.seconds, others.map((other) => other.qualities[place].seconds)) }));
  return { ...first, qualities, seconds: sum(first.seconds, others.map(({ seconds }) => seconds)) };
}

/** Seconds for all answers with photos, and the queue before them once; null when one is not known. */
function total(answers) {
  if (answers.some((answer) => answer === null)) return null;
  const meant = answers.filter(({ photos }) => photos);
  if (!meant.length || meant.some(({ seconds }) => seconds === null)) return null;
  return meant.reduce((sum, { seconds }) => sum + seconds, meant[0].seconds_ahead ?? 0);
}

/** One countdown a job, by this machine's steady clock. */
export class RemainingTime {
  #known = new Map();

  /** Words for the time that a job still needs, "" while nobody can tell. `now` in seconds. */
  words(job, now) {
    if (job.seconds_left === null || job.seconds_left === undefined) {
      this.#known.delete(job.job_id);
      return "";
    }
    const known = this.#known.get(job.job_id) ?? { told: null, end: Infinity, longer: false };
    if (known.told !== job.seconds_left) this.#take(known, job.seconds_left, now);
    this.#known.set(job.job_id, known);
    const left = known.end - now;
    if (left < 1 && job.progress >= NEARLY_DONE) return text("time.nearly_done");
    if (left < -LATE_SECONDS) return text("time.longer");
    if (known.longer && left >= 1) return text("time.longer_left", { time: duration(left) });
    return text(job.status === "queued" ? "time.about" : "time.left", { time: duration(Math.max(1, left)) });
  }

  /** Take a new estimate over: a shorter one at once, a little longer one by resting, a much longer one said as such. */
  #take(known, seconds, now) {
    const end = now + seconds, later = end - known.end, shown = Math.max(0, known.end - now);
    if (later > Math.max(LONGER_SECONDS, LONGER_SHARE * shown)) Object.assign(known, { end, longer: true });
    else if (later <= 0) Object.assign(known, { end, longer: false });
    known.told = seconds;
  }
}
