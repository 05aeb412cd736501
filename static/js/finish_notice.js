// Tells who looks elsewhere: how far the work is in the title of the tab, and, if that is wanted, a notification when
// all of it has ended. The browser's own question comes only after a press on our button, and we ask once.

import { find } from "./dom.js";
import { ended } from "./jobs.js";
import { percent } from "./format.js";
import { text } from "./text.js";

const STORAGE_KEY = "notifications";
const WORTH_SECONDS = 15; // nobody leaves for less

/** Watch the jobs of the page. */
export class FinishNotice {
  #running = new Set();
  #name = document.title;

  constructor(jobs) {
    this.jobs = jobs;
    for (const what of ["changed", "dropped"]) jobs.addEventListener(what, () => this.#look());
    document.addEventListener("visibilitychange", () => document.hidden || this.#look());
    find("notify-yes").addEventListener("click", () => this.#answer(true));
    find("notify-no").addEventListener("click", () => this.#answer(false));
  }

  #look() {
    const active = this.jobs.all().filter((job) => !ended(job));
    const over = [...this.#running].filter((id) => !active.some((job) => job.job_id === id));
    this.#running = new Set(active.map((job) => job.job_id));
    if (active.length) this.#done = null;
    else if (over.length) this.#tell(over.map((id) => this.jobs.get(id)).filter(Boolean));
    this.#drawTitle(active);
    const long = active.some((job) => job.seconds_left > WORTH_SECONDS);
    find("notify").hidden = !(long || (active.length && !find("notify").hidden)) || !this.#mayAsk();
  }

  #done = null;

  /** All that ran has ended. */
  #tell(jobs) {
    if (!document.hidden || !jobs.length) return;
    const attempts = jobs.flatMap((job) => job.attempts ?? []);
    const good = attempts.filter(({ status }) => status === "completed").length;
    this.#done = good ? text("notify.restored", { count: good }) : text("notify.nothing");
    if (!("Notification" in window) || Notification.permission !== "granted" || !wanted()) return;
    const failed = attempts.filter(({ status }) => status === "failed").length;
    const notice = new Notification(this.#done, { body: failed ? text("notify.failed", { count: failed }) : "", icon: "icon.svg", tag: "restored" });
    notice.onclick = () => window.focus();
  }

  #drawTitle(active) {
    if (!document.hidden) this.#done = null;
    const attempts = active.reduce((sum, job) => sum + (job.attempts?.length || 1), 0);
    const share = active.reduce((sum, job) => sum + (job.progress ?? 0) * (job.attempts?.length || 1), 0) / attempts;
    const words = active.length ? percent(share) : this.#done;
    const title = words ? `${words} · ${this.#name}` : this.#name;
    if (document.title !== title) document.title = title;
  }

  #mayAsk() {
    return window.isSecureContext && "Notification" in window && Notification.permission === "default" && stored() === null;
  }

  async #answer(yes) {
    store(yes ? "on" : "off");
    find("notify").hidden = true;
    find("gallery-title").focus({ preventScroll: true });
    if (yes) await Notification.requestPermission();
  }
}

const wanted = () => stored() === "on";

function stored() {
  try {
    return localStorage.getItem(STORAGE_KEY);
  } catch {
    return "off"; // without a memory we would ask again and again
  }
}

function store(value) {
  try {
    localStorage.setItem(STORAGE_KEY, value);
  } catch { /* it is asked again the next time */ }
}
