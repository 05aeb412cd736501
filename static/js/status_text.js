// The single words that the service sends (stages, statuses, why a face was not restored, qualities, backends) in the
// page's language. A test holds each group of the catalog against the service's own enum in both directions. A value
// that is newer than this page is shown as it is, with spaces for underscores.

import { sentenceCase } from "./format.js";
import { textOf } from "./text.js";

/** From the fastest to the best. */
export const QUALITIES = ["fast", "balanced", "best"];

/** What the worker does with a photo, or for a job with the photo at work. */
export const stageText = (stage) => textOf("stage", stage) ?? sentenceCase(spaced(stage));

/** The status of a job or an attempt. */
export const statusText = (status) => textOf("status", status) ?? sentenceCase(spaced(status));

/** Why a face was not restored. */
export const faceReasonText = (reason) => textOf("face_reason", reason) ?? spaced(reason);

/** Where a photo is restored. */
export const backendText = (backend) => textOf("backend", backend) ?? sentenceCase(spaced(backend));

const spaced = (word) => String(word ?? "").replaceAll("_", " ");
