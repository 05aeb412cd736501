// What a job is called and how it stands, in words. Pure: from a job to texts.

import { factor, listed, percent, photos } from "./format.js";
import { ended } from "./jobs.js";
import { stageText, statusText } from "./status_text.js";
import { text, textOf } from "./text.js";

const MOST_NAMES = 5;

/** Photos that are restored before those of a waiting job. */
export const aheadOf = ({ status, queue_position: position }) => (status === "queued" && position > 0 ? position - 1 : 0);

/** The options that tell jobs apart: the quality or the model, and the scale. */
export function optionWords({ options }) {
  const made = options?.backend === "siliconflow" ? "SiliconFlow" : textOf("quality", options?.quality) ?? text("job.any_quality");
  const words = options?.model && options.backend === "local" ? options.model : made;
  return [words, factor(options?.scale ?? 4)].join(" · ");
}

export function titleOf(job) {
  const { attempts } = job;
  return attempts.length > 1 ? `${photos(attempts.length)} · ${optionWords(job)}` : optionWords(job);
}

/** What a job's buttons speak of: its photo, or how many it has. */
export const aboutOf = ({ attempts }) => (attempts.length > 1 ? photos(attempts.length) : attempts[0]?.original_filename ?? "");

export function stateOf(job) {
  if (job.gone) return text("job.gone");
  if (ended(job)) return endOf(job);
  if (job.status === "queued" && job.queue_position > 0) {
    return aheadOf(job) ? text("job.ahead", { count: aheadOf(job) }) : text("job.next");
  }
  if (job.status !== "processing") return statusText(job.status);
  const done = job.attempts.filter(ended).length;
  const count = job.attempts.length > 1 ? `${text("job.done", { done, count: job.attempts.length })} · ` : "";
  if (job.stage === "waiting") return count ? `${count}${stageText(job.stage)}` : text("job.next");
  return `${count}${stageText(job.stage)} · ${percent(job.progress)}`;
}

/** The end of a job; that of a batch which was cut short says so, and by how much. */
function endOf({ status, attempts }) {
  const failed = countOf(attempts, "failed"), cancelled = countOf(attempts, "cancelled"), count = attempts.length;
  if (count < 2 || failed === count || !(failed + cancelled)) return statusText(status);
  const restored = text(cancelled ? "job.cut_short" : "job.partly", { done: count - failed - cancelled, count });
  return [restored, failed && text("job.failed", { count: failed }), cancelled && text("job.cancelled_photos", { count: cancelled })]
    .filter(Boolean).join(", ");
}

const countOf = (attempts, wanted) => attempts.filter(({ status }) => status === wanted).length;

/** Which photos of a batch are still missing; "" for none. */
export function missingText(attempts) {
  if (!attempts.length) return "";
  const names = attempts.slice(0, MOST_NAMES).map((attempt) => attempt.original_filename);
  const more = attempts.length - names.length;
  return text("job.missing", { names: listed(more ? [...names, text("job.more", { count: more })] : names) });
}
