// Keeps the active jobs up to date: over a WebSocket each while there are few, else and whenever a socket breaks by
// asking every few seconds.

import * as api from "./api.js";
import { ended } from "./jobs.js";

const MAX_SOCKETS = 4;
const POLL_SECONDS = 2;
const SOCKET_RETRY_SECONDS = 20;
const ENDED_CLOSE = 1000, UNAUTHORIZED_CLOSE = 4401, NOT_FOUND_CLOSE = 4404;
const MAX_SINGLE_REQUESTS = 4;

export class LiveUpdates {
  #sockets = new Map();
  #polled = new Map(); // job id -> when a socket may be tried again, by the page's clock in milliseconds
  #timer = 0;

  constructor(jobs) {
    this.jobs = jobs;
    jobs.addEventListener("changed", ({ detail }) => this.#follow(detail));
    jobs.addEventListener("dropped", ({ detail }) => this.#unfollow(detail));
    addEventListener("online", () => this.#poll());
    document.addEventListener("visibilitychange", () => document.hidden || this.#poll());
  }

  /** Stop following everything, as when the session ended. */
  stop() {
    for (const id of [...this.#sockets.keys(), ...this.#polled.keys()]) this.#unfollow(id);
  }

  /** Follow again all that is at work, as when the session goes on. */
  resume() {
    for (const { job_id: id } of this.jobs.all()) this.#follow(id);
  }

  #follow(id) {
    const job = this.jobs.get(id);
    if (ended(job)) return void this.#polled.delete(id);
    if (this.#sockets.has(id) || this.#polled.has(id)) return;
    if (this.#sockets.size < MAX_SOCKETS) this.#open(id);
    else this.#fallBack(id, 0);
  }

  #open(id) {
    const socket = new WebSocket(api.socketAddress(id));
    this.#sockets.set(id, socket);
    socket.onmessage = ({ data }) => this.jobs.merge(JSON.parse(data));
    socket.onclose = ({ code }) => this.#closed(id, socket, code);
  }

  #closed(id, socket, code) {
    if (this.#sockets.get(id) !== socket) return; // we left it ourselves
    this.#sockets.delete(id);
    if (code === NOT_FOUND_CLOSE) this.jobs.drop(id);
    else if (code === UNAUTHORIZED_CLOSE) api.session.dispatchEvent(new Event("signed-out"));
    else if (code === ENDED_CLOSE) this.#refresh(id);
    else this.#fallBack(id, performance.now() + 1000 * SOCKET_RETRY_SECONDS);
  }

  #fallBack(id, socketRetryAt) {
    this.#polled.set(id, socketRetryAt);
    this.#timer ||= setTimeout(() => this.#poll(), 1000 * POLL_SECONDS);
  }

  #unfollow(id) {
    this.#polled.delete(id);
    const socket = this.#sockets.get(id);
    this.#sockets.delete(id);
    socket?.close();
  }

  async #poll() {
    clearTimeout(this.#timer);
    this.#timer = -1; // this round is under way
    const ids = [...this.#polled.keys()];
    if (ids.length > MAX_SINGLE_REQUESTS) await this.#refreshMany();
    else await Promise.all(ids.map((id) => this.#refresh(id)));
    for (const [id, socketRetryAt] of this.#polled) {
      if (this.#sockets.size >= MAX_SOCKETS || performance.now() < socketRetryAt) continue;
      this.#polled.delete(id);
      this.#open(id);
    }
    this.#timer = this.#polled.size ? setTimeout(() => this.#poll(), 1000 * POLL_SECONDS) : 0;
  }

  /** The whole job: live messages leave out when it will be deleted. */
  async #refresh(id) {
    try {
      this.jobs.merge(await api.job(id));
    } catch (problem) {
      if (problem.status === 404) this.jobs.drop(id);
      else if (!this.#polled.has(id) && this.jobs.get(id)) this.#fallBack(id, Infinity);
    }
  }

  async #refreshMany() {
    try {
      const page = await api.jobs();
      const mine = page.jobs.filter((job) => this.#polled.has(job.job_id));
      mine.filter(({ attempts }) => attempts).forEach((job) => this.jobs.merge(job));
      await Promise.all(mine.filter(({ attempts }) => !attempts).map((job) => this.#refresh(job.job_id))); // too long for a list
    } catch { /* the next round tries again */ }
  }
}
