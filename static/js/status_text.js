// The single words that the service sends (stages, statuses, why a face was not restored, qualities, backends) as plain
// English. Each table has exactly the values of the service's own enum; a test compares them in both directions. A
// value that is newer than this page is shown as it is, with spaces for underscores.

import { sentenceCase } from "./format.js";

const STAGES = {
  waiting: "Waiting",
  decoding: "Reading the photo",
  loading: "Loading the model",
  upscaling: "Restoring",
  faces: "Restoring faces",
  preparing: "Preparing the photo",
  sending: "Sending to the provider",
  provider: "At the provider",
  downloading: "Fetching the result",
  fitting: "Fitting the result to the asked size",
  encoding: "Saving",
  done: "Done",
  cancelled: "Cancelled",
};

const STATUSES = {
  queued: "Waiting",
  processing: "Restoring",
  completed: "Restored",
  failed: "Failed",
  cancelled: "Cancelled",
};

const FACE_REASONS = {
  too_small: "too small to restore",
  too_many: "left as it is, since there are too many faces",
  not_aligned: "its features do not form a face that can be aligned",
  failed: "the face model gave no usable result",
  nothing_to_paste: "no part of it could be pasted",
};

/** Qualities by their names, from the fastest to the best. */
export const QUALITIES = {
  fast: "Fast",
  balanced: "Balanced",
  best: "Best",
};

const BACKENDS = {
  local: "On this machine",
  siliconflow: "SiliconFlow, in the cloud",
};

/** What the worker does with a photo, or for a job with the photo at work. */
export const stageText = (stage) => STAGES[stage] ?? sentenceCase(spaced(stage));

/** The status of a job or an attempt. */
export const statusText = (status) => STATUSES[status] ?? sentenceCase(spaced(status));

/** Why a face was not restored. */
export const faceReasonText = (reason) => FACE_REASONS[reason] ?? spaced(reason);

/** Where a photo is restored. */
export const backendText = (backend) => BACKENDS[backend] ?? sentenceCase(spaced(backend));

const spaced = (word) => String(word ?? "").replaceAll("_", " ");
