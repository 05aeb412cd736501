// The service's own words (stages of a restoration, why a face was left alone) as plain English. The tables hold exactly
// what `app/stages.py` and `app/results.py` can say; a test compares them.

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

const FACE_REASONS = {
  too_small: "too small to restore",
  too_many: "left as it is, since there are too many faces",
  not_aligned: "its features do not form a face that can be aligned",
  failed: "the face model gave no usable result",
  nothing_to_paste: "no part of it could be pasted",
};

/** A stage as words; one that this page does not know yet is shown as it is. */
export const stageWords = (stage) => STAGES[stage] ?? sentenceCase(asWords(stage));

/** Why a face was left alone. */
export const faceReason = (reason) => FACE_REASONS[reason] ?? asWords(reason);

const asWords = (word) => String(word ?? "").replaceAll("_", " ");
