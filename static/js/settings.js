// The settings form: filled from the service's own description, remembered in this browser, read as options of a
// restoration.

import { el, find, setText } from "./dom.js";
import { factor, percent } from "./format.js";
import { ModelChoice } from "./model_choice.js";
import { backendText } from "./status_text.js";
import { text, textOf } from "./text.js";

const STORAGE_KEY = "neural-image-restore.settings";
const LOSSY_FORMATS = new Set(["auto", "jpg", "webp", "avif"]);
const LOCAL_OPTIONS = ["model", "denoise", "face_model", "color_correction", "color_strength", "pages"];
const PAGES_FORMATS = new Set(["auto", "tiff"]);

export class Settings extends EventTarget {
  /** `form` is the element in the page; nothing works before `applyConfig`. */
  constructor(form) {
    super();
    this.form = form;
    this.config = null;
    this.modelChoice = new ModelChoice(form);
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
    this.#restoreSaved();
    this.#changed(null, false);
  }

  /** The options as the service names them; those at their defaults are left out where that means the same. */
  options() {
    const { elements } = this.form;
    const found = {
      backend: this.backend, quality: elements.quality.value, scale: elements.scale.value,
      face_enhance: String(elements.face_enhance.checked), face_strength: String(elements.face_strength.value / 100),
      output_format: elements.output_format.value, metadata: elements.metadata.value,
      model: elements.model.value, face_model: elements.face_model.value, denoise: elements.denoise.value,
    };
    if (elements.color_correction.checked) {
      Object.assign(found, { color_correction: "auto", color_strength: String(elements.color_strength.value / 100) });
    }
    if (LOSSY_FORMATS.has(found.output_format)) found.output_quality = elements.output_quality.value;
    if (elements.pages.value !== "first" && PAGES_FORMATS.has(found.output_format)) found.pages = elements.pages.value;
    if (elements.partial.value !== "refuse") found.partial = elements.partial.value;
    if (this.backend !== "local") {
      found.prompt = elements.prompt.value.trim();
      for (const name of LOCAL_OPTIONS) delete found[name];
    }
    return Object.fromEntries(Object.entries(found).filter(([, value]) => value !== ""));
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
    find("color-correction-row").hidden = !local;
    find("color-strength-row").hidden = !elements.color_correction.checked;
    find("faces-missing").hidden = !faces || !this.#facesMissing;
    find("face-strength-row").hidden = !faces || this.#facesMissing;
    find("output-quality-row").hidden = !LOSSY_FORMATS.has(elements.output_format.value);
    find("prompt-row").hidden = local;
    find("local-only").hidden = !local;
    if (remember) this.#save();
    this.dispatchEvent(new Event("change"));
  }

  #save() {
    const kept = {};
    for (const field of this.form.elements) {
      if (!field.name || (field.type === "radio" && !field.checked)) continue;
      kept[field.name] = field.type === "checkbox" ? field.checked : field.value;
    }
    try {
      localStorage.setItem(STORAGE_KEY, JSON.stringify(kept));
    } catch { /* storage is off: the settings last as long as the page */ }
  }

  /** Only values that the form still offers are taken back. */
  #restoreSaved() {
    let kept = {};
    try {
      kept = JSON.parse(localStorage.getItem(STORAGE_KEY)) ?? {};
    } catch { /* never kept, or not ours */ }
    for (const [name, value] of Object.entries(kept)) {
      const field = this.form.elements[name];
      if (!field) continue;
      if (field.type === "checkbox") field.checked = value === true;
      else if (this.#offers(field, String(value))) field.value = value;
    }
  }

  #offers(field, value) {
    if (field instanceof RadioNodeList) return [...field].some((radio) => radio.value === value);
    return field.tagName !== "SELECT" || [...field.options].some((option) => option.value === value);
  }

  /** Nothing that a user wrote stays in the browser after signing out; what was chosen may. */
  forgetTexts() {
    this.form.elements.prompt.value = "";
    this.#save();
  }

  #reset() {
    try {
      localStorage.removeItem(STORAGE_KEY);
    } catch { /* nothing was kept */ }
    this.form.reset();
    this.applyConfig(this.config);
  }
}
