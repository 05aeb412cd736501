// The models panel: what each model is for, whether it is here, and installing what is not. It asks the service while it
// is open or something is on its way, and tells `change` with each answer.

import * as api from "./api.js";
import { withCommand } from "./shell_command.js";
import { button, el, find } from "./dom.js";
import { bytes } from "./format.js";
import { activeDownloads, downloadText, installLabel, isActive, modelState, purposeText, restrictions } from "./models_text.js";

const FAST_POLL_SECONDS = 1;
const OPEN_POLL_SECONDS = 3;
const GROUPS = [["upscaling", "Photos and drawings"], ["faces", "Faces"]];
const SET_WORDS = { default: "Install all for photos", faces: "Install all for faces" };

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
      !downloads.allowed && el("p", { class: "muted" }, withCommand(downloads.reason)),
      loading && el("p", { class: "muted" }, "The service is still loading."),
      ...GROUPS.map(([kind, title]) => this.#group(title, models.filter((one) => (one.kind === "faces") === (kind === "faces")),
        kind === "faces" ? "faces" : "default")),
      el("p", { class: "muted" }, "Files that are put into the weights folder by hand appear here by themselves."),
    ].filter(Boolean));
    if (focused) this.#focusAgain(focused);
  }

  /** The same button, or the one that took its place. */
  #focusAgain(act) {
    const buttons = [...this.#box.querySelectorAll("[data-act]")];
    const name = act.slice(act.indexOf(" "));
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
      return button("Cancel", { class: "small", "data-act": `cancel ${name}`, "aria-label": `Cancel: ${SET_WORDS[name]}`,
        onclick: () => this.#cancel(name) });
    }
    return button(`${SET_WORDS[name]} (${bytes(set.bytes)})`, { symbol: "download", class: "primary small",
      "data-act": `install ${name}`, onclick: () => this.install(name) });
  }

  #row(model) {
    const [words, tone] = modelState(model);
    const failed = model.download?.state === "failed" && !model.installed;
    return el("li", { class: "model", data: { file: model.file } },
      el("div", { class: "model-about" },
        el("p", { class: "model-name" }, model.name),
        el("p", {}, `${purposeText(model)} · ${bytes(model.bytes)}`),
        el("p", { class: "muted" }, `Licence: ${model.licence}`),
        failed && el("p", { class: "models-problem", role: "alert" }, model.download.message),
        !failed && model.present && model.note && el("p", { class: "models-problem" }, withCommand(model.note))),
      el("div", { class: "model-side" },
        el("p", { class: "model-state", data: { tone } }, words),
        isActive(model.download) && !model.installed && el("progress", { max: model.download.of, value: model.download.bytes,
          "aria-label": `${model.name}: ${downloadText(model.download)}` }),
        this.#action(model)),
      this.#asking === model.name && this.#licence(model.name));
  }

  #action(model) {
    const { name } = model;
    if (!this.state.downloads.allowed || !model.can_install || model.installed || this.#asking === name) return null;
    if (isActive(model.download)) {
      return button("Cancel", { class: "small", "data-act": `cancel ${name}`, "aria-label": `Cancel: ${name}`,
        onclick: () => this.#cancel(name) });
    }
    if (model.download?.state === "completed") return null;
    const label = installLabel(model);
    return button(label, { class: "small", "data-act": `install ${name}`, "aria-label": `${label}: ${name}`,
      onclick: () => this.install(name) });
  }

  /** What one agrees to by installing. */
  #licence(name) {
    const decline = () => {
      this.#asking = null;
      this.#draw();
    };
    return el("div", { class: "licence", role: "group", "aria-label": "Licence" },
      el("p", {}, "These files are not free for commercial use:"),
      el("ul", {}, ...restrictions(this.#members(name)).map((licence) => el("li", {}, licence))),
      el("div", { class: "licence-actions" },
        button("Accept and install", { class: "primary small", "data-act": `install ${name}`, onclick: () => this.install(name, true) }),
        button("Not now", { class: "small", onclick: decline })));
  }
}

/** Say in a live region what ended, once each. */
export function endedSentence(before, now) {
  const ended = (now?.models ?? []).filter(({ file, download }) => {
    const earlier = before?.models.find((one) => one.file === file)?.download;
    return isActive(earlier) && !isActive(download);
  });
  return ended.map(({ name, download, installed }) => {
    const isHere = installed || download?.state === "completed";
    return isHere ? `${name} is installed.` : `${name} was not installed.`;
  }).join(" ");
}
