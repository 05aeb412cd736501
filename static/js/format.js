// Numbers, sizes and times as plain English. Pure functions: they touch neither page nor network.

export const sentenceCase = (text) => text.charAt(0).toUpperCase() + text.slice(1);

export const plural = (count, one, many = `${one}s`) => `${count} ${count === 1 ? one : many}`;

export const percent = (fraction) => `${Math.round(100 * fraction)} %`;

export const factor = (scale) => `${Number(scale)}×`;

/** Bytes as KB, MB or GB. */
export function bytes(count) {
  if (count < 1024) return `${count}\u00a0bytes`;
  if (count < 1024 * 1024) return `${Math.round(count / 1024)}\u00a0KB`;
  if (count < 1024 ** 3) return `${trimmed(count / 1024 ** 2)}\u00a0MB`;
  return `${trimmed(count / 1024 ** 3)}\u00a0GB`;
}

/** Millions of pixels. */
export const megapixels = (pixels) => `${trimmed(pixels / 1e6)}\u00a0MP`;

export const size = (width, height) => `${width}\u00a0×\u00a0${height}`;

/** A time span, roughly, as people say it. */
export function duration(seconds) {
  if (seconds < 1) return "1 s";
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 90 * 60) return `${Math.round(seconds / 60)} min`;
  if (seconds < 36 * 3600) return `${trimmed(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

/** Seconds that a restoration took, exactly enough. */
export const exactSeconds = (seconds) => (seconds < 10 ? `${seconds.toFixed(1)} s` : duration(seconds));

/** A moment (epoch seconds) as a time of day, with the date when it is not today. */
export function moment(epochSeconds) {
  const when = new Date(epochSeconds * 1000);
  const time = when.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  return when.toDateString() === new Date().toDateString() ? time : `${when.toLocaleDateString()} ${time}`;
}

/** A list as people write it: a, b and c. */
export function listed(words) {
  return words.length < 2 ? words.join("") : `${words.slice(0, -1).join(", ")} and ${words.at(-1)}`;
}

function trimmed(number) {
  return number >= 100 ? String(Math.round(number)) : String(Number(number.toFixed(number >= 10 ? 1 : 2)));
}
