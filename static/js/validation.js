// Which photos cannot be restored, and why, checked against the service's own limits before anything is sent. Pure functions
// from a file's facts to one plain sentence, or null when nothing speaks against it.

import { bytes, factor, listed } from "./format.js";

const FORMAT_NAMES = { JPEG: "JPEG", PNG: "PNG", WEBP: "WebP", TIFF: "TIFF", BMP: "BMP", AVIF: "AVIF", HEIF: "HEIC" };

/** The formats as people write them. */
export const formatNames = (formats) => listed(formats.map((name) => FORMAT_NAMES[name] ?? name));

/** What is wrong with a photo whatever the settings; `facts` as `readImageHeader` gives them. */
export function validationError(file, facts, { limits, formats }) {
  if (file.size === 0) return "The file is empty.";
  if (facts.format === null) return `Not a photo this service can open. It opens ${formatNames(formats)}.`;
  if (!formats.includes(facts.format))
    return `${FORMAT_NAMES[facts.format]} photos cannot be opened here; save it as JPEG and add that.`;
  if (file.size > limits.max_file_bytes)
    return `It has ${bytes(file.size)}, and ${bytes(limits.max_file_bytes)} are allowed; save it smaller.`;
  if (facts.width === null) return null;
  const pixels = facts.width * facts.height;
  if (pixels > limits.max_input_megapixels * 1e6)
    return `It has ${Math.round(pixels / 1e6)} megapixels, and ${limits.max_input_megapixels} are allowed; make it smaller.`;
  if (Math.max(facts.width, facts.height) > limits.max_side_pixels)
    return `Its longer side has ${Math.max(facts.width, facts.height)} pixels, and ${limits.max_side_pixels} are allowed.`;
  return null;
}

/** What is wrong with it at the chosen scale, and the scale that fits. */
export function scaleError(facts, scale, { limits }) {
  if (facts.width === null) return null;
  const pixels = facts.width * facts.height, most = limits.max_output_megapixels * 1e6;
  if (pixels * scale * scale <= most) return null;
  const fits = Math.floor(2 * Math.sqrt(most / pixels)) / 2;
  const remedy = fits >= 1 ? `choose ${factor(fits)} or less` : "make the photo smaller first";
  return `At ${factor(scale)} it would have ${Math.round((pixels * scale * scale) / 1e6)} megapixels, and `
    + `${limits.max_output_megapixels} are allowed; ${remedy}.`;
}
