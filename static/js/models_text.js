// What is said of models and their downloads, in the page's language. Nothing here touches the page.

import { bytes, listed, percent, sentenceCase } from "./format.js";
import { text, textOf } from "./text.js";

const ACTIVE = new Set(["waiting", "running", "checking"]);

/** Whether a download will still change by itself. */
export const isActive = (download) => ACTIVE.has(download?.state);

/** Everything that is on its way, of these models. */
export const activeDownloads = (models) => models.map(({ download }) => download).filter(isActive);

/** How far the downloads of these models are together, 0 to 1. */
export function shareDone(models) {
  const begun = models.map(({ download }) => download).filter((one) => isActive(one) || one?.state === "completed");
  const of = begun.reduce((sum, one) => sum + one.of, 0);
  return of ? begun.reduce((sum, one) => sum + one.bytes, 0) / of : 0;
}

/** What a model is doing, or whether it is here: words and a tone. */
export function modelState(model) {
  if (model.used_for.includes("faces")) return [text("models.used_for_faces"), "good"];
  if (model.used_for.length) return [text("models.used_for", { qualities: listed(model.used_for.map(qualityWord)) }), "good"];
  if (model.installed) return [text("models.installed"), "good"];
  if (isActive(model.download)) return [downloadText(model.download), "waiting"];
  if (model.download?.state === "completed") return [text("models.being_opened"), "waiting"];
  return model.present ? [text("models.unusable"), "bad"] : [text("models.missing"), "none"];
}

const qualityWord = (quality) => textOf("quality", quality) ?? quality;

/** How far a download is, in words. */
export function downloadText({ state, bytes: done, of }) {
  if (state === "waiting") return text("models.waiting");
  if (state === "checking") return text("models.checking");
  return text("models.progress", { done: bytes(done), size: bytes(of), share: percent(of ? done / of : 0) });
}

/** What installing costs: all of it, or the rest of what was begun. */
export function installLabel({ bytes: all, partial_bytes: partial = 0, download = null }) {
  if (download?.state === "failed") return text("models.try_again");
  return partial > 0 ? text("models.resume", { size: bytes(all - partial) }) : text("models.install", { size: bytes(all) });
}

/** What a model is for. */
export const purposeText = ({ file, purpose }) =>
  textOf("model_purpose", file.replace(/\.[a-z]+$/, "")) ?? sentenceCase(purpose);

/** The licences of files that restrict commercial use, each once. */
export const restrictions = (models) =>
  [...new Set(models.filter((one) => one.commercial_use === false && !one.installed).map(({ licence }) => licence))];

/** What ended between two answers of the service, in a sentence for each; empty: nothing. */
export function endedSentences(before, now) {
  const wasActive = new Set((before?.models ?? []).filter(({ download }) => isActive(download)).map(({ file }) => file));
  return now.models.filter(({ file, download }) => wasActive.has(file) && !isActive(download))
    .map(({ name, download, installed }) => text(installed || download?.state === "completed" ? "models.has_arrived" : "models.has_failed", { name }))
    .join(" ");
}
