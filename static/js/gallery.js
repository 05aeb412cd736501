// All jobs on the page, newest first. Changes are collected and drawn once per frame; time goes by once a second.

import { find, oncePerFrame } from "./dom.js";
import { RemainingTime } from "./estimate.js";
import { Expiry } from "./expiry.js";
import { JobView } from "./job_view.js";
import { ended } from "./jobs.js";

const TICK_MILLISECONDS = 1000;

export class Gallery {
  #views = new Map();
  #changed = new Set();
  #pictures = new Map(); // attempt id -> small picture from the tray

  /** `act` has open, retry, retryRest, remove, removeOne, keep and mayKeep. */
  constructor(jobs, act) {
    Object.assign(this, { jobs, act, remainingTime: new RemainingTime(), expiry: new Expiry(jobs) });
    this.draw = oncePerFrame(() => this.#draw());
    jobs.addEventListener("changed", ({ detail }) => this.#markChanged(detail));
    jobs.addEventListener("dropped", ({ detail }) => this.#markChanged(detail));
    setInterval(() => this.#tick(), TICK_MILLISECONDS);
    document.addEventListener("visibilitychange", () => this.#tick());
    this.draw();
  }

  /** Small pictures that cards of this job may use until the service has better ones. */
  addThumbnails(pictures) {
    for (const [id, picture] of pictures) this.#pictures.set(id, picture);
  }

  #markChanged(id) {
    this.#changed.add(id);
    this.draw();
  }

  #draw() {
    for (const id of this.#changed) {
      const job = this.jobs.get(id);
      if (job) this.#view(job).update(job);
      else this.#remove(id);
    }
    this.#changed.clear();
    this.#drawBatches();
    const any = this.#views.size > 0 || !find("older").hidden; // those are reached from here
    find("gallery").hidden = !any;
    find("everything").hidden = this.jobs.completed().length < 2;
    document.body.classList.toggle("has-jobs", any);
  }

  /** What is missing of a batch changes with the jobs that restore it again. */
  #drawBatches() {
    for (const [id, view] of this.#views) {
      const job = this.jobs.get(id);
      if (job?.attempts.length > 1 && ended(job)) view.update(job);
    }
  }

  #view(job) {
    const known = this.#views.get(job.job_id);
    if (known) return known;
    const view = new JobView(job, this.#pictures, this);
    this.#views.set(job.job_id, view);
    const next = this.jobs.all().find((other) => other.created_at < job.created_at && this.#views.has(other.job_id));
    find("jobs").insertBefore(view.element, next ? this.#views.get(next.job_id).element : null);
    return view;
  }

  #remove(id) {
    this.#views.get(id)?.remove();
    this.#views.delete(id);
  }

  /** Time goes by: what is left, and until when things are kept. */
  #tick() {
    if (document.hidden) return;
    for (const [id, view] of this.#views) {
      const job = this.jobs.get(id);
      if (job) view.drawTime(job);
    }
  }
}
