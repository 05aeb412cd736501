// Reads the first bytes of a file: which format it is and how many pixels it has, as the service itself reads it.
// No pixel is decoded; what cannot be found out here is null, and the service decides.

const HEADER_BYTES = 512 * 1024;
const HEIF_BRANDS = new Set(["heic", "heix", "heim", "heis", "hevc", "hevx", "mif1", "msf1"]);
const AVIF_BRANDS = new Set(["avif", "avis"]);
const HEAD_BYTES = 64; // what the service looks at to tell AVIF from HEIC
const RAW_MARK = /^(CR|IIII|MMMM)/; // behind the header of a camera's raw file
const TIFF_WIDTH = 256, TIFF_HEIGHT = 257, TIFF_ORIENTATION = 274, TIFF_SHORT = 3;
const WEBP_EXIF = 8; // the flag of VP8X
const FIRST_TURNED = 5; // orientations from here on swap the sides

/** {format, width, height}: the service's format name, or null for what is no known picture; the size once upright. */
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
  if (["II*\0", "MM\0*", "II+\0", "MM\0+"].includes(text(view, 0, 4))) return RAW_MARK.test(text(view, 8, 4)) ? null : "TIFF";
  if (text(view, 0, 2) === "BM") return "BMP";
  return text(view, 4, 4) === "ftyp" ? isobmffFormat(view) : null;
}

function isobmffFormat(view) {
  const brands = [text(view, 8, 4)];
  const end = Math.min(view.getUint32(0), HEAD_BYTES, view.byteLength);
  for (let at = 16; at + 4 <= end; at += 4) brands.push(text(view, at, 4));
  if (AVIF_BRANDS.has(brands[0])) return "AVIF";
  if (!HEIF_BRANDS.has(brands[0])) return null;
  return brands.some((brand) => AVIF_BRANDS.has(brand)) ? "AVIF" : "HEIF";
}

const SIZES = { JPEG: jpegSize, PNG: pngSize, WEBP: webpSize, TIFF: tiffSize, BMP: bmpSize, AVIF: isobmffSize, HEIF: isobmffSize };

const upright = ([width, height], orientation) => (orientation >= FIRST_TURNED && orientation <= 8 ? [height, width] : [width, height]);

/** What the EXIF block that begins at `start` says; 1 where it says nothing. */
function exifOrientation(view, start) {
  try {
    return tiffTags(view, start)[TIFF_ORIENTATION] ?? 1;
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    return 1;
  }
}

/** The first frame header; markers C4, C8 and CC in that range mean other things. */
function jpegSize(view) {
  let at = 2, orientation = 1;
  while (true) {
    while (view.getUint8(at) === 0xff) at += 1;
    const marker = view.getUint8(at);
    if (marker === 0xe1 && text(view, at + 3, 6) === "Exif\0\0") orientation = exifOrientation(view, at + 9);
    if (marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker))
      return upright([view.getUint16(at + 6), view.getUint16(at + 4)], orientation);
    at += 1 + view.getUint16(at + 1);
    if (view.getUint8(at) !== 0xff) return null;
  }
}

/** EXIF counts where it stands before the pixels. */
function pngSize(view) {
  const size = [view.getUint32(16), view.getUint32(20)];
  for (let at = 8; at + 8 <= view.byteLength; at += 12 + view.getUint32(at)) {
    const kind = text(view, at + 4, 4);
    if (kind === "eXIf") return upright(size, exifOrientation(view, at + 8));
    if (kind === "IDAT") break;
  }
  return size;
}

function webpSize(view) {
  const kind = text(view, 12, 4);
  const three = (at) => view.getUint16(at, true) + (view.getUint8(at + 2) << 16);
  if (kind === "VP8X") return upright([three(24) + 1, three(27) + 1], view.getUint8(20) & WEBP_EXIF ? webpOrientation(view) : 1);
  if (kind === "VP8L") {
    const bits = view.getUint32(21, true);
    return [(bits & 0x3fff) + 1, ((bits >> 14) & 0x3fff) + 1];
  }
  return [view.getUint16(26, true) & 0x3fff, view.getUint16(28, true) & 0x3fff];
}

/** Its EXIF stands at the end; where that was not read the size is not known. */
function webpOrientation(view) {
  for (let at = 12; ; at += 8 + view.getUint32(at + 4, true) + (view.getUint32(at + 4, true) & 1)) {
    if (text(view, at, 4) !== "EXIF") continue;
    return exifOrientation(view, at + 8 + (text(view, at + 8, 6) === "Exif\0\0" ? 6 : 0));
  }
}

function bmpSize(view) {
  if (view.getUint32(14, true) === 12) return [view.getUint16(18, true), view.getUint16(20, true)];
  return [Math.abs(view.getInt32(18, true)), Math.abs(view.getInt32(22, true))];
}

function tiffSize(view) {
  if (view.getUint16(2, view.getUint8(0) === 0x49) !== 42) return null; // BigTIFF
  const { [TIFF_WIDTH]: width, [TIFF_HEIGHT]: height, [TIFF_ORIENTATION]: orientation = 1 } = tiffTags(view, 0);
  return width && height ? upright([width, height], orientation) : null;
}

/** The first directory of a TIFF structure that begins at `start`: tag to its first value. */
function tiffTags(view, start) {
  const little = view.getUint8(start) === 0x49;
  const directory = start + view.getUint32(start + 4, little);
  const found = {};
  for (let row = 0; row < view.getUint16(directory, little); row += 1) {
    const at = directory + 2 + 12 * row;
    const tag = view.getUint16(at, little), short = view.getUint16(at + 2, little) === TIFF_SHORT;
    found[tag] = short ? view.getUint16(at + 8, little) : view.getUint32(at + 8, little);
  }
  return found;
}

/** AVIF and HEIC: the largest of the sizes ("ispe" boxes) in the header, turned as "irot" says; tiles have smaller ones. */
function isobmffSize(view) {
  let best = null, turned = false;
  const end = Math.min(view.byteLength - 16, 64 * 1024);
  for (let at = 0; at < end; at += 1) {
    if (view.getUint32(at) === 0x69726f74) turned = (view.getUint8(at + 4) & 1) === 1;
    if (view.getUint32(at) !== 0x69737065) continue;
    const size = [view.getUint32(at + 8), view.getUint32(at + 12)];
    if (!best || size[0] * size[1] > best[0] * best[1]) best = size;
  }
  return best && turned ? best.reverse() : best;
}
