// What is done with jobs that exist: restore photos again, cancel, delete, keep. Each action answers at the button that
// was pressed: `pressed` has that button and the line for its answers.

import * as api from "./api.js";
import { answered, say } from "./answers.js";
import { confirmed } from "./confirming.js";
import { announce } from "./dom.js";
import { ended, optionsOf } from "./jobs.js";
import { text } from "./text.js";

const GONE_STATUS = 404;
const PHOTO_GONE_STATUSES = new Set([GONE_STATUS, 405]);
const BUSY_CODE = "photo_busy", QUOTA_CODE = "quota_exceeded";

const sleep = (count) => new Promise((resolve) => setTimeout(resolve, 1000 * count));

export class JobActions {
  constructor(jobs) {
    this.jobs = jobs;
  }

  /** Restore a failed or cancelled photo once more with the options it had, and the mask it came with. */
  retry(pressed, jobId, attempt) {
    return this.#answered(pressed, attempt, () => this.#retry(jobId, attempt));
  }

  /** Restore a photo again with these options, turned as it was: from the service's own copy, else by sending that copy once more. Gives the new job. */
  again(pressed, jobId, attempt, options) {
    return this.#answered(pressed, attempt, () => this.#restoreAgain(jobId, attempt, options));
  }

  /** Restore all photos of a batch again that have no result yet, each as a job of its own. */
  retryRest(pressed, jobId) {
    return answered(pressed, () => this.#retryRest(pressed, jobId), {
      busy: text("job.again_busy"), done: (count) => text("job.rest_again", { count }) });
  }

  /** The first press on Delete asks, the second deletes; Cancel acts at once. */
  remove(pressed, jobId) {
    const job = this.jobs.get(jobId);
    if (ended(job) && !confirmed(pressed, pressed.button.dataset.about)) return null;
    return answered(pressed, () => this.#remove(jobId, ended(job)));
  }

  /** Likewise for one photo of a batch. */
  removeOne(pressed, jobId, attempt) {
    if (ended(attempt) && !confirmed(pressed, attempt.original_filename)) return null;
    return answered(pressed, () => this.#removeOne(jobId, attempt));
  }

  /** Keep a job past its time, or with `on` false keep it no longer. */
  keep(pressed, jobId, on) {
    return answered(pressed, async () => {
      const job = await (on ? api.keep(jobId) : api.letGo(jobId)).catch((problem) => {
        if (problem.status === GONE_STATUS) this.jobs.lose(jobId);
        throw problem;
      });
      this.jobs.merge(job);
    }, { done: () => text(on ? "job.kept_now" : "job.let_go_now") });
  }

  #answered(pressed, attempt, act) {
    return answered(pressed, act, {
      busy: text("job.again_busy"), done: () => text("job.again", { name: attempt.original_filename }) });
  }

  async #retry(jobId, attempt) {
    if (attempt.own_mask) return this.#merged(await api.repairAgain(jobId, attempt.id));
    return this.#restoreAgain(jobId, attempt, optionsOf(this.jobs.get(jobId), attempt));
  }

  async #merged(accepted) {
    const job = await api.job(accepted.job_id);
    this.jobs.merge(job);
    return job;
  }

  async #restoreAgain(jobId, attempt, options) {
    const { rotate = 0 } = optionsOf(this.jobs.get(jobId), attempt);
    const wanted = Object.fromEntries(Object.entries({ ...options, rotate }).filter(([, value]) => value !== null && value !== ""));
    return this.#merged(await this.#restoreStoredPhoto(attempt, wanted) ?? await this.#uploadAgain(jobId, attempt, wanted));
  }

  /** One after another, waiting for room where the service asks for it; gives how many were taken. */
  async #retryRest(pressed, jobId) {
    const rest = this.jobs.rest(jobId);
    let taken = 0;
    while (rest.length) {
      try {
        await this.#retry(jobId, rest[0]);
        taken += 1;
      } catch (problem) {
        if (problem.retryAfterSeconds && problem.code !== QUOTA_CODE) {
          say(pressed.line, "busy", problem.message);
          await sleep(problem.retryAfterSeconds);
          continue;
        }
        if (problem.code !== BUSY_CODE) throw problem;
      }
      rest.shift();
      if (rest.length) say(pressed.line, "busy", text("job.rest_left", { count: rest.length }));
    }
    return taken;
  }

  async #remove(jobId, meant) {
    try {
      const fresh = await api.job(jobId);
      this.jobs.merge(fresh);
      if (ended(fresh) && !meant) return; // it ended in this moment: cancelling would delete the result
      const { status } = await api.removeJob(jobId);
      if (status === "removed") this.jobs.drop(jobId);
      else this.jobs.merge(await api.job(jobId));
      announce(text(status === "removed" ? "job.deleted" : "job.cancelled"));
    } catch (problem) {
      if (problem.status !== GONE_STATUS) throw problem;
      this.jobs.drop(jobId);
    }
  }

  async #removeOne(jobId, attempt) {
    const fresh = (await this.#fresh(jobId))?.attempts.find(({ id }) => id === attempt.id);
    if (!fresh || (ended(fresh) && !ended(attempt))) return; // as above
    const { status } = await api.removeAttempt(jobId, attempt.id);
    await this.#fresh(jobId);
    announce(text(status === "removed" ? "job.deleted" : "job.cancelled"));
  }

  /** The job as it is now, which the page then knows too; null when it is gone. */
  async #fresh(jobId) {
    try {
      const job = await api.job(jobId);
      this.jobs.merge(job);
      return job;
    } catch (problem) {
      if (problem.status !== GONE_STATUS) throw problem;
      this.jobs.drop(jobId);
      return null;
    }
  }

  async #restoreStoredPhoto(attempt, options) {
    if (!attempt.photo_id) return null;
    try {
      return await api.restoreAgain(attempt.photo_id, options);
    } catch (problem) {
      if (PHOTO_GONE_STATUSES.has(problem.status)) return null;
      throw problem;
    }
  }

  async #uploadAgain(jobId, attempt, options) {
    const copy = await api.original(jobId, attempt.id);
    return api.submit([{ file: new File([copy], attempt.original_filename) }], options, () => {});
  }
}
