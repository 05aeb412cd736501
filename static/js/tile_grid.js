// Which tiles of a picture fill a view: pure geometry, as the service cuts pictures up (each level half of the one
// before, rounded up, until one tile holds it).

export const TILE_PIXELS = 1024;

/** Width and height of each level, the full size first. */
export function levelSizes(width, height) {
  const sizes = [[width, height]];
  while (Math.max(...sizes.at(-1)) > TILE_PIXELS) sizes.push(sizes.at(-1).map((side) => Math.ceil(side / 2)));
  return sizes;
}

/** The smallest level that still has a pixel for every pixel of the screen; `zoom` is screen pixels per picture pixel. */
export function levelFor(zoom, levels) {
  const halvings = Math.floor(-Math.log2(Math.max(zoom, 1e-6)) + 1e-6);
  return Math.min(Math.max(halvings, 0), levels - 1);
}

/**
 * The tiles of a level that touch a rectangle (fractions of the picture), nearest to its middle first, each
 * {level, x, y, left, top, right, bottom} with its own place in fractions of the picture.
 */
export function tilesIn({ left, top, right, bottom }, level, sizes) {
  const [width, height] = sizes[level];
  const range = (from, to, side) => [
    Math.max(0, Math.floor((from * side) / TILE_PIXELS)), Math.min(Math.ceil(side / TILE_PIXELS), Math.ceil((to * side) / TILE_PIXELS)),
  ];
  const [firstX, endX] = range(left, right, width), [firstY, endY] = range(top, bottom, height);
  const found = [];
  for (let y = firstY; y < endY; y += 1)
    for (let x = firstX; x < endX; x += 1) found.push({ level, x, y, ...placeOf(x, y, width, height) });
  const middle = [(left + right) / 2, (top + bottom) / 2];
  const far = (tile) => Math.hypot((tile.left + tile.right) / 2 - middle[0], (tile.top + tile.bottom) / 2 - middle[1]);
  return found.sort((one, other) => far(one) - far(other));
}

function placeOf(x, y, width, height) {
  const edge = (count, side) => Math.min(1, (count * TILE_PIXELS) / side);
  return { left: edge(x, width), top: edge(y, height), right: edge(x + 1, width), bottom: edge(y + 1, height) };
}
