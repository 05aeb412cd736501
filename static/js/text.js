// Every text of the page, from the one catalog of its language: strings/en.json, or de.json and es.json beside it. A text
// may hold {names} for values, and one with a count has a form for each of the language's plurals.

const { lang, dataset: { locale: found } } = document.documentElement;

/** The tag of the language with its country where the browser tells one: for `Intl`. */
export const locale = found;

const PLURALS = new Intl.PluralRules(lang);
const NUMBER = new Intl.NumberFormat(locale);
const CATALOG = await load();

async function load() {
  const answer = await fetch(`strings/${lang}.json`).catch(() => null);
  return answer?.ok ? answer.json() : {}; // without it the page still works, and shows the keys
}

/** The text of a key; `values` fill its {names}, numbers as the language writes them, and `count` chooses the plural. */
export function text(key, values = {}) {
  const entry = CATALOG[key] ?? key;
  const form = typeof entry === "string" ? entry : entry[PLURALS.select(values.count)] ?? entry.other;
  return form.replace(/\{(\w+)\}/g, (_, name) => (typeof values[name] === "number" ? NUMBER.format(values[name]) : values[name]));
}

/** The text of a word that the service sends, such as a stage; null for one that this page does not know. */
export function textOf(group, word, values) {
  const key = `${group}.${word}`;
  return Object.hasOwn(CATALOG, key) ? text(key, values) : null;
}

/** What the service reports with a code and an English sentence: in the page's language where there is a text of that code. */
export const errorText = ({ code, message }) => textOf("error", code) ?? message;

/** A warning of a result likewise, by exactly what it says; an older service tells no kind. */
export const warningText = ({ kind, message, values }) => (kind ? textOf("warning", kind, values) : null) ?? message;

/** A reason of health in the page's own words, which send nobody to a shell where the page can do it. */
export const reasonText = ({ code, message, values }) => textOf("reason", code, values) ?? textOf("error", code) ?? message;

/** Fill the texts, labels and titles that index.html holds in English. */
export function fillPage() {
  for (const element of document.querySelectorAll("[data-text]")) element.textContent = text(element.dataset.text);
  for (const element of document.querySelectorAll("[data-label]")) element.setAttribute("aria-label", text(element.dataset.label));
  for (const element of document.querySelectorAll("[data-title]")) element.title = text(element.dataset.title);
}
