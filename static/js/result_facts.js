// The facts of a restored photo as rows of text: sizes, time, model, faces, and what the user should know of it.
// Pure: from a job and an attempt to texts.

import { bytes, duration, exactSeconds, factor, megapixels, plural, sentenceCase, size } from "./format.js";

const METADATA_TEXT = { keep: "kept", strip_gps: "kept without the place", strip: "removed" };

/** Pairs of a name and its value, in reading order. */
export function factRows(job, attempt) {
  const { result } = attempt;
  const rows = [
    ["Before", picture(attempt.original_width, attempt.original_height, attempt.original_bytes)],
    ["After", picture(result.width, result.height, result.bytes)],
    ["Larger", `${factor((result.width / attempt.original_width).toFixed(2))} a side`],
    ["Restored in", time(attempt)],
    ["Model", result.model],
    ["Where", result.backend === "local" ? whereOf(result.params) : sentenceCase(result.backend)],
    ["Faces", faceWords(job, result)],
    ["Format", result.url.split(".").at(-1).toUpperCase()],
    ["Metadata", METADATA_TEXT[job.options?.metadata] ?? METADATA_TEXT.keep],
  ];
  return rows.filter(([, value]) => value);
}

const picture = (width, height, count) => `${size(width, height)} · ${megapixels(width * height)}${count ? ` · ${bytes(count)}` : ""}`;

function time({ result, started_at: started, ended_at: over }) {
  const whole = started && over ? ` (${duration(over - started)} with reading and saving)` : "";
  return result.seconds === null ? "" : `${exactSeconds(result.seconds)}${over - started > 2 * result.seconds ? whole : ""}`;
}

function whereOf(params) {
  return ["This machine", params?.device, params?.precision].filter((word) => typeof word === "string").join(", ");
}

function faceWords(job, { faces = [], backend, params }) {
  if (!faces.length) return noFaceWords(job, backend, params);
  const restored = faces.filter((face) => face.restored).length;
  return restored === faces.length ? `${restored} restored` : `${restored} of ${plural(faces.length, "face")} restored`;
}

/** "None found" only where somebody looked: not in the cloud, and not without the networks for faces. */
function noFaceWords(job, backend, params) {
  if (backend !== "local") return "";
  if (job.options?.face_enhance === false) return "not asked for";
  return params?.faces === null ? "not looked for" : "none found";
}
