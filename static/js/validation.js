// Which photos cannot be restored, and why, checked against the service's own limits before anything is sent. Pure functions
// from a file's facts to one plain sentence, or null when nothing speaks against it.

import { bytes, factor, listed, size } from "./format.js";
import { resultSize } from "./result_size.js";
import { text } from "./text.js";

const FORMAT_NAMES = { JPEG: "JPEG", PNG: "PNG", WEBP: "WebP", TIFF: "TIFF", BMP: "BMP", AVIF: "AVIF", HEIF: "HEIC" };

/** The formats as people write them. */
export const formatNames = (formats) => listed(formats.map((name) => FORMAT_NAMES[name] ?? name));

/** What is wrong with a photo whatever the settings; `facts` as `readImageHeader` gives them. */
export function validationError(file, facts, { limits, formats }) {
  if (file.size === 0) return text("invalid.empty");
  if (facts.format === null) return text("invalid.no_photo", { formats: formatNames(formats) });
  if (!formats.includes(facts.format))
    return text("invalid.format", { format: FORMAT_NAMES[facts.format] });
  if (file.size > limits.max_file_bytes)
    return text("invalid.bytes", { has: bytes(file.size), most: bytes(limits.max_file_bytes) });
  if (facts.width === null) return null;
  const pixels = facts.width * facts.height;
  if (pixels > limits.max_input_megapixels * 1e6)
    return text("invalid.megapixels", { has: Math.round(pixels / 1e6), most: limits.max_input_megapixels });
  if (Math.max(facts.width, facts.height) > limits.max_side_pixels)
    return text("invalid.side", { has: Math.max(facts.width, facts.height), most: limits.max_side_pixels });
  return null;
}

/** What is wrong with its result at the chosen scale and format, and the scale that fits. */
export function scaleError(facts, scale, { limits, result_formats: formats = {} }, format = "auto") {
  if (facts.width === null) return null;
  const pixels = facts.width * facts.height, most = limits.max_output_megapixels * 1e6;
  if (pixels * scale * scale <= most) return formatError(facts, scale, format, formats[format]);
  const fits = Math.floor(2 * Math.sqrt(most / pixels)) / 2;
  return text(fits >= 1 ? "invalid.scale" : "invalid.any_scale", { scale: factor(scale), fits: factor(fits),
    has: Math.round((pixels * scale * scale) / 1e6), most: limits.max_output_megapixels });
}

/** A format that cannot hold the result; "auto" finds one that can. */
function formatError(facts, scale, format, limits) {
  const result = resultSize(facts, scale);
  const longer = Math.max(result.width, result.height), most = limits?.max_pixels ?? Infinity;
  if (!limits || (longer <= limits.max_side_pixels && result.width * result.height <= most)) return null;
  const bound = Math.min(limits.max_side_pixels / Math.max(facts.width, facts.height), Math.sqrt(most / (facts.width * facts.height)));
  const fits = Math.floor(2 * bound) / 2;
  return text(fits >= 1 ? "invalid.format_scale" : "invalid.format_any_scale", { scale: factor(scale), fits: factor(fits),
    size: size(result.width, result.height), format: format.toUpperCase() });
}
