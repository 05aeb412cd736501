// Numbers, sizes and times as the page's language writes them. Pure functions: they touch neither page nor network.

import { locale, text } from "./text.js";

const BY_DIGITS = [0, 1, 2].map((digits) => new Intl.NumberFormat(locale, { maximumFractionDigits: digits, useGrouping: false }));
const ONE_DIGIT = new Intl.NumberFormat(locale, { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const LIST = new Intl.ListFormat(locale, { type: "conjunction" });
const NO_BREAK = "\u00a0";

export const sentenceCase = (words) => words.charAt(0).toUpperCase() + words.slice(1);

/** "1 photo", "3 photos". */
export const photos = (count) => text("unit.photos", { count });

export const percent = (fraction) => text("unit.percent", { number: Math.round(100 * fraction) });

/** A small part in percent, with as many digits as it needs to be more than nothing. */
export function share(fraction) {
  const number = 100 * fraction;
  return text("unit.percent", { number: BY_DIGITS[number >= 10 ? 0 : number >= 1 ? 1 : 2].format(number > 0 ? Math.max(0.01, number) : 0) });
}

export const factor = (scale) => `${BY_DIGITS[2].format(Number(scale))}×`;

/** Bytes as KB, MB or GB. */
export function bytes(count) {
  if (count < 1024) return text("unit.bytes", { count });
  if (count < 1024 * 1024) return text("unit.kilobytes", { number: String(Math.round(count / 1024)) });
  if (count < 1024 ** 3) return text("unit.megabytes", { number: trimmed(count / 1024 ** 2) });
  return text("unit.gigabytes", { number: trimmed(count / 1024 ** 3) });
}

/** Millions of pixels. */
export const megapixels = (pixels) => text("unit.megapixels", { number: trimmed(pixels / 1e6) });

export const size = (width, height) => `${width}${NO_BREAK}×${NO_BREAK}${height}`;

/** A time span, roughly, as people say it. */
export function duration(seconds) {
  if (seconds < 90) return text("unit.seconds", { number: Math.max(1, Math.round(seconds)) });
  if (seconds < 90 * 60) return text("unit.minutes", { number: Math.round(seconds / 60) });
  if (seconds < 36 * 3600) return text("unit.hours", { number: trimmed(Math.round(seconds / 360) / 10) });
  return text("unit.days", { count: Math.round(seconds / 86400) });
}

/** Seconds that a restoration took, exactly enough. */
export const exactSeconds = (seconds) =>
  (seconds < 10 ? text("unit.seconds", { number: ONE_DIGIT.format(seconds) }) : duration(seconds));

/** A moment (epoch seconds) as a time of day, with the date when it is not today. */
export function moment(epochSeconds) {
  const when = new Date(epochSeconds * 1000);
  const time = when.toLocaleTimeString(locale, { hour: "2-digit", minute: "2-digit" });
  return when.toDateString() === new Date().toDateString() ? time : `${when.toLocaleDateString(locale)} ${time}`;
}

/** A list as people write it: a, b and c. */
export const listed = (words) => LIST.format(words);

function trimmed(number) {
  return BY_DIGITS[number >= 100 ? 0 : number >= 10 ? 1 : 2].format(number);
}
