// One job on the page: its head (state, progress, actions with their answers, when it will be deleted) and its cards.

import { archiveAddress, serverNow } from "./api.js";
import { answerLine } from "./answers.js";
import { Card } from "./card.js";
import { button, el, find, icon, setAttribute, setText } from "./dom.js";
import { countdown } from "./expiry.js";
import { moment } from "./format.js";
import { aboutOf, aheadOf, missingText, stateOf, titleOf } from "./job_text.js";
import { ended } from "./jobs.js";
import { text } from "./text.js";

export class JobView {
  #cards = new Map();

  /** `gallery` has act, jobs, expiry and remainingTime; `pictures` the small pictures by attempt. */
  constructor(job, pictures, gallery) {
    this.gallery = gallery;
    this.title = el("h3", { class: "job-title" });
    this.state = el("span", { class: "job-state" });
    this.time = el("span", { class: "job-time" });
    this.left = el("span", { class: "job-left" });
    this.missing = el("p", { class: "job-missing" });
    this.bar = el("progress", { max: 1, value: 0, "aria-label": text("job.progress") });
    this.actions = el("div", { class: "job-actions" });
    this.line = answerLine();
    this.list = el("ul", { class: "cards" });
    for (const attempt of job.attempts) {
      const card = new Card(job, attempt, pictures.get(attempt.id), gallery.act);
      pictures.delete(attempt.id);
      this.#cards.set(attempt.id, card);
      this.list.append(card.element);
    }
    const words = el("div", { class: "job-words" }, this.title, this.state, el("span", { class: "job-until" }, this.time, " ", this.left));
    this.element = el("section", { class: "job", data: { many: job.attempts.length > 1 } },
      el("header", { class: "job-head" }, words, this.actions, this.line, this.missing, this.bar), this.list);
  }

  update(job) {
    this.#dropCards(job);
    for (const attempt of job.attempts) this.#cards.get(attempt.id)?.update(attempt);
    const over = ended(job), rest = over ? this.gallery.jobs.rest(job.job_id) : [];
    this.element.dataset.status = job.gone ? "gone" : job.status;
    this.bar.hidden = over;
    this.bar.value = job.progress;
    setText(this.title, titleOf(job));
    setText(this.missing, job.attempts.length > 1 && !job.gone ? missingText(rest) : "");
    this.#drawButtons(job, over, rest);
    this.drawTime(job);
  }

  drawTime(job) {
    const left = ended(job) ? "" : this.gallery.remainingTime.words(job, performance.now() / 1000);
    const ahead = aheadOf(job) > 0; // then both are one sentence: "26 photos ahead, about 7 s"
    setText(this.state, ahead && left ? `${stateOf(job)}, ${left}` : stateOf(job));
    if (!ended(job)) {
      setText(this.time, ahead ? "" : left);
      return setText(this.left, "");
    }
    const seconds = job.gone || !job.expires_at ? null : job.expires_at - serverNow();
    setText(this.time, untilText(job, seconds));
    setText(this.left, seconds > 0 ? countdown(seconds) : "");
    setAttribute(this.left, "data-soon", this.gallery.expiry.isSoon(job));
    this.gallery.expiry.look(job, aboutOf(job));
  }

  remove() {
    const held = this.element.contains(document.activeElement);
    const next = this.element.nextElementSibling ?? this.element.previousElementSibling;
    for (const card of this.#cards.values()) card.remove();
    this.element.remove();
    if (held) (next?.querySelector("button:enabled,a") ?? find("choose-files")).focus();
  }

  /** Photos that were taken out of a batch; the focus goes on to a neighbour. */
  #dropCards(job) {
    const here = new Set(job.attempts.map(({ id }) => id));
    for (const [id, card] of this.#cards) {
      if (here.has(id)) continue;
      const next = card.element.nextElementSibling ?? card.element.previousElementSibling;
      const held = card.element.contains(document.activeElement);
      card.remove();
      this.#cards.delete(id);
      if (held) next?.querySelector("button:enabled,a")?.focus();
    }
  }

  #drawButtons(job, over, rest) {
    const signature = [job.status, job.gone, job.kept, over && job.attempts.length, rest.length].join(" ");
    if (signature === this.shown) return;
    this.shown = signature;
    const held = this.actions.contains(document.activeElement) && document.activeElement.dataset.act;
    this.actions.replaceChildren(...this.#buttons(job, over, rest.length));
    if (held) (this.actions.querySelector(`[data-act="${held}"]`) ?? this.actions.lastElementChild)?.focus();
  }

  #buttons(job, over, missing) {
    const { job_id: id, attempts } = job, { act } = this.gallery, about = aboutOf(job);
    const has = attempts.some(({ result }) => result), many = attempts.length > 1;
    if (job.gone) return [this.#button("dismiss", "close", about, () => this.gallery.jobs.drop(id))];
    if (!over) return [this.#button("cancel", "close", about, (pressed) => act.remove(pressed, id))];
    return [
      many && has && el("a", { class: "button", href: archiveAddress(id), download: "", data: { act: "download" },
        "aria-label": text("job.download_label", { about }) }, icon("download"), el("span", {}, text("job.download"))),
      many && missing > 0 && this.#button("rest", "again", about, (pressed) => act.retryRest(pressed, id)),
      job.kept && this.#button("let_go", "keep", about, (pressed) => act.keep(pressed, id, false)),
      !job.kept && has && act.mayKeep() && this.#button("keep", "keep", about, (pressed) => act.keep(pressed, id, true)),
      this.#button("delete", "bin", about, (pressed) => act.remove(pressed, id)),
    ].filter(Boolean);
  }

  /** Its words and label are the texts of its name. Keeping and its undo are one place for the focus. */
  #button(name, symbol, about, onpress) {
    const [words, label] = BUTTON_TEXTS[name];
    return button(text(words), { symbol, data: { about, act: name === "let_go" ? "keep" : name }, "aria-label": text(label, { about }),
      onclick: ({ currentTarget }) => onpress({ button: currentTarget, line: this.line }) });
  }
}

/** Until when a job that ended can be had; `seconds` are left, null for one that has no end or is gone. */
function untilText(job, seconds) {
  if (job.gone) return text("job.gone_note");
  if (job.kept) return text("job.kept");
  if (seconds === null) return "";
  return seconds > 0 ? text("job.expires", { moment: moment(job.expires_at) }) : text("job.expires_soon");
}

const BUTTON_TEXTS = {
  cancel: ["job.cancel", "job.cancel_label"],
  delete: ["job.delete", "job.delete_label"],
  dismiss: ["job.dismiss", "job.dismiss_label"],
  keep: ["job.keep", "job.keep_label"],
  let_go: ["job.let_go", "job.let_go_label"],
  rest: ["job.rest", "job.rest_label"],
};
