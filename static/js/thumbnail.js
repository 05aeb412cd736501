// Small pictures of files that were just chosen, decoded in the background at small size, a few at a time.
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

async function draw({ canvas, file, facts }) {
  const tall = facts.width && facts.height > facts.width;
  const longer = Math.max(facts.width ?? SIDE_PIXELS, facts.height ?? SIDE_PIXELS);
  const side = Math.min(SIDE_PIXELS, longer);
  const bitmap = await createImageBitmap(file, {
    [tall ? "resizeHeight" : "resizeWidth"]: side, resizeQuality: "medium", imageOrientation: "from-image",
  });
  if (canvas.width === 0) return bitmap.close(); // thrown away meanwhile
  canvas.width = bitmap.width;
  canvas.height = bitmap.height;
  canvas.getContext("2d").drawImage(bitmap, 0, 0); // "bitmaprenderer" shows it as it lies in the file
  bitmap.close();
  canvas.dataset.ready = "true";
}
