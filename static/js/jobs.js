// The jobs that this page knows: one copy of each, updated from HTTP answers and WebSocket messages alike. It
// dispatches `changed` and `dropped` with the id of the job.

const ENDED = new Set(["completed", "failed", "cancelled"]);
/** The status that an attempt has here once the service has removed its job; the service itself knows none such. */
export const GONE = "gone";

/** Whether a job or an attempt has ended. */
export const ended = ({ status }) => ENDED.has(status) || status === GONE;

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
    if (before?.gone && !news.gone) return; // a late message
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

  /** The service has removed it: it stays on the page and says so, and nothing of it can be had any more. */
  lose(id) {
    const job = this.#known.get(id);
    if (!job || job.gone) return;
    const attempts = job.attempts.map((attempt) => ({ ...attempt, status: GONE, result: null, error: null }));
    this.merge({ job_id: id, gone: true, attempts });
  }

  /** Every completed attempt with its job, in the order of the page. */
  completed() {
    return this.all().flatMap((job) =>
      job.attempts.filter((attempt) => attempt.result).map((attempt) => ({ job, attempt })));
  }

  /** The completed attempts at one photo, turned alike, with their jobs: the oldest first. */
  attemptsAt({ job, attempt }) {
    const turned = (options) => options?.rotate ?? 0;
    return this.completed().reverse().filter((row) =>
      row.attempt.photo_id === attempt.photo_id && turned(row.job.options) === turned(job.options));
  }

  /** The attempts of a job that failed or were cancelled, of photos that have no result and no new attempt either. */
  rest(id) {
    const job = this.#known.get(id);
    const open = job.attempts.filter(({ status }) => status === "failed" || status === "cancelled");
    if (!open.length) return open;
    const good = new Set(this.all().flatMap(({ attempts }) => attempts)
      .filter((attempt) => attempt.result || !ended(attempt)).map((attempt) => attempt.photo_id));
    return open.filter((attempt) => !good.has(attempt.photo_id));
  }

  #emit(what, id) {
    this.dispatchEvent(new CustomEvent(what, { detail: id }));
  }
}
