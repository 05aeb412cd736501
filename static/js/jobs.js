// The jobs that this page knows: one copy of each, brought up to date by whoever hears news. It tells listeners which
// job changed or went.

const ENDED = new Set(["completed", "failed", "cancelled"]);

/** Whether a job or an attempt has ended. */
export const ended = ({ status }) => ENDED.has(status);

export class Jobs extends EventTarget {
  #known = new Map();

  /** Newest first. */
  all() {
    return [...this.#known.values()].sort((one, other) => other.created_at - one.created_at);
  }

  active() {
    return this.all().filter((job) => !ended(job));
  }

  get(id) {
    return this.#known.get(id);
  }

  /** Take news in: a whole job, or a live message that leaves some facts as they were. */
  merge(news) {
    const before = this.#known.get(news.job_id);
    if (!before && news.created_at === undefined) return; // news of a job that was just removed
    this.#known.set(news.job_id, { ...before, ...news });
    this.#tell("changed", news.job_id);
  }

  /** One attempt got new facts (its faces were blended again). */
  mergeAttempt(jobId, attempt) {
    const job = this.#known.get(jobId);
    if (!job) return;
    const attempts = job.attempts.map((known) => (known.id === attempt.id ? { ...known, ...attempt } : known));
    this.merge({ job_id: jobId, attempts });
  }

  drop(id) {
    if (this.#known.delete(id)) this.#tell("dropped", id);
  }

  clear() {
    for (const id of [...this.#known.keys()]) this.drop(id);
  }

  /** Every completed attempt with its job, in the order of the page. */
  completed() {
    return this.all().flatMap((job) =>
      job.attempts.filter((attempt) => attempt.result).map((attempt) => ({ job, attempt })));
  }

  #tell(what, id) {
    this.dispatchEvent(new CustomEvent(what, { detail: id }));
  }
}
