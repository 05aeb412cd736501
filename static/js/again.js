// "Restore again" in the comparison: the press is answered there, then how the new attempt goes, then the offer to
// compare both. Each photo has its own answer, which is there again when one comes back to it.

import { answered, say } from "./answers.js";
import { button, find } from "./dom.js";
import { stateOf } from "./job_text.js";
import { ended } from "./jobs.js";
import { errorText, text } from "./text.js";

export class Again {
  #followed = new Map(); // id of a photo -> id of the job that restores it again, and of the attempt before
  #photo = null;
  #said = "";

  /** `restore(pressed, jobId, attempt)` gives the new job; `compare(right, left)` shows two attempts of a photo. */
  constructor(jobs, { restore, compare }) {
    Object.assign(this, { jobs, restore, compare, line: find("viewer-answer"), button: find("viewer-again") });
    jobs.addEventListener("changed", ({ detail }) => detail === this.#followed.get(this.#photo)?.jobId && this.#draw());
  }

  /** Another photo, or with null none, is looked at. */
  show(attempt) {
    if (this.#photo === attempt?.photo_id) return;
    this.#photo = attempt?.photo_id ?? null;
    this.#said = "";
    this.button.removeAttribute("aria-busy");
    say(this.line, "good", "");
    if (this.#followed.has(this.#photo)) this.#draw();
  }

  /** Restore the photo again that is looked at. */
  async press(jobId, attempt) {
    this.#followed.delete(attempt.photo_id);
    const job = await this.restore({ button: this.button, line: this.line }, jobId, attempt);
    if (job) this.follow(attempt, job);
    if (this.#photo !== attempt.photo_id) say(this.line, "good", ""); // another photo is looked at
  }

  /** Tell from now on how the job goes that restores the photo of an attempt again. */
  follow(attempt, job) {
    this.#followed.set(attempt.photo_id, { jobId: job.job_id, before: attempt.id });
    if (this.#photo === attempt.photo_id) this.#draw();
  }

  #draw() {
    const { jobId, before } = this.#followed.get(this.#photo);
    const job = this.jobs.get(jobId);
    if (!job || job.gone) return say(this.line, "good", "");
    const [made] = job.attempts;
    if (!ended(job)) return this.#say("busy", text("again.state", { state: stateOf(job) }));
    if (!made?.result) return this.#say("bad", made?.error ? errorText(made.error) : stateOf(job));
    const isSame = made.photo_id === this.#photo; // not where it had to be sent once more
    this.#say("good", text("again.done"), isSame && button(text("again.compare"), { class: "small",
      onclick: () => this.compare(made.id, before) }));
  }

  /** Not again what stands there: each change would be heard. */
  #say(tone, words, more) {
    if (this.#said === words) return;
    this.#said = words;
    say(this.line, tone, words, ...(more ? [more] : []));
  }
}
