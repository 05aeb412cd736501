// Sends the photos of the tray: in jobs as large as the service takes, one after another, waiting for room in its
// queue, and again without those that it refuses.

import * as api from "./api.js";
import { say } from "./answers.js";
import { announce, find, setText } from "./dom.js";
import { percent } from "./format.js";
import { JobNames, nextJob } from "./next_job.js";
import { answerOf, passes, pause, waitSeconds } from "./patience.js";
import { largestJob, reasonToWait } from "./queue_room.js";
import { text } from "./text.js";
import { discard } from "./thumbnail.js";

const QUEUE_POLL_SECONDS = 3;
const PHOTO_REFUSED_STATUSES = new Set([400, 413, 415, 422]);
const IN_USE_CODE = "idempotency_key_in_use";
const MOST_TRIES = 5; // of a job whose uploads end without an answer although the service is there

export class Submission {
  #names = new JobNames();
  #stopping = null;
  #abandoned = false;

  /** `onjob` gets each accepted job and the small pictures by attempt; `onproblem` what stopped the sending. */
  constructor(tray, { onjob, onproblem }) {
    Object.assign(this, { tray, onjob, onproblem });
    addEventListener("beforeunload", (event) => this.active && !this.#abandoned && event.preventDefault());
    find("sending-stop").addEventListener("click", () => this.#stopping?.abort());
  }

  /** Whether photos are on their way or wait for room. */
  get active() {
    return this.#stopping !== null;
  }

  /** Stop, and let the page go without a question: it is about to be loaded anew. */
  abandon() {
    this.#abandoned = true;
    this.#stopping?.abort();
  }

  /**
   * Send these photos, as far as they are still in the tray when their turn comes; `optionsOf` gives the options of a photo.
   * Photos of one backend share jobs. What is put into the tray meanwhile waits for a press of its own.
   */
  async run(chosen, optionsOf) {
    this.#begin();
    try {
      let job = null;
      while ((job ??= await this.#compose(chosen, optionsOf))) job = await this.#send(job);
    } catch (problem) {
      if (problem.name === "AbortError") say(find("restore-answer"), "good", text("submission.stopped"));
      else this.onproblem(problem);
    } finally {
      this.#end();
    }
  }

  /** The next job, made of what is in the tray once there is room for it; null when nothing is left. */
  async #compose(chosen, optionsOf) {
    const next = () => {
      const ready = this.tray.fitting(chosen, optionsOf);
      return ready.length ? nextJob(ready, optionsOf, largestJob(this.tray.config.limits)) : null;
    };
    for (let job = next(); job; job = next()) {
      const reason = await this.#answer(() => reasonToWait(job.photos.length, this.tray.config.limits));
      if (reason === null) return next();
      this.#showStatus(reason);
      await this.#pause(QUEUE_POLL_SECONDS);
    }
    return null;
  }

  /** Upload a job, whose photos cannot be changed meanwhile. Gives the job that is to be sent once more as it is, else null. */
  async #send(job) {
    this.tray.lock(job.photos);
    const files = job.photos.map(({ file }, place) => ({ file, own: job.own[place] }));
    const onprogress = (share) => this.#showProgress(job.photos, share);
    try {
      const accepted = await api.submit(files, job.options, { name: this.#names.of(job), onprogress, signal: this.#stopping.signal });
      this.#take(job.photos, accepted.job_id);
      return null;
    } catch (problem) {
      return this.#again(job, problem);
    }
  }

  /** The photos have arrived, and leave the tray before anything else can fail. */
  #take(photos, jobId) {
    const pictures = photos.map((photo) => this.tray.release(photo));
    announce(text("submission.sent", { count: photos.length }));
    this.#show(jobId, pictures);
  }

  async #show(jobId, pictures) {
    try {
      const job = await answerOf(() => api.job(jobId));
      this.onjob(job, new Map(pictures.map((picture, place) => [job.attempts[place]?.id, picture])));
    } catch (problem) {
      pictures.forEach(discard);
      this.onproblem(problem);
    }
  }

  /** After a problem: the same job where nobody knows whether it was accepted, null where it was refused. */
  async #again(job, problem) {
    const { tries = 0 } = job;
    if (problem.status === 0 && (await this.#refuseUnreadable(job.photos))) return null;
    if (isOpen(problem) && tries < MOST_TRIES) {
      await this.#wait(problem, tries);
      await this.#answer(api.status); // no megabytes for a service that is not there
      return { ...job, tries: problem.code === IN_USE_CODE ? tries : tries + 1 };
    }
    this.tray.lock([]);
    await this.#handleRefusal(job.photos, problem);
    return null;
  }

  /** An upload ends without a word where a file was changed, moved or ejected after it was chosen. Gives whether one was. */
  async #refuseUnreadable(photos) {
    const readable = await Promise.all(photos.map(({ file }) => file.slice(0, 1).arrayBuffer().then(() => true, () => false)));
    const lost = photos.filter((_, place) => !readable[place]);
    for (const photo of lost) this.tray.refuse(photo, text("invalid.changed"));
    return lost.length > 0;
  }

  /** Take out what was refused, wait when that helps, and give up on anything else. */
  async #handleRefusal(photos, problem) {
    if (problem.rows?.length) {
      for (const row of problem.rows) {
        const photo = photos[row.index] ?? photos.find(({ file }) => file.name === row.original_filename);
        if (photo) this.tray.refuse(photo, row.message);
      }
    } else if (PHOTO_REFUSED_STATUSES.has(problem.status) && problem.code !== "invalid_option" && photos.length === 1) {
      this.tray.refuse(photos[0], problem.message);
    } else if (isTooEarly(problem)) await this.#wait(problem, 1);
    else throw problem;
  }

  /** What the service answers, asked again while it cannot be reached or has no time. */
  #answer(ask) {
    return answerOf(ask, { signal: this.#stopping.signal, onwait: (problem) => this.#showStatus(problem.message) });
  }

  #wait(problem, tries) {
    this.#showStatus(problem.message);
    return this.#pause(waitSeconds(problem, tries));
  }

  #pause(seconds) {
    return pause(seconds, this.#stopping.signal);
  }

  #begin() {
    this.#stopping = new AbortController();
    this.tray.sending = true;
    find("sending").hidden = false;
    this.tray.draw();
    this.#showStatus(text("submission.sending"));
  }

  #end() {
    const wasFocused = find("sending").contains(document.activeElement);
    this.#stopping = null;
    this.tray.sending = false;
    this.tray.lock([]);
    find("sending").hidden = true;
    this.tray.draw();
    if (wasFocused) requestAnimationFrame(() => find("restore").focus()); // once it is drawn
  }

  #showProgress(photos, share) {
    find("sending-bar").value = share;
    this.#showStatus(share < 1 ? text("submission.share", { count: photos.length, share: percent(share) }) : text("submission.looking"));
  }

  #showStatus(words) {
    setText(find("sending-words"), words);
  }
}

/** Whether the job may have been accepted all the same: no answer came, or one from something between us and the service. */
const isOpen = ({ status, code, retryAfterSeconds }) =>
  status === 0 || code === IN_USE_CODE || (status >= 500 && code === "unknown" && retryAfterSeconds === null);

/** Whether it was refused for now only. A fault that the service knows and for which it names no time does not pass. */
const isTooEarly = (problem) => passes(problem) && (problem.retryAfterSeconds !== null || problem.status === 429);
