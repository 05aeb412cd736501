// The jobs that this page knows: one copy of each, updated from HTTP answers and WebSocket messages alike. It
// dispatches `changed` and `dropped` with the id of the job.

const ENDED = new Set(["completed", "failed", "cancelled"]);

/** Whether a job or an attempt has ended. */
export const ended = ({ status }) => ENDED.has(status);

/** The options of one photo of a job: those of all, and what it has of its own. */
export const optionsOf = (job, attempt) => ({ ...job?.options, ...attempt.own_options });

export class Jobs extends EventTarget {
  #known = new Map();

  /** Newest first. */
  all() {
    return [...this.#known.values()].sort((one, other) => other.created_at - one.created_at);
  }

  get(id) {
    return this.#known.get(id);
  }

  /** Take news in: a whole job, or a live message that leaves some facts as they were. */
  merge(news) {
    const before = this.#known.get(news.job_id);
    if (!before && news.created_at === undefined) return; // news of a job that was just removed
    this.#known.set(news.job_id, { ...before, ...news });
    this.#emit("changed", news.job_id);
  }

  /** One attempt got new facts (its faces were blended again). */
  mergeAttempt(jobId, attempt) {
    const job = this.#known.get(jobId);
    if (!job) return;
    const attempts = job.attempts.map((known) => (known.id === attempt.id ? { ...known, ...attempt } : known));
    this.merge({ job_id: jobId, attempts });
  }

  drop(id) {
    if (this.#known.delete(id)) this.#emit("dropped", id);
  }

  /** Every completed attempt with its job, in the order of the page. */
  completed() {
    return this.all().flatMap((job) =>
      job.attempts.filter((attempt) => attempt.result).map((attempt) => ({ job, attempt })));
  }

  #emit(what, id) {
    this.dispatchEvent(new CustomEvent(what, { detail: id }));
  }
}
