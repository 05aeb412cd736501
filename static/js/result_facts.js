// The facts of a restored photo as rows of text: sizes, time, model, faces, and what the user should know of it.
// Pure: from a job and an attempt to texts.

import { bytes, duration, exactSeconds, factor, megapixels, sentenceCase, share, size } from "./format.js";
import { optionsOf } from "./jobs.js";
import { text, textOf } from "./text.js";

/** Pairs of a name and its value, in reading order. */
export function factRows(job, attempt) {
  const { result } = attempt, options = optionsOf(job, attempt);
  const rows = [
    [text("fact.before"), picture(attempt.original_width, attempt.original_height, attempt.original_bytes)],
    [text("fact.after"), picture(result.width, result.height, result.bytes)],
    [text("fact.larger"), text("fact.a_side", { factor: factor((result.width / attempt.original_width).toFixed(2)) })],
    [text("fact.seconds"), time(attempt)],
    [text("fact.model"), result.model],
    [text("fact.where"), result.backend === "local" ? whereOf(result.params) : sentenceCase(result.backend)],
    [text("fact.faces"), faceWords(options, result)],
    [text("fact.repaired"), repairWords(result.params?.repair)],
    [text("fact.format"), result.url.split(".").at(-1).toUpperCase()],
    [text("fact.metadata"), textOf("metadata_result", options.metadata) ?? text("metadata_result.keep")],
  ];
  return rows.filter(([, value]) => value);
}

const picture = (width, height, count) => `${size(width, height)} · ${megapixels(width * height)}${count ? ` · ${bytes(count)}` : ""}`;

function time({ result, started_at: started, ended_at: over }) {
  const whole = started && over ? ` (${text("fact.whole_time", { time: duration(over - started) })})` : "";
  return result.seconds === null ? "" : `${exactSeconds(result.seconds)}${over - started > 2 * result.seconds ? whole : ""}`;
}

function whereOf(params) {
  return [text("fact.this_machine"), params?.device, params?.precision].filter((word) => typeof word === "string").join(", ");
}

function faceWords(options, { faces = [], backend, params }) {
  if (!faces.length) return noFaceWords(options, backend, params);
  const restored = faces.filter((face) => face.restored).length;
  return restored === faces.length ? text("fact.all_faces", { count: restored }) : text("fact.some_faces", { restored, count: faces.length });
}

/** Only where somebody looked for damage, or painted a mask. */
function repairWords(report) {
  if (!report) return "";
  return report.share > 0 ? text("fact.filled", { share: share(report.share) }) : text("fact.nothing_filled");
}

/** "None found" only where somebody looked: not in the cloud, and not without the networks for faces. */
function noFaceWords(options, backend, params) {
  if (backend !== "local") return "";
  if (options.face_enhance === false) return text("fact.faces_not_asked");
  return params?.faces === null ? text("fact.faces_not_looked_for") : text("fact.no_faces");
}
