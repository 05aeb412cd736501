// Which pictures stand for a photo at which zoom: small renditions of the service while they are enough, the true
// result when the browser can show it, and never one so large that decoding it would freeze the page.

import { displayAddress } from "./api.js";

const SCREEN_PIXELS = 2048;
export const LARGEST_PIXELS = 4096;
const ALWAYS_FULL_PIXELS = 4e6; // a result this small is shown as it is
const MAX_DECODED_PIXELS = 32e6; // 128 MB once decoded
const BROWSER_FORMATS = /\.(jpe?g|png|webp|avif)$/;

/** Whether the browser is given the result itself when one looks closely. */
export function isFullResolution({ result }) {
  return BROWSER_FORMATS.test(result.url) && result.width * result.height <= MAX_DECODED_PIXELS;
}

/** Address of the result for a view that shows its longer side over `pixels` screen pixels. */
export function resultAddress(jobId, attempt, pixels) {
  const { result } = attempt;
  if (isFullResolution(attempt) && (result.width * result.height <= ALWAYS_FULL_PIXELS || pixels > SCREEN_PIXELS)) return result.url;
  return displayAddress(jobId, attempt, "result", pixels > SCREEN_PIXELS ? LARGEST_PIXELS : SCREEN_PIXELS);
}

/** Address of the original likewise; it is always a rendition, since the upload itself is only ever saved. */
export function originalAddress(jobId, attempt, pixels) {
  const longer = Math.max(attempt.original_width, attempt.original_height);
  const enough = longer <= SCREEN_PIXELS || pixels <= SCREEN_PIXELS;
  return displayAddress(jobId, attempt, "original", enough ? SCREEN_PIXELS : LARGEST_PIXELS);
}
