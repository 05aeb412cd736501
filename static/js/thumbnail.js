// Small pictures of files that were just chosen, decoded in the background at small size, a few at a time, and turned by hand.
// Pictures that the browser cannot open (TIFF, HEIC) stay blank until the service shows them.

const SIDE_PIXELS = 280;
const MAX_CONCURRENT = 2;

const waiting = [];
let running = 0;

/** A canvas that shows the file as soon as it is decoded; `facts` are those of `readImageHeader`. */
export function thumbnail(file, facts) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 1;
  canvas.className = "thumb";
  canvas.setAttribute("aria-hidden", "true");
  waiting.push({ canvas, file, facts });
  next();
  return canvas;
}

/** Turn a small picture by quarters clockwise (-1: to the left), whether it is decoded already or will be. */
export function turn(canvas, quarters) {
  canvas.dataset.quarters = String((quartersOf(canvas) + quarters + 4) % 4);
  if (!canvas.dataset.ready) return;
  const copy = document.createElement("canvas");
  copy.width = canvas.width;
  copy.height = canvas.height;
  copy.getContext("2d").drawImage(canvas, 0, 0);
  paint(canvas, copy, (quarters + 4) % 4);
  copy.width = copy.height = 0;
}

/** A bitmap of a file whose longer side has at most `side` pixels; `facts` as they lie in the file, once upright. */
export function decodeSmall(file, facts, side) {
  const tall = facts.width && facts.height > facts.width;
  const longer = Math.max(facts.width ?? side, facts.height ?? side);
  return createImageBitmap(file, {
    [tall ? "resizeHeight" : "resizeWidth"]: Math.min(side, longer), resizeQuality: "medium", imageOrientation: "from-image",
  });
}

/** Draw a picture onto a canvas of its size, turned by quarters clockwise. */
export function paint(canvas, picture, quarters) {
  const { width, height } = picture;
  [canvas.width, canvas.height] = quarters % 2 ? [height, width] : [width, height];
  const context = canvas.getContext("2d"); // "bitmaprenderer" shows it as it lies in the file
  context.translate(canvas.width / 2, canvas.height / 2);
  context.rotate((quarters * Math.PI) / 2);
  context.drawImage(picture, -width / 2, -height / 2);
}

/** Give a canvas's memory back. */
export function discard(canvas) {
  canvas.width = canvas.height = 0;
  canvas.remove();
}

async function next() {
  if (running >= MAX_CONCURRENT || !waiting.length) return;
  running += 1;
  const task = waiting.shift();
  try {
    await draw(task);
  } catch {
    task.canvas.dataset.blank = "true"; // not a picture for this browser; its tile says the format
  }
  running -= 1;
  next();
}

const quartersOf = (canvas) => Number(canvas.dataset.quarters ?? 0);

async function draw({ canvas, file, facts }) {
  const bitmap = await decodeSmall(file, facts, SIDE_PIXELS);
  if (canvas.width === 0) return bitmap.close(); // thrown away meanwhile
  paint(canvas, bitmap, quartersOf(canvas));
  bitmap.close();
  canvas.dataset.ready = "true";
}
