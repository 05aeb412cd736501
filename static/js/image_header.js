// Reads the first bytes of a file: which format it is and how many pixels it has, as the service itself reads it.
// No pixel is decoded; what cannot be found out here is null, and the service decides.

const HEADER_BYTES = 512 * 1024;
const HEIF_BRANDS = new Set(["heic", "heix", "heim", "heis", "hevc", "hevx", "mif1", "msf1"]);
const AVIF_BRANDS = new Set(["avif", "avis"]);
const TIFF_WIDTH = 256, TIFF_HEIGHT = 257, TIFF_SHORT = 3;

/** {format, width, height}: the service's format name, or null for what is no known picture. */
export async function readImageHeader(file) {
  const view = new DataView(await file.slice(0, HEADER_BYTES).arrayBuffer());
  const format = formatOf(view);
  let found = null;
  try {
    found = format && SIZES[format](view);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error; // the header is longer than what was read, or cut off
  }
  const [width, height] = found ?? [null, null];
  return { format, width, height };
}

const text = (view, start, length) =>
  String.fromCharCode(...new Uint8Array(view.buffer, start, Math.min(length, Math.max(0, view.byteLength - start))));

function formatOf(view) {
  if (view.byteLength < 12) return null;
  if (view.getUint16(0) === 0xffd8 && view.getUint8(2) === 0xff) return "JPEG";
  if (view.getUint32(0) === 0x89504e47) return "PNG";
  if (text(view, 0, 4) === "RIFF" && text(view, 8, 4) === "WEBP") return "WEBP";
  if (["II*\0", "MM\0*", "II+\0", "MM\0+"].includes(text(view, 0, 4))) return "TIFF";
  if (text(view, 0, 2) === "BM") return "BMP";
  return text(view, 4, 4) === "ftyp" ? isobmffFormat(view) : null;
}

function isobmffFormat(view) {
  const brands = [text(view, 8, 4)];
  const end = Math.min(view.getUint32(0), 256, view.byteLength);
  for (let at = 16; at + 4 <= end; at += 4) brands.push(text(view, at, 4));
  if (AVIF_BRANDS.has(brands[0])) return "AVIF";
  if (!HEIF_BRANDS.has(brands[0])) return null;
  return brands.some((brand) => AVIF_BRANDS.has(brand)) ? "AVIF" : "HEIF";
}

const SIZES = { JPEG: jpegSize, PNG: pngSize, WEBP: webpSize, TIFF: tiffSize, BMP: bmpSize, AVIF: isobmffSize, HEIF: isobmffSize };

/** The first frame header; markers C4, C8 and CC in that range mean other things. */
function jpegSize(view) {
  let at = 2;
  while (true) {
    while (view.getUint8(at) === 0xff) at += 1;
    const marker = view.getUint8(at);
    if (marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker))
      return [view.getUint16(at + 6), view.getUint16(at + 4)];
    at += 1 + view.getUint16(at + 1);
    if (view.getUint8(at) !== 0xff) return null;
  }
}

function pngSize(view) {
  return [view.getUint32(16), view.getUint32(20)];
}

function webpSize(view) {
  const kind = text(view, 12, 4);
  const three = (at) => view.getUint16(at, true) + (view.getUint8(at + 2) << 16);
  if (kind === "VP8X") return [three(24) + 1, three(27) + 1];
  if (kind === "VP8L") {
    const bits = view.getUint32(21, true);
    return [(bits & 0x3fff) + 1, ((bits >> 14) & 0x3fff) + 1];
  }
  return [view.getUint16(26, true) & 0x3fff, view.getUint16(28, true) & 0x3fff];
}

function bmpSize(view) {
  if (view.getUint32(14, true) === 12) return [view.getUint16(18, true), view.getUint16(20, true)];
  return [Math.abs(view.getInt32(18, true)), Math.abs(view.getInt32(22, true))];
}

function tiffSize(view) {
  const little = view.getUint8(0) === 0x49;
  if (view.getUint16(2, little) !== 42) return null; // BigTIFF
  const directory = view.getUint32(4, little);
  const found = {};
  for (let row = 0; row < view.getUint16(directory, little); row += 1) {
    const at = directory + 2 + 12 * row;
    const tag = view.getUint16(at, little), short = view.getUint16(at + 2, little) === TIFF_SHORT;
    found[tag] = short ? view.getUint16(at + 8, little) : view.getUint32(at + 8, little);
  }
  return found[TIFF_WIDTH] && found[TIFF_HEIGHT] ? [found[TIFF_WIDTH], found[TIFF_HEIGHT]] : null;
}

/** AVIF and HEIC: the largest of the sizes ("ispe" boxes) in the header; tiles and thumbnails have smaller ones. */
function isobmffSize(view) {
  let best = null;
  const end = Math.min(view.byteLength - 16, 64 * 1024);
  for (let at = 0; at < end; at += 1) {
    if (view.getUint32(at) !== 0x69737065) continue;
    const size = [view.getUint32(at + 8), view.getUint32(at + 12)];
    if (!best || size[0] * size[1] > best[0] * best[1]) best = size;
  }
  return best;
}
