// The notice above the page: what would give better results, with the button that installs it; dismissed until it
// says something else. To whom cannot install anything here it says what to do instead.

import { button, el, find } from "./dom.js";
import { bytes, percent } from "./format.js";
import { activeDownloads, shareDone } from "./models_text.js";
import { withCommand } from "./shell_command.js";
import { installAdvice, isMissing, text, warningText } from "./text.js";

const STORAGE_KEY = "neural-image-restore.notice";

/** Draw it anew; `models` is the panel, whose state may not be known yet. */
export function drawNotice(config, models) {
  const rows = noticeRows(config, models.state);
  const said = rows.map(({ words }) => words).join(" ");
  const notice = find("notice");
  notice.hidden = !rows.length || dismissed() === said;
  if (notice.hidden) return notice.replaceChildren();
  const focused = notice.contains(document.activeElement) ? document.activeElement.dataset.act : null;
  notice.replaceChildren(
    el("div", { class: "notice-rows" }, ...rows.map((row) => drawRow(row, models))),
    button(text("notice.dismiss"), { symbol: "close", quiet: true, class: "round", onclick: () => {
      remember(said);
      notice.hidden = true;
    } }));
  if (focused) notice.querySelector(`[data-act="${focused}"]`)?.focus();
}

/** What is to be said: words, and the set that a button installs. */
export function noticeRows(config, state) {
  const { note_causes: notes = [], embedded_model: embedded = false, faces = null } = config;
  const rows = [];
  if (embedded) rows.push({ words: text("notice.embedded"), set: "default" });
  if (faces && (faces.model === null || faces.detector === null)) rows.push({ words: text("notice.faces"), set: "faces" });
  const others = notes.map((note) => ({ ...note, kind: note.code })).filter((note) => !isMissing(note)).map((note) => ({ words: warningText(note) }));
  if (state?.downloads.allowed) return [...rows, ...others];
  const advice = rows.length && installAdvice();
  return [...rows.map(({ words }) => ({ words })), ...others, ...(advice ? [{ words: advice }] : [])];
}

function drawRow({ words, set }, models) {
  if (!set) return el("p", {}, withCommand(words));
  const members = models.state.models.filter((one) => one.sets.includes(set));
  const coming = activeDownloads(members);
  const { bytes: size } = models.state.sets.find((one) => one.name === set);
  const act = coming.length
    ? button(text("notice.installing", { share: percent(shareDone(members)) }), { class: "small", "data-act": set, onclick: () => models.open() })
    : installButton(words, set, size, models);
  return el("div", { class: "notice-row" }, el("p", {}, words), act);
}

function installButton(words, set, size, models) {
  const action = text("models.install", { size: bytes(size) });
  return button(action, { symbol: "download", class: "small", "data-act": set,
    "aria-label": text("models.named", { action, name: words }), onclick: () => models.install(set) });
}

function dismissed() {
  try {
    return localStorage.getItem(STORAGE_KEY);
  } catch {
    return null; // storage is off
  }
}

function remember(said) {
  try {
    localStorage.setItem(STORAGE_KEY, said);
  } catch { /* it is hidden as long as the page stands */ }
}
