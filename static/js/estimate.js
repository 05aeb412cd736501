// How long it takes: before the start from what this machine measured per megapixel, during the work from the pace so
// far. Pure arithmetic on plain values.

import { duration } from "./format.js";
import { QUALITIES } from "./status_text.js";

const MIN_PROGRESS = 0.02;
const MIN_SECONDS = 2;

/** Seconds for so many pixels of originals at a quality; null while this machine has not measured anything. */
export function secondsFor(pixels, quality, speeds) {
  const row = (speeds ?? []).find((speed) => speed.quality === quality);
  return row && row.seconds_per_input_megapixel !== null ? (pixels / 1e6) * row.seconds_per_input_megapixel : null;
}

/** Words beside each quality: for the photos that wait, or per megapixel while there are none. */
export function timeWords(pixels, speeds) {
  return Object.fromEntries(Object.keys(QUALITIES).map((quality) => {
    const seconds = secondsFor(pixels || 1e6, quality, speeds);
    if (seconds === null) return [quality, ""];
    return [quality, pixels ? `about ${duration(seconds)}` : `about ${duration(seconds)} per megapixel`];
  }));
}

/** The pace of the jobs in work, by this machine's steady clock. */
export class RemainingTime {
  #started = new Map();

  /** Seconds that a job still needs, or null while nobody can tell. `now` in seconds. */
  secondsLeft(job, now, speeds) {
    if (job.status !== "processing") {
      this.#started.delete(job.job_id);
      return null;
    }
    if (!this.#started.has(job.job_id)) this.#started.set(job.job_id, { now, progress: job.progress });
    const start = this.#started.get(job.job_id);
    const done = job.progress - start.progress, passed = now - start.now;
    if (done >= MIN_PROGRESS && passed >= MIN_SECONDS) return (passed / done) * (1 - job.progress);
    return this.#planned(job, speeds);
  }

  #planned(job, speeds) {
    const pixels = job.attempts.filter((attempt) => !attempt.ended_at)
      .reduce((sum, attempt) => sum + attempt.original_width * attempt.original_height * (1 - attempt.progress), 0);
    return secondsFor(pixels, job.options?.quality ?? "fast", speeds);
  }
}
