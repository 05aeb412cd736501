// What is done with jobs that exist: restore a photo again, cancel, delete.

import * as api from "./api.js";
import { announce, setText } from "./dom.js";
import { ended, optionsOf } from "./jobs.js";
import { text } from "./text.js";

const CONFIRM_MILLISECONDS = 4000;
const PHOTO_GONE_STATUSES = new Set([404, 405]);

export class JobActions {
  /** `onproblem` gets what went wrong. */
  constructor(jobs, onproblem) {
    Object.assign(this, { jobs, onproblem });
  }

  /** Restore a failed or cancelled photo once more with the options it had. */
  retry(jobId, attempt) {
    return this.again(jobId, attempt, optionsOf(this.jobs.get(jobId), attempt));
  }

  /**
   * Restore a photo again with these options, turned as it was: from the service's own copy, else by sending that copy
   * once more.
   */
  async again(jobId, attempt, options) {
    const { rotate = 0 } = optionsOf(this.jobs.get(jobId), attempt);
    const wanted = Object.fromEntries(Object.entries({ ...options, rotate }).filter(([, value]) => value !== null && value !== ""));
    try {
      const accepted = await this.#restoreStoredPhoto(attempt, wanted) ?? await this.#uploadAgain(jobId, attempt, wanted);
      this.jobs.merge(await api.job(accepted.job_id));
      announce(text("job.again", { name: attempt.original_filename }));
    } catch (problem) {
      this.onproblem(problem);
    }
  }

  /** The first press on Delete asks, the second deletes; Cancel acts at once. */
  async remove(jobId, pressed) {
    if (ended(this.jobs.get(jobId)) && !this.#confirmed(pressed)) return;
    try {
      const fresh = await api.job(jobId);
      const meant = ended(this.jobs.get(jobId));
      this.jobs.merge(fresh);
      if (ended(fresh) && !meant) return; // it ended in this moment: cancelling would delete the result
      const { status } = await api.removeJob(jobId);
      if (status === "removed") this.jobs.drop(jobId);
      else this.jobs.merge(await api.job(jobId));
      announce(text(status === "removed" ? "job.deleted" : "job.cancelled"));
    } catch (problem) {
      if (problem.status === 404) this.jobs.drop(jobId);
      else this.onproblem(problem);
    }
  }

  #confirmed(pressed) {
    if (pressed.dataset.asked) return true;
    const words = pressed.querySelector("span");
    const before = words.textContent, label = pressed.getAttribute("aria-label");
    pressed.dataset.asked = "true";
    setText(words, text("job.really"));
    pressed.setAttribute("aria-label", text("job.really_label", { about: pressed.dataset.about }));
    announce(text("job.press_again"));
    setTimeout(() => {
      delete pressed.dataset.asked;
      setText(words, before);
      pressed.setAttribute("aria-label", label);
    }, CONFIRM_MILLISECONDS);
    return false;
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
