// What is said of models and their downloads. Pure functions: they touch neither page nor network.

import { bytes, listed, percent, sentenceCase } from "./format.js";

const ACTIVE = new Set(["waiting", "running", "checking"]);

/** Whether a download will still change by itself. */
export const isActive = (download) => ACTIVE.has(download?.state);

/** Everything that is on its way, of all models. */
export const activeDownloads = (models) => models.map(({ download }) => download).filter(isActive);

/** How far downloads are together, 0 to 1. */
export function shareDone(downloads) {
  const of = downloads.reduce((sum, one) => sum + one.of, 0);
  return of ? downloads.reduce((sum, one) => sum + one.bytes, 0) / of : 0;
}

/** What a model is doing, or whether it is here: words and a tone. */
export function modelState(model) {
  if (model.used_for.includes("faces")) return ["In use for faces", "good"];
  if (model.used_for.length) return [`In use for ${listed(model.used_for)}`, "good"];
  if (model.installed) return ["Installed", "good"];
  if (isActive(model.download)) return [downloadText(model.download), "waiting"];
  if (model.download?.state === "completed") return ["Installed; it is being opened", "waiting"];
  if (model.present) return ["Cannot be used", "bad"];
  return ["Not installed", "none"];
}

/** How far a download is, in words. */
export function downloadText({ state, bytes: done, of }) {
  if (state === "waiting") return "Waiting for the one before it";
  if (state === "checking") return "Checking that it arrived whole";
  return `${bytes(done)} of ${bytes(of)} (${percent(of ? done / of : 0)})`;
}

/** What installing costs: `Install (64 MB)`, or the rest of what was begun. */
export function installLabel({ bytes: all, partial_bytes: partial = 0, download = null }) {
  if (download?.state === "failed") return "Try again";
  return partial > 0 ? `Resume (${bytes(all - partial)} left)` : `Install (${bytes(all)})`;
}

/** What a model is for, as a sentence begins. */
export const purposeText = ({ purpose }) => sentenceCase(purpose);

/** The licences of files that restrict commercial use, each once. */
export const restrictions = (models) =>
  [...new Set(models.filter((one) => one.commercial_use === false && !one.installed).map(({ licence }) => licence))];
