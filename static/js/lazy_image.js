// Images of the service that load when they come near the screen, a few at a time, and pause when the
// service answers with Retry-After.

import { fetchImage } from "./api.js";

const MAX_CONCURRENT = 4;
const MAX_TRIES = 5;
const ROOT_MARGIN = "400px";

const waiting = [];
const wanted = new WeakMap(); // image -> its address and what to do once it is there
let running = 0;
let pausedUntil = 0;

const observer = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    observer.unobserve(entry.target);
    waiting.push({ image: entry.target, ...wanted.get(entry.target), tries: 0 });
  }
  next();
}, { rootMargin: ROOT_MARGIN });

/** An image that loads `address` when it comes near the screen. It is decoration: what it shows stands beside it. */
export function lazyImage(address, { onready = () => {} } = {}) {
  const image = document.createElement("img");
  image.alt = "";
  image.decoding = "async";
  image.draggable = false;
  wanted.set(image, { address, onready });
  observer.observe(image);
  return image;
}

/** The picture is not needed any more. */
export function releaseImage(image) {
  observer.unobserve(image);
  wanted.delete(image);
  if (image.src) URL.revokeObjectURL(image.src);
}

async function next() {
  if (running >= MAX_CONCURRENT || !waiting.length) return;
  const pause = pausedUntil - Date.now();
  if (pause > 0) return void setTimeout(next, pause);
  running += 1;
  const task = waiting.shift();
  if (wanted.get(task.image)?.address === task.address) await load(task);
  running -= 1;
  next();
  next();
}

async function load(task) {
  try {
    const blob = await fetchImage(task.address);
    if (!wanted.has(task.image)) return;
    task.image.src = URL.createObjectURL(blob);
    await task.image.decode().catch(() => {});
    if (wanted.has(task.image)) task.onready(task.image); // else it was released while it was decoded
  } catch (problem) {
    if (problem.retryAfterSeconds === null || task.tries >= MAX_TRIES) return; // gone: its words remain
    pausedUntil = Date.now() + 1000 * problem.retryAfterSeconds;
    waiting.unshift({ ...task, tries: task.tries + 1 });
  }
}
