// The settings form: filled from the service's own description, remembered in this browser, read as options of a
// restoration.

import { el, find, setText } from "./dom.js";
import { factor, percent } from "./format.js";
import { ModelChoice } from "./model_choice.js";
import { REPAIR_OFF, fitValues, isLossy, optionsOf, readValues, valuesOf, writeValues } from "./settings_values.js";
import { backendText } from "./status_text.js";
import { text, textOf } from "./text.js";

const STORAGE_KEY = "neural-image-restore.settings";

export class Settings extends EventTarget {
  #wanted = storedValues(); // also what is not offered just now: a model may come back

  /** `form` is the element in the page; nothing works before `applyConfig`. */
  constructor(form) {
    super();
    this.form = form;
    this.config = null;
    this.modelChoice = new ModelChoice(form);
    this.remembers = true; // false while the form is lent to a single photo
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", ({ target }) => this.#changed(target));
    find("settings-reset").addEventListener("click", () => this.#reset());
  }

  /** Take over what the service offers, then what was chosen at the last visit. */
  applyConfig(config) {
    this.config = config;
    const { options } = config;
    this.#choices("output_format", options.output_format.choices, (value) => textOf("format", value));
    this.#choices("metadata", options.metadata.choices, (value) => textOf("metadata", value));
    this.#choices("partial", options.partial?.choices ?? ["refuse"], (value) => textOf("partial", value));
    this.#repairs(config.repair?.available ? options.repair?.choices ?? [] : []);
    this.#choices("pages", options.pages?.choices ?? ["first"], (value) => textOf("pages", value));
    this.#models(config.models.filter((model) => model.installed).map((model) => model.name));
    this.#faceModels(options.face_model?.choices ?? []);
    for (const name of ["scale", "output_quality"]) {
      const field = this.form.elements[name];
      Object.assign(field, { min: options[name].minimum, max: options[name].maximum });
      field.value = options[name].default;
    }
    for (const name of ["face_strength", "color_strength"]) {
      this.form.elements[name].value = 100 * options[name].default;
    }
    this.form.elements.quality.value = config.default_quality ?? "fast";
    this.#backends(config.backends);
    this.#showSubstitutes(config.qualities ?? []);
    this.#restoreWanted();
    this.#changed(null, false);
  }

  /** What stands in the form, by the names of its fields. */
  values() {
    return readValues(this.form);
  }

  /** The options as the service names them; see `optionsOf`. */
  options() {
    return optionsOf(this.values());
  }

  /** What the service does where nothing is said. */
  get defaults() {
    return valuesOf(Object.fromEntries(Object.entries(this.config.options).map(([name, option]) => [name, option.default])));
  }

  /** Values as the form can take them now, and those that it does not offer; see `fitValues`. */
  fit(values) {
    return fitValues(this.form, values);
  }

  /** Put values into the form; those that it does not offer are told by the event `gone`. */
  apply(values) {
    const { values: fitted, gone } = this.fit(values);
    writeValues(this.form, fitted);
    this.#tell(gone);
    this.#changed();
  }

  /** Choose a quality, as a press on it does. */
  choose(quality) {
    const { elements } = this.form;
    elements.quality.value = quality;
    this.#changed([...elements.quality].find((radio) => radio.checked));
  }

  get scale() {
    return Number(this.form.elements.scale.value);
  }

  get quality() {
    return this.form.elements.quality.value;
  }

  get backend() {
    return this.form.elements.backend?.value || "local";
  }

  /** Show beside each quality how long the photos will take; `words` by quality. */
  showTimes(words) {
    for (const [quality, time] of Object.entries(words)) setText(find(`time-${quality}`), time);
  }

  #choices(name, values, words) {
    this.form.elements[name].replaceChildren(
      ...values.map((value) => el("option", { value }, words(value) ?? value)));
  }

  /** Where this machine cannot repair there is nothing to choose, and what was wished is told as gone. */
  #repairs(modes) {
    find("repair-row").dataset.offered = String(modes.length > 1);
    find("repair-choices").replaceChildren(...(modes.length ? modes : [REPAIR_OFF]).map((value) => el("label", { class: "repair-choice" },
      el("input", { type: "radio", name: "repair", value, checked: value === REPAIR_OFF }), el("span", {}, textOf("repair", value) ?? value))));
  }

  #models(names) {
    this.form.elements.model.replaceChildren(el("option", { value: "" }, text("settings.model_by_quality")),
      ...names.map((name) => el("option", { value: name }, name)));
  }

  /** A quality whose network is not installed says what runs in its place, so that nobody waits for finer hair. */
  #showSubstitutes(rows) {
    for (const { quality, model, stands_in_for: missing } of rows) {
      const note = find(`note-${quality}`);
      note.dataset.usual ??= note.textContent;
      const substitute = quality === "best" ? "settings.substitute_best" : "settings.substitute";
      setText(note, missing ? text(substitute, { model, missing }) : note.dataset.usual);
    }
  }

  get #facesMissing() {
    return Boolean(this.config.faces) && this.config.faces.model === null;
  }

  #faceModels(names) {
    find("face-model-row").hidden = names.length === 0 || this.#facesMissing;
    this.form.elements.face_model.replaceChildren(el("option", { value: "" }, text("settings.model_by_service")),
      ...names.map((name) => el("option", { value: name }, name)));
  }

  /** Where it runs is a question only when there is more than one answer. */
  #backends(rows) {
    const usable = rows.filter((row) => row.available);
    find("backend-row").hidden = usable.length < 2;
    find("backends").replaceChildren(...usable.map((row) => el("label", { class: "choice" },
      el("input", { type: "radio", name: "backend", value: row.name, checked: row.name === "local" }),
      el("span", { class: "choice-name" }, backendText(row.name)),
      el("span", { class: "choice-note" }, [row.leaves_machine, row.price_note].filter(Boolean).join(" ")
        || text(row.name === "local" ? "settings.stays" : "settings.leaves")),
    )));
  }

  #changed(pressed, remember = true) {
    const { elements } = this.form;
    const local = this.backend === "local";
    this.modelChoice.settle(pressed, local, this.config.default_quality ?? "fast");
    const faces = elements.face_enhance.checked;
    setText(find("scale-value"), factor(elements.scale.value));
    setText(find("face-strength-value"), percent(elements.face_strength.value / 100));
    setText(find("color-strength-value"), percent(elements.color_strength.value / 100));
    setText(find("output-quality-value"), elements.output_quality.value);
    elements.scale.setAttribute("aria-valuetext", text("settings.times_larger", { number: Number(elements.scale.value) }));
    elements.face_strength.setAttribute("aria-valuetext", percent(elements.face_strength.value / 100));
    elements.color_strength.setAttribute("aria-valuetext", percent(elements.color_strength.value / 100));
    find("repair-row").hidden = !local || find("repair-row").dataset.offered !== "true";
    find("color-correction-row").hidden = !local;
    find("color-strength-row").hidden = !elements.color_correction.checked;
    find("faces-missing").hidden = !faces || !this.#facesMissing;
    find("face-strength-row").hidden = !faces || this.#facesMissing;
    find("output-quality-row").hidden = !isLossy(elements.output_format.value);
    find("prompt-row").hidden = local;
    find("local-only").hidden = !local;
    if (remember) this.#save();
    this.dispatchEvent(new Event("change"));
  }

  #save() {
    const { model = "", repair = REPAIR_OFF } = this.#wanted;
    this.#wanted = this.values();
    if (!this.config?.models.length) Object.assign(this.#wanted, { model, repair }); // nobody could choose one yet
    if (!this.remembers) return;
    try {
      localStorage.setItem(STORAGE_KEY, JSON.stringify(this.#wanted));
    } catch { /* storage is off: the settings last as long as the page */ }
  }

  /** What was chosen last, as far as the form still offers it. Until the service has loaded it does not know what it has. */
  #restoreWanted() {
    const { values, gone } = this.fit(this.#wanted);
    writeValues(this.form, values);
    if (this.config.models.length) this.#tell(gone);
  }

  #tell(gone) {
    if (gone.length) this.dispatchEvent(new CustomEvent("gone", { detail: gone }));
  }

  /** Take what stands in the form for what is wanted, whatever was wanted before. */
  acceptGone() {
    this.#save();
  }

  /** Nothing that a user wrote stays in the browser after signing out; what was chosen may. */
  forgetTexts() {
    this.form.elements.prompt.value = "";
    this.#save();
  }

  #reset() {
    try {
      if (this.remembers) localStorage.removeItem(STORAGE_KEY);
    } catch { /* nothing was kept */ }
    this.#wanted = {};
    this.form.reset();
    this.applyConfig(this.config);
  }
}

/** The values of the last visit. */
function storedValues() {
  try {
    return Object(JSON.parse(localStorage.getItem(STORAGE_KEY)));
  } catch {
    return {}; // never kept, or not ours
  }
}
