// All jobs on the page, newest first: each with its head (state, progress, actions, when it will be deleted) and its
// cards. Changes are collected and drawn once per frame; requests are for `act`.

import { archiveAddress, serverNow } from "./api.js";
import { Card } from "./card.js";
import { button, el, find, icon, oncePerFrame, setText } from "./dom.js";
import { RemainingTime } from "./estimate.js";
import { ended } from "./jobs.js";
import { duration, factor, moment, percent, photos } from "./format.js";
import { stageText, statusText } from "./status_text.js";
import { text, textOf } from "./text.js";

const TICK_MILLISECONDS = 1000;

export class Gallery {
  #views = new Map();
  #changed = new Set();
  #pictures = new Map(); // attempt id -> small picture from the tray

  /** `act` has open, retry, remove (by job id). */
  constructor(jobs, act) {
    Object.assign(this, { jobs, act, remainingTime: new RemainingTime() });
    this.draw = oncePerFrame(() => this.#draw());
    jobs.addEventListener("changed", ({ detail }) => this.#markChanged(detail));
    jobs.addEventListener("dropped", ({ detail }) => this.#markChanged(detail));
    setInterval(() => this.#tick(), TICK_MILLISECONDS);
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
    const any = this.#views.size > 0;
    find("gallery").hidden = !any;
    document.body.classList.toggle("has-jobs", any);
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

class JobView {
  #cards = new Map();

  constructor(job, pictures, gallery) {
    this.gallery = gallery;
    const many = job.attempts.length > 1;
    this.title = el("h3", { class: "job-title" });
    this.state = el("span", { class: "job-state" });
    this.time = el("span", { class: "job-time" });
    this.bar = el("progress", { max: 1, value: 0, "aria-label": text("job.progress") });
    this.actions = el("div", { class: "job-actions" });
    this.list = el("ul", { class: "cards" });
    for (const attempt of job.attempts) {
      const card = new Card(job, attempt, pictures.get(attempt.id), gallery.act);
      pictures.delete(attempt.id);
      this.#cards.set(attempt.id, card);
      this.list.append(card.element);
    }
    this.element = el("section", { class: "job", data: { many } }, el("header", { class: "job-head" },
      el("div", { class: "job-words" }, this.title, this.state, this.time), this.actions, this.bar), this.list);
  }

  update(job) {
    for (const attempt of job.attempts) this.#cards.get(attempt.id)?.update(attempt);
    const over = ended(job);
    this.element.dataset.status = job.status;
    this.bar.hidden = over;
    this.bar.value = job.progress;
    setText(this.title, titleOf(job));
    if (this.shown !== job.status) this.actions.replaceChildren(...this.#buttons(job, over));
    this.shown = job.status;
    this.drawTime(job);
  }

  drawTime(job) {
    if (!ended(job)) {
      const left = this.gallery.remainingTime.words(job, performance.now() / 1000);
      const ahead = aheadOf(job) > 0; // then both are one sentence: "26 photos ahead, about 7 s"
      setText(this.state, ahead && left ? `${stateOf(job)}, ${left}` : stateOf(job));
      setText(this.time, ahead ? "" : left);
      return;
    }
    setText(this.state, stateOf(job));
    if (job.expires_at) {
      const left = job.expires_at - serverNow();
      setText(this.time, left > 60 ? text("job.expires", { time: duration(left), moment: moment(job.expires_at) }) : text("job.expires_soon"));
    }
  }

  remove() {
    for (const card of this.#cards.values()) card.remove();
    this.element.remove();
  }

  #buttons(job, over) {
    const many = job.attempts.length > 1;
    const about = many ? photos(job.attempts.length) : job.attempts[0]?.original_filename;
    const made = [];
    if (over && many && job.status === "completed") made.push(el("a", {
      class: "button", href: archiveAddress(job.job_id), download: "", "aria-label": text("job.download_label", { about }),
    }, icon("download"), el("span", {}, text("job.download"))));
    made.push(button(text(over ? "job.delete" : "job.cancel"), { symbol: over ? "bin" : "close", data: { about },
      "aria-label": text(over ? "job.delete_label" : "job.cancel_label", { about }),
      onclick: (event) => this.gallery.act.remove(job.job_id, event.currentTarget) }));
    return made;
  }
}

/** Photos that are restored before those of a waiting job. */
const aheadOf = ({ status, queue_position: position }) => (status === "queued" && position > 0 ? position - 1 : 0);

function titleOf(job) {
  const { options, attempts } = job;
  const made = options?.backend === "siliconflow" ? "SiliconFlow" : textOf("quality", options?.quality) ?? text("job.any_quality");
  const words = options?.model && options.backend === "local" ? options.model : made;
  const own = attempts.filter(({ own_options: found }) => Object.keys(found ?? {}).some((name) => name !== "rotate")).length;
  return [attempts.length > 1 && photos(attempts.length), words, factor(options?.scale ?? 4),
    own > 0 && text("job.own_settings", { count: own })].filter(Boolean).join(" · ");
}

function stateOf(job) {
  const done = job.attempts.filter(ended).length;
  const failed = job.attempts.filter(({ status }) => status === "failed").length;
  if (job.status === "queued" && job.queue_position > 0) {
    return aheadOf(job) ? text("job.ahead", { count: aheadOf(job) }) : text("job.next");
  }
  if (job.status === "processing") {
    const count = job.attempts.length > 1 ? `${text("job.done", { done, count: job.attempts.length })} · ` : "";
    if (job.stage === "waiting") return count ? `${count}${stageText(job.stage)}` : text("job.next");
    return `${count}${stageText(job.stage)} · ${percent(job.progress)}`;
  }
  const words = statusText(job.status);
  return job.status === "completed" && failed ? `${words}, ${text("job.failed", { count: failed })}` : words;
}
