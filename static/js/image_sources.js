// Which pictures stand for a photo at which zoom: small renditions of the service while they are enough, the true
// result when the browser can show it, tiles of what is larger, and never one so large that decoding it would freeze
// the page.

import { displayAddress, tileAddress } from "./api.js";

const SCREEN_PIXELS = 2048;
const LARGEST_PIXELS = 4096;
const CARD_PIXELS = 400; // what the service has at hand
const CARD_SHAPE = 4 / 3, ORDINARY_SHAPE = 2; // width by height of a card; longer by shorter side up to which 400 will do
const ALWAYS_FULL_PIXELS = 4e6; // a result this small is shown as it is
const MAX_DECODED_PIXELS = 32e6; // 128 MB once decoded
const BROWSER_FORMATS = /\.(jpe?g|png|webp|avif)$/;

/** Whether the browser is given the result itself when one looks closely. */
function isFullResolution({ result }) {
  return BROWSER_FORMATS.test(result.url) && result.width * result.height <= MAX_DECODED_PIXELS;
}

/** Pixels of the longer side with which a picture fills its card sharply: of a very tall or wide one little is seen. */
export function cardPixels(width, height) {
  if (!width || !height || Math.max(width / height, height / width) <= ORDINARY_SHAPE) return CARD_PIXELS;
  const scale = Math.max(CARD_PIXELS / width, CARD_PIXELS / CARD_SHAPE / height);
  return Math.min(SCREEN_PIXELS, Math.max(CARD_PIXELS, Math.ceil(scale * Math.max(width, height))));
}

/** Where the tiles of a side ("before" or "after") come from, {width, height, address}; null where it needs none. */
export function tileSource(jobId, attempt, side) {
  const { result, original_width, original_height } = attempt;
  const [of, width, height] = side === "after" ? ["result", result.width, result.height] : ["original", original_width, original_height];
  if (Math.max(width, height) <= LARGEST_PIXELS || (side === "after" && isFullResolution(attempt))) return null;
  return { width, height, address: (level, x, y) => tileAddress(jobId, attempt, of, level, x, y) };
}

/** Address of the picture that a card shows of the "original" or the "result". */
export function cardAddress(jobId, attempt, which) {
  const [width, height] = which === "result" ? [attempt.result.width, attempt.result.height]
    : [attempt.original_width, attempt.original_height];
  return displayAddress(jobId, attempt, which, cardPixels(width, height));
}

/** Address of a side for a view that shows the result's longer side over `pixels` screen pixels. */
export function sideAddress(jobId, attempt, side, pixels, tiled = tileSource(jobId, attempt, side) !== null) {
  if (tiled) return cardAddress(jobId, attempt, side === "after" ? "result" : "original");
  return side === "after" ? resultAddress(jobId, attempt, pixels) : originalAddress(jobId, attempt, pixels);
}

/** Address of the result for a view that shows its longer side over `pixels` screen pixels. */
function resultAddress(jobId, attempt, pixels) {
  const { result } = attempt;
  if (isFullResolution(attempt) && (result.width * result.height <= ALWAYS_FULL_PIXELS || pixels > SCREEN_PIXELS)) return result.url;
  return displayAddress(jobId, attempt, "result", pixels > SCREEN_PIXELS ? LARGEST_PIXELS : SCREEN_PIXELS);
}

/** Address of the original likewise; it is always a rendition, since the upload itself is only ever saved. */
function originalAddress(jobId, attempt, pixels) {
  const longer = Math.max(attempt.original_width, attempt.original_height);
  const enough = longer <= SCREEN_PIXELS || pixels <= SCREEN_PIXELS;
  return displayAddress(jobId, attempt, "original", enough ? SCREEN_PIXELS : LARGEST_PIXELS);
}
