// How large a photo becomes, as the service itself counts, and how that is said. Pure functions on facts of photos; a size
// is that of the photo as it is sent: upright, and turned by hand.

import { bytes, size } from "./format.js";
import { text } from "./text.js";

/** The facts of a photo after a quarter turn to either side. */
export const turned = (facts) => ({ ...facts, width: facts.height, height: facts.width });

/** {width, height} of the result. */
export const resultSize = ({ width, height }, scale) => ({ width: scaled(width, scale), height: scaled(height, scale) });

/** "960 × 640 to 3840 × 2560 · 1.2 MB"; a photo whose size nobody knows yet says its format. */
export function sizeWords(facts, file, scale) {
  if (!facts.width) return `${facts.format} · ${bytes(file.size)}`;
  const result = resultSize(facts, scale);
  const sizes = { before: size(facts.width, facts.height), after: size(result.width, result.height) };
  return `${text("tray.sizes", sizes)} · ${bytes(file.size)}`;
}

/** Rounded to the nearest whole number, halves to the even one. */
function scaled(side, scale) {
  const exact = side * scale, below = Math.floor(exact);
  const up = exact - below > 0.5 || (exact - below === 0.5 && below % 2 === 1);
  return Math.max(1, up ? below + 1 : below);
}
