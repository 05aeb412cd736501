// The comparison, whose modules come with the first job that there is to look at: the first paint does without them.

export class Comparison {
  #viewer = null;
  #coming = null;

  /** `make` gives the viewer from its class, `onmissing` is told when its modules cannot be had. */
  constructor(jobs, make, onmissing) {
    Object.assign(this, { make, onmissing });
    jobs.addEventListener("changed", () => this.#load(), { once: true });
  }

  /** What keys do in it, nothing before it is there. */
  get acts() {
    return this.#viewer?.acts ?? {};
  }

  /** Show an attempt; see `Viewer`. */
  async open(jobId, attemptId) {
    const viewer = await this.#load();
    if (viewer) viewer.open(jobId, attemptId);
    else this.onmissing();
  }

  #load() {
    this.#coming ??= import("./viewer.js").catch(() => (this.#coming = null)).then((found) =>
      found && (this.#viewer ??= this.make(found.Viewer)));
    return this.#coming;
  }
}
