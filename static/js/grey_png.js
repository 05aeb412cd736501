// PNG files of 8-bit grey, read and written row by row: what a canvas reads has gone through its colours, what it writes
// is never grey, and both need four bytes for each pixel of the photo at once.

const SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
const HEADER_BYTES = 13;
const ROWS_AT_ONCE = 64;
let crcTable = null;

/** Read a file (a Blob): `onsize(width, height)`, then `onrow(row, y)` for each, whose array is used again for the next. */
export async function readGreyPng(file, onsize, onrow) {
  const { width, height, data } = chunksOf(new DataView(await file.arrayBuffer()));
  onsize(width, height);
  let row = new Uint8Array(width), above = new Uint8Array(width), filter = -1, filled = 0, y = 0;
  for await (const bytes of partsOf(data.stream().pipeThrough(new DecompressionStream("deflate")))) {
    for (let at = 0; at < bytes.length && y < height;) {
      if (filter < 0) {
        filter = bytes[at];
        at += 1;
        continue;
      }
      const some = bytes.subarray(at, at + width - filled);
      row.set(some, filled);
      filled += some.length;
      at += some.length;
      if (filled < width) continue;
      unfilter(row, above, filter);
      onrow(row, y);
      [row, above, filled, filter, y] = [above, row, 0, -1, y + 1];
    }
  }
  if (y < height) throw noGreyPng();
}

/** Write a file; `fill(row, y)` puts the values of each row into an array. Gives a Blob. */
export async function writeGreyPng(width, height, fill) {
  let y = 0;
  const rows = new ReadableStream({
    pull(controller) {
      const count = Math.min(ROWS_AT_ONCE, height - y), some = new Uint8Array(count * (width + 1));
      for (let place = 0; place < count; place += 1, y += 1)
        fill(some.subarray(place * (width + 1) + 1, (place + 1) * (width + 1)), y); // behind the filter, which is none
      controller.enqueue(some);
      if (y === height) controller.close();
    },
  });
  const packed = await new Response(rows.pipeThrough(new CompressionStream("deflate"))).arrayBuffer();
  const header = new DataView(new ArrayBuffer(HEADER_BYTES));
  header.setUint32(0, width);
  header.setUint32(4, height);
  header.setUint8(8, 8); // bits; the rest is 0: grey, deflated, plain filters, not interlaced
  return new Blob([
    new Uint8Array(SIGNATURE), ...chunk("IHDR", new Uint8Array(header.buffer)), ...chunk("IDAT", new Uint8Array(packed)), ...chunk("IEND", new Uint8Array()),
  ], { type: "image/png" });
}

async function* partsOf(stream) {
  const reader = stream.getReader();
  for (let part = await reader.read(); !part.done; part = await reader.read()) yield part.value;
}

const noGreyPng = () => new TypeError("no_grey_png");

/** Size and packed rows of a file. */
function chunksOf(view) {
  if (view.byteLength < 8 + 12 + HEADER_BYTES || SIGNATURE.some((byte, at) => view.getUint8(at) !== byte)) throw noGreyPng();
  const parts = [];
  for (let at = 8; at + 12 <= view.byteLength;) {
    const length = view.getUint32(at);
    if (at + 12 + length > view.byteLength) throw noGreyPng();
    if (view.getUint32(at + 4) === 0x49444154) parts.push(new Uint8Array(view.buffer, at + 8, length)); // IDAT
    at += 12 + length;
  }
  const [bits, colour, , , interlaced] = new Uint8Array(view.buffer, 24, 5);
  if (bits !== 8 || colour !== 0 || interlaced) throw noGreyPng();
  return { width: view.getUint32(16), height: view.getUint32(20), data: new Blob(parts) };
}

/** The five filters of PNG, for one byte a pixel. */
function unfilter(row, above, filter) {
  for (let at = 0; at < row.length; at += 1) {
    const left = at ? row[at - 1] : 0, up = above[at];
    if (filter === 1) row[at] += left;
    else if (filter === 2) row[at] += up;
    else if (filter === 3) row[at] += (left + up) >> 1;
    else if (filter === 4) row[at] += paeth(left, up, at ? above[at - 1] : 0);
  }
}

function paeth(left, up, corner) {
  const guess = left + up - corner;
  const [far, high, across] = [Math.abs(guess - left), Math.abs(guess - up), Math.abs(guess - corner)];
  if (far <= high && far <= across) return left;
  return high <= across ? up : corner;
}

/** A chunk as parts of a file. */
function chunk(kind, data) {
  const name = new TextEncoder().encode(kind);
  return [bigEndian(data.length), name, data, bigEndian(crc(name, data))];
}

function bigEndian(number) {
  const view = new DataView(new ArrayBuffer(4));
  view.setUint32(0, number);
  return view.buffer;
}

/** The check sum of PNG over several arrays. */
function crc(...arrays) {
  crcTable ??= Uint32Array.from({ length: 256 }, (_, byte) => {
    let value = byte;
    for (let bit = 0; bit < 8; bit += 1) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
    return value;
  });
  let sum = 0xffffffff;
  for (const array of arrays) for (const byte of array) sum = crcTable[(sum ^ byte) & 255] ^ (sum >>> 8);
  return (sum ^ 0xffffffff) >>> 0;
}
