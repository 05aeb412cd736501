// The end of a job's time with the page open: a countdown, one spoken warning, and after it the truth, asked of the
// service, whose sweep may come a little later than the time it names.

import * as api from "./api.js";
import { announce } from "./dom.js";
import { duration } from "./format.js";
import { text } from "./text.js";

const ASK_SECONDS = 2, MOST_ASK_SECONDS = 60;
const WARN_SECONDS = 300;
const GONE_STATUS = 404;

/** Words for the seconds that are left: hours or minutes, and seconds at the end. */
export const countdown = (seconds) => text("expiry.in", { time: duration(seconds) });

export class Expiry {
  #asked = new Map(); // job id -> when to ask again, by the page's clock in milliseconds, and the pause after that
  #warned = new Set();

  constructor(jobs) {
    this.jobs = jobs;
  }

  /** Look at a job that ended, every second while the page is seen; `about` is what it is called. */
  look(job, about) {
    if (!job.expires_at || job.gone) return;
    const left = job.expires_at - api.serverNow();
    if (left > 0) this.#warn(job, about, left);
    else this.#ask(job.job_id);
  }

  /** Whether little time is left. */
  isSoon(job) {
    return Boolean(job.expires_at) && !job.gone && job.expires_at - api.serverNow() < WARN_SECONDS;
  }

  /** Once a job, and not for what was short from its start: it is said while somebody can still keep it. */
  #warn(job, about, left) {
    if (left > WARN_SECONDS) return void this.#warned.delete(job.job_id);
    if (this.#warned.has(job.job_id)) return;
    this.#warned.add(job.job_id);
    announce(text("expiry.warning", { about, time: duration(left) }));
  }

  async #ask(id) {
    const { at, pause } = this.#asked.get(id) ?? { at: 0, pause: ASK_SECONDS };
    if (performance.now() < at) return;
    this.#asked.set(id, { at: performance.now() + 1000 * pause, pause: Math.min(MOST_ASK_SECONDS, 2 * pause) });
    try {
      this.jobs.merge(await api.job(id));
    } catch (problem) {
      if (problem.status === GONE_STATUS) this.jobs.lose(id);
    }
  }
}
