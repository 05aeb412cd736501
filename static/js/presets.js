// Presets above the settings: the service's own for kinds of photos and those that somebody saved here. Choosing one puts
// its values into the form and says what it set; a setting that is changed afterwards is told as a change.

import { button, el, find, setText } from "./dom.js";
import { listed } from "./format.js";
import { activeDownloads } from "./models_text.js";
import { MOST_PRESETS, OwnPresets } from "./own_presets.js";
import { phrases } from "./settings_text.js";
import { contains, valuesOf } from "./settings_values.js";
import { text, textOf } from "./text.js";

const STORAGE_KEY = "neural-image-restore.preset";
const CONFIRM_MILLISECONDS = 4000;
const SEPARATOR = " · ";
// Of one's own presets these are told only where they are not as usual.
const ABOUT_THE_FILE = ["output_format", "output_quality", "pages", "metadata", "partial"];

export class Presets {
  #own = new OwnPresets();
  #active = storedId();
  #built = []; // the service's own: id, values, what is missing
  #naming = null; // "new", or the id of the preset that is renamed
  #shown = "";

  /** `settings` is the form below, `models` the panel that installs what a preset could use. */
  constructor(settings, models) {
    Object.assign(this, { settings, models });
    settings.addEventListener("change", () => this.#draw());
    models.addEventListener("change", () => this.#draw());
    find("settings-reset").addEventListener("click", () => this.activate(null));
    find("preset-back").addEventListener("click", () => this.choose(this.#active));
    find("preset-save").addEventListener("click", () => this.#name("new"));
    find("preset-rename").addEventListener("click", () => this.#name(this.#active));
    find("preset-update").addEventListener("click", () => this.#update());
    find("preset-delete").addEventListener("click", (event) => this.#remove(event.currentTarget));
    find("preset-cancel").addEventListener("click", () => this.#name(null));
    find("preset-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#saveNamed();
    });
    find("preset-form").addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      event.preventDefault(); // else it would close the dialog around it
      this.#name(null);
    });
    addEventListener("storage", () => {
      this.#own.refresh();
      this.#draw();
    });
  }

  /** Take over what the service offers. One that was as it was chosen before follows what has been installed since. */
  applyConfig(config, wasWhole) {
    this.#built = (config.presets ?? []).map(({ name, options, missing }) => ({ id: name, values: valuesOf(options), missing }));
    if (wasWhole && this.#preset && !this.isWhole) this.settings.apply(this.#preset.values);
    this.#draw();
  }

  /** The id of the chosen preset, or null; it may be one that is not offered just now. */
  get active() {
    return this.#active;
  }

  /** Whether a preset is chosen and every setting stands as it says. */
  get isWhole() {
    const preset = this.#preset;
    return Boolean(preset) && contains(this.settings.values(), this.settings.fit(preset.values).values);
  }

  /** The name of the chosen preset while nothing of it is changed, else null. */
  get wholeName() {
    return this.isWhole ? this.#nameOf(this.#active) : null;
  }

  /** Choose a preset and put its values into the form. */
  choose(id) {
    this.activate(id);
    if (this.#preset) this.settings.apply(this.#preset.values);
  }

  /** Show a preset as chosen without touching the form. */
  activate(id) {
    this.#active = id;
    this.#naming = null;
    if (this.settings.remembers) {
      try {
        if (id === null) localStorage.removeItem(STORAGE_KEY);
        else localStorage.setItem(STORAGE_KEY, id);
      } catch { /* it is shown as long as the page stands */ }
    }
    this.#draw();
  }

  get #preset() {
    return this.#built.find(({ id }) => id === this.#active) ?? this.#own.get(this.#active);
  }

  #nameOf(id) {
    return this.#own.get(id)?.name ?? textOf("preset", id) ?? id.replaceAll("_", " ");
  }

  #update() {
    this.#own.change(this.#active, { values: this.settings.values() });
    this.#tellKept();
    this.#draw();
    find("preset-save").focus(); // the pressed button has gone
  }

  /** The first press asks, the second deletes. */
  #remove(pressed) {
    const words = pressed.textContent;
    if (pressed.dataset.asked) {
      delete pressed.dataset.asked;
      setText(pressed, text("presets.delete"));
      this.#own.remove(this.#active);
      this.#tellKept();
      this.activate(null);
      return find("preset-save").focus();
    }
    pressed.dataset.asked = "true";
    setText(pressed, text("presets.really"));
    setTimeout(() => {
      if (!pressed.dataset.asked) return;
      delete pressed.dataset.asked;
      setText(pressed, words);
    }, CONFIRM_MILLISECONDS);
  }

  /** Open the line for a name, or with null close it. */
  #name(what) {
    const problem = what === "new" && this.#own.all().length >= MOST_PRESETS ? text("presets.too_many", { most: MOST_PRESETS }) : "";
    const before = this.#naming;
    this.#naming = problem ? null : what;
    setText(find("preset-problem"), problem);
    this.#draw();
    if (this.#naming) {
      find("preset-name").value = what === "new" ? "" : this.#nameOf(what);
      find("preset-name").focus();
      find("preset-name").select();
    } else if (before) find(before === "new" ? "preset-save" : "preset-rename").focus();
  }

  #saveNamed() {
    const name = find("preset-name").value, renamed = this.#naming === "new" ? null : this.#naming;
    const problem = this.#own.problemOf(name, renamed);
    if (problem) {
      setText(find("preset-problem"), text(problem, { most: MOST_PRESETS }));
      return find("preset-name").focus();
    }
    if (renamed) this.#own.change(renamed, { name });
    const id = renamed ?? this.#own.add(name, this.settings.values()).id;
    this.activate(id);
    this.#tellKept();
    find(renamed ? "preset-rename" : "preset-save").focus();
  }

  #tellKept() {
    setText(find("preset-problem"), this.#own.kept ? "" : text("presets.not_kept"));
  }

  #draw() {
    const preset = this.#preset, whole = this.isWhole, own = Boolean(this.#own.get(this.#active));
    this.#drawChoices(whole);
    setText(find("preset-sets"), this.#words(preset, whole));
    this.#drawMissing(preset);
    find("preset-back").hidden = !preset || whole;
    find("preset-update").hidden = !own || whole;
    find("preset-rename").hidden = find("preset-delete").hidden = !own;
    find("preset-form").hidden = this.#naming === null;
    find("preset-actions").hidden = this.#naming !== null;
  }

  #words(preset, whole) {
    if (!preset) return text("presets.none");
    const values = this.settings.fit(preset.values).values;
    if (whole) return text("presets.sets", { what: phrases(this.#worthTelling(values)).join(SEPARATOR) });
    const now = this.settings.values();
    const what = phrases(now, { ...now, ...values }).join(SEPARATOR);
    return text("presets.changed", { name: this.#nameOf(preset.id), what });
  }

  #worthTelling(values) {
    const usual = this.settings.defaults;
    return Object.fromEntries(Object.entries(values).filter(([name, value]) => !ABOUT_THE_FILE.includes(name) || value !== usual[name]));
  }

  /** One button a preset; drawn anew only when there are other ones, so that the focus stays. */
  #drawChoices(whole) {
    const presets = [...this.#built, ...this.#own.all()];
    const shown = JSON.stringify(presets.map(({ id }) => [id, this.#nameOf(id)]));
    const box = find("preset-choices");
    if (shown !== this.#shown) {
      this.#shown = shown;
      box.replaceChildren(...presets.map(({ id }) => button(this.#nameOf(id), {
        class: "preset small", data: { id }, title: textOf("preset_note", id), onclick: () => this.choose(id),
      })));
    }
    for (const choice of box.children) {
      const chosen = choice.dataset.id === this.#active;
      choice.setAttribute("aria-pressed", String(chosen));
      choice.classList.toggle("changed", chosen && !whole);
    }
  }

  /** What would serve the preset better, each with the button that installs it, where this page may. */
  #drawMissing(preset) {
    const names = [...new Set((preset?.missing ?? []).map(({ install }) => install))];
    const box = find("preset-missing");
    const rows = this.models.state?.models ?? [];
    const coming = names.filter((name) => activeDownloads(rows.filter((row) => row.name === name || row.sets.includes(name))).length);
    const offered = this.models.state?.downloads.allowed ? names : [];
    const shown = JSON.stringify([names, offered, coming]);
    box.hidden = !names.length;
    if (shown === box.dataset.shown) return;
    box.dataset.shown = shown;
    box.replaceChildren(
      el("p", { class: "field-note" }, text("presets.better", { names: listed(names.map(installName)) })),
      ...offered.map((name) => (coming.includes(name)
        ? button(text("presets.installing", { name: installName(name) }), { class: "small", onclick: () => this.models.open() })
        : button(text("presets.install", { name: installName(name) }), { symbol: "download", class: "small", onclick: () => this.models.install(name) }))));
  }
}

/** The set for faces in words, a model by its name. */
const installName = (name) => (name === "faces" ? text("presets.face_models") : name);

function storedId() {
  try {
    return localStorage.getItem(STORAGE_KEY);
  } catch {
    return null; // storage is off
  }
}
