// The models panel: what each model is for, whether it is here, and installing what is not. It asks the service while it
// is open or something is on its way, and tells `change` with each answer.

import * as api from "./api.js";
import { withCommand } from "./shell_command.js";
import { button, el, find } from "./dom.js";
import { bytes } from "./format.js";
import { installAdvice, learnInstalling, text } from "./text.js";
import { activeDownloads, downloadText, installLabel, isActive, modelState, purposeText, restrictions } from "./models_text.js";

const FAST_POLL_SECONDS = 1;
const OPEN_POLL_SECONDS = 3;

export class Models extends EventTarget {
  #timer = 0;
  #box = find("models");
  #drawn = "";
  #asking = null; // name of the model or set whose licence is asked about
  #problem = "";

  constructor() {
    super();
    this.state = null;
    find("models-open").addEventListener("click", () => this.open());
    find("models-close").addEventListener("click", () => this.#box.close());
    this.#box.addEventListener("close", () => {
      this.#asking = null;
      this.#problem = this.#drawn = "";
    });
    document.addEventListener("visibilitychange", () => document.hidden || this.#isLively() && this.refresh());
  }

  /** Show the panel. */
  open() {
    if (!this.#box.open) this.#box.showModal();
    this.refresh();
  }

  /** Ask the service now, and again while there is something to see. */
  async refresh() {
    clearTimeout(this.#timer);
    try {
      this.state = await api.models();
      learnInstalling(this.state.downloads);
      this.#draw();
      this.dispatchEvent(new Event("change"));
    } catch (problem) {
      if (problem.status === 401) return; // the sign-in box asks; after it the service is configured anew
    }
    if (!this.#isLively()) return;
    const seconds = this.#active().length ? FAST_POLL_SECONDS : OPEN_POLL_SECONDS;
    this.#timer = setTimeout(() => this.refresh(), 1000 * seconds);
  }

  /** Stop asking, as when the session ended. */
  stop() {
    clearTimeout(this.#timer);
    this.#box.close();
  }

  /** Install a model or a set by its name; licences that restrict commercial use are asked about in the panel first. */
  async install(name, accepted = false) {
    if (!accepted && restrictions(this.#members(name)).length) {
      this.#asking = name;
      this.open();
      this.#draw();
      const accept = this.#box.querySelector(".licence [data-act]");
      accept?.scrollIntoView({ block: "center" });
      return accept?.focus();
    }
    this.#asking = null;
    await this.#try(() => api.installModel(name, accepted));
  }

  async #cancel(name) {
    await this.#try(() => api.cancelInstall(name));
  }

  async #try(call) {
    try {
      await call();
      this.#problem = "";
    } catch (problem) {
      this.#problem = problem.code === "download_not_running" ? "" : problem.message;
      if (this.#problem) this.open();
    }
    await this.refresh();
  }

  #active() {
    return activeDownloads(this.state?.models ?? []);
  }

  #isLively() {
    return !document.hidden && (this.#box.open || this.#active().length > 0);
  }

  #members(name) {
    const { models = [] } = this.state ?? {};
    return models.filter((one) => one.name === name || one.sets.includes(name));
  }

  /** Draw anew, with the focus where it was. */
  #draw() {
    if (!this.#box.open || !this.state) return;
    const shown = JSON.stringify([this.state, this.#asking, this.#problem]);
    if (shown === this.#drawn) return;
    this.#drawn = shown;
    const { models, downloads, loading } = this.state;
    const focused = document.activeElement?.dataset?.act;
    find("models-body").replaceChildren(...[
      this.#problem && el("p", { class: "models-problem", role: "alert" }, this.#problem),
      !downloads.allowed && el("p", { class: "muted" }, withCommand(installAdvice())),
      loading && el("p", { class: "muted" }, text("models.loading")),
      this.#group(text("models.photos"), models.filter(({ kind }) => kind !== "faces"), "default"),
      this.#group(text("models.faces"), models.filter(({ kind }) => kind === "faces"), "faces"),
      el("p", { class: "muted" }, text("models.by_hand")),
    ].filter(Boolean));
    if (focused) this.#focusAgain(focused);
  }

  /** The same button, or the one that took its place. */
  #focusAgain(act) {
    const buttons = [...this.#box.querySelectorAll("[data-act]")];
    const name = act.slice(act.indexOf(":"));
    (buttons.find((one) => one.dataset.act === act) ?? buttons.find((one) => one.dataset.act.endsWith(name)))?.focus();
  }

  #group(title, models, set) {
    if (!models.length) return null;
    return el("section", { class: "models-group", "aria-label": title },
      el("div", { class: "models-group-head" }, el("h3", {}, title), this.#setActions(set)),
      this.#asking === set && this.#licence(set),
      el("ul", {}, ...models.map((model) => this.#row(model))));
  }

  /** One click for everything that belongs together, while something of it is missing. */
  #setActions(name) {
    const set = this.state.sets.find((one) => one.name === name);
    const members = this.#members(name);
    if (!set || set.installed || !this.state.downloads.allowed || this.#asking === name) return null;
    if (members.some(({ download }) => isActive(download))) {
      return this.#cancelButton(name, text(name === "faces" ? "models.faces" : "models.photos"));
    }
    const size = bytes(set.bytes);
    return button(text(name === "faces" ? "models.install_faces" : "models.install_photos", { size }), { symbol: "download", class: "primary small",
      "data-act": `install:${name}`, onclick: () => this.install(name) });
  }

  #row(model) {
    const [words, tone] = modelState(model);
    const failed = model.download?.state === "failed" && !model.installed;
    return el("li", { class: "model", data: { file: model.file } },
      el("div", { class: "model-about" },
        el("p", { class: "model-name" }, model.name),
        el("p", {}, text("models.size", { purpose: purposeText(model), size: bytes(model.bytes) })),
        el("p", { class: "muted" }, text("models.licence", { licence: model.licence })),
        failed && el("p", { class: "models-problem", role: "alert" }, model.download.message),
        !failed && model.present && model.note && this.state.downloads.way !== "ask" && el("p", { class: "models-problem" }, withCommand(model.note))),
      el("div", { class: "model-side" },
        el("p", { class: "model-state", data: { tone } }, words),
        isActive(model.download) && !model.installed && el("progress", { max: model.download.of, value: model.download.bytes,
          "aria-label": text("models.named", { action: downloadText(model.download), name: model.name }) }),
        this.#action(model)),
      this.#asking === model.name && this.#licence(model.name));
  }

  #action(model) {
    const { name } = model;
    if (!this.state.downloads.allowed || !model.can_install || model.installed || this.#asking === name) return null;
    if (isActive(model.download)) {
      return this.#cancelButton(name, name);
    }
    if (model.download?.state === "completed") return null;
    const label = installLabel(model);
    return button(label, { class: "small", "data-act": `install:${name}`, "aria-label": text("models.named", { action: label, name }),
      onclick: () => this.install(name) });
  }

  #cancelButton(name, words) {
    const action = text("models.cancel");
    return button(action, { class: "small", "data-act": `cancel:${name}`, "aria-label": text("models.named", { action, name: words }),
      onclick: () => this.#cancel(name) });
  }

  /** What one agrees to by installing. */
  #licence(name) {
    const decline = () => {
      this.#asking = null;
      this.#draw();
    };
    return el("div", { class: "licence", role: "group", "aria-label": text("licence.title") },
      el("p", {}, text("licence.restricted")),
      el("ul", {}, ...restrictions(this.#members(name)).map((licence) => el("li", {}, licence))),
      el("div", { class: "licence-actions" },
        button(text("licence.accept"), { class: "primary small", "data-act": `install:${name}`, onclick: () => this.install(name, true) }),
        button(text("licence.decline"), { class: "small", onclick: decline })));
  }
}
