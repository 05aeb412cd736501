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

/** The text of a word that the service sends, such as a stage; null where this page does not know it, or is not told its values. */
export function textOf(group, word, values = {}) {
  const key = `${group}.${word}`;
  if (!Object.hasOwn(CATALOG, key)) return null;
  const named = [...JSON.stringify(CATALOG[key]).matchAll(/\{(\w+)\}/g)];
  return named.every(([, name]) => Object.hasOwn(values, name)) ? text(key, values) : null;
}

let installing = null; // how this user gets a missing model, as the service says; null: not known yet

/** Take over the `downloads` of `/api/v1/models`. */
export function learnInstalling(downloads) {
  installing = downloads;
}

/** What this user can do about a missing model: press a button, run a command, or ask whoever runs the service. */
export const installAdvice = () => (installing && textOf("install", installing.way, installing)) ?? "";

/** What the service reports with a code and an English sentence: in the page's language where there is a text of that code. */
export const errorText = ({ code, message }) => missingText(code) ?? textOf("error", code) ?? message;

/** A warning or note likewise, by exactly what it says; an older service tells no kind. */
export const warningText = (warning) => warningTexts([warning]).join(" ");

/** Several, and once after them what to do about the models that are missing. */
export function warningTexts(warnings) {
  const words = warnings.map(({ kind, message, values }) =>
    ofWorker(textOf("missing", kind, values) ?? textOf("warning", kind, values), values) ?? message);
  const advice = warnings.some(isMissing) && installAdvice();
  return advice ? [...words, advice] : words;
}

/** Whether a warning says that a model is missing. */
export const isMissing = ({ kind, values }) => textOf("missing", kind, values) !== null;

/** A reason of health likewise. */
export const reasonText = ({ code, message, values }) =>
  ofWorker(missingText(code, values) ?? textOf("reason", code, values), values) ?? textOf("error", code) ?? message;

/** That a model is missing, and what this user can do about it: nobody is sent to a shell that they have not got. */
function missingText(code, values) {
  const words = textOf("missing", code, values);
  return words && [words, installAdvice()].filter(Boolean).join(" ");
}

/** What one worker among several says, with its name. */
function ofWorker(words, { worker } = {}) {
  return words && worker && !words.includes(worker) ? text("reason.worker_trouble", { worker, reason: words }) : words;
}

/** Fill the texts, labels and titles that index.html holds in English. */
export function fillPage() {
  for (const element of document.querySelectorAll("[data-text]")) element.textContent = text(element.dataset.text);
  for (const element of document.querySelectorAll("[data-label]")) element.setAttribute("aria-label", text(element.dataset.label));
  for (const element of document.querySelectorAll("[data-title]")) element.title = text(element.dataset.title);
}
