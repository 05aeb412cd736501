// Presets that somebody made, kept in this browser: at most twenty, by name, shared by its tabs. What was written there by
// something else is left out; where nothing can be kept they last as long as the page.

const STORAGE_KEY = "neural-image-restore.presets";

export const MOST_PRESETS = 20;
export const MOST_NAME_LETTERS = 40;
/** What is no part of a preset: words that somebody wrote for one photo, and that no browser keeps after signing out. */
const LEFT_OUT = new Set(["prompt"]);

export class OwnPresets {
  #list = [];
  #kept = true; // whether the last change could be kept

  constructor() {
    this.#load();
  }

  /** Whether they outlive the page. */
  get kept() {
    return this.#kept;
  }

  /** `{ id, name, values }` of each, in the order in which they were made. */
  all() {
    return [...this.#list];
  }

  get(id) {
    return this.#list.find((preset) => preset.id === id);
  }

  /** Why a name cannot be given, as the key of a text, or null; `id` is the preset's own when it is renamed. */
  problemOf(name, id = null) {
    const wanted = clean(name);
    if (!wanted) return "presets.no_name";
    if (this.#list.some((preset) => preset.id !== id && preset.name.toLowerCase() === wanted.toLowerCase())) return "presets.name_taken";
    return id === null && this.#list.length >= MOST_PRESETS ? "presets.too_many" : null;
  }

  /** Keep values under a new name that `problemOf` has nothing against; gives the preset. */
  add(name, values) {
    this.#load();
    const number = 1 + Math.max(0, ...this.#list.map(({ id }) => Number(id.slice(4))));
    const preset = { id: `own-${number}`, name: clean(name), values: withoutTexts(values) };
    this.#list = [...this.#list, preset].slice(-MOST_PRESETS);
    this.#store();
    return preset;
  }

  /** Change its name or its values. */
  change(id, { name, values }) {
    this.#load();
    this.#list = this.#list.map((preset) => (preset.id !== id ? preset
      : { id, name: name === undefined ? preset.name : clean(name), values: values ? withoutTexts(values) : preset.values }));
    this.#store();
  }

  remove(id) {
    this.#load();
    this.#list = this.#list.filter((preset) => preset.id !== id);
    this.#store();
  }

  /** Look again: another tab may have changed them. What could not be kept is not looked up, or it would be lost. */
  refresh() {
    this.#load();
  }

  #load() {
    if (!this.#kept) return;
    try {
      this.#list = readable(JSON.parse(localStorage.getItem(STORAGE_KEY)));
    } catch { /* storage is off, or what stands there is broken: what is known here stays */ }
  }

  #store() {
    try {
      localStorage.setItem(STORAGE_KEY, JSON.stringify(this.#list));
      this.#kept = true;
    } catch {
      this.#kept = false; // storage is off or full
    }
  }
}

const clean = (name) => name.trim().replace(/\s+/g, " ").slice(0, MOST_NAME_LETTERS);

const withoutTexts = (values) => Object.fromEntries(Object.entries(values).filter(([name]) => !LEFT_OUT.has(name)));

/** What of a stored list are presets. */
function readable(stored) {
  if (!Array.isArray(stored)) return [];
  const found = new Map();
  for (const preset of stored) {
    const { id, name, values } = Object(preset);
    if (!/^own-\d{1,9}$/.test(id) || typeof name !== "string" || !clean(name) || typeof values !== "object" || !values) continue;
    const plain = Object.entries(withoutTexts(values)).filter(([, value]) => ["string", "boolean"].includes(typeof value));
    found.set(id, { id, name: clean(name), values: Object.fromEntries(plain) });
  }
  return [...found.values()].slice(0, MOST_PRESETS);
}
