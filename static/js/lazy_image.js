// Images of the service that load when they come near the screen, a few at a time. What fails is tried again: after a
// pause, or once somebody has signed in again; only what the service does not have is given up.

import { fetchImage, session } from "./api.js";

const MAX_CONCURRENT = 4;
const LONGEST_PAUSE_SECONDS = 30;
const UNREACHABLE = 0, UNAUTHORIZED = 401;
const PASSING_STATUSES = new Set([408, 429]);
const ROOT_MARGIN = "400px";

const waiting = [];
const shut = []; // refused for want of a session
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

session.addEventListener("signed-in", () => {
  waiting.push(...shut.splice(0));
  next();
});

async function next() {
  if (running >= MAX_CONCURRENT || !waiting.length) return;
  const pause = pausedUntil - Date.now();
  if (pause > 0) return void setTimeout(next, pause);
  running += 1;
  const task = waiting.shift();
  try {
    if (wanted.get(task.image)?.address === task.address) await load(task);
  } finally {
    running -= 1;
    next();
    next();
  }
}

async function load(task) {
  let blob;
  try {
    blob = await fetchImage(task.address);
  } catch (problem) {
    return later(task, problem);
  }
  if (!wanted.has(task.image)) return;
  task.image.src = URL.createObjectURL(blob);
  await task.image.decode().catch(() => {});
  if (wanted.has(task.image)) task.onready(task.image); // else it was released while it was decoded
}

/** What befalls the whole service holds the others back too: that it is busy, or cannot be reached or breaks off. */
function later(task, { status = UNREACHABLE, retryAfterSeconds }) {
  if (status === UNAUTHORIZED) return void shut.push(task);
  if (status >= 400 && status < 500 && !PASSING_STATUSES.has(status)) return; // its words remain
  const again = { ...task, tries: task.tries + 1 };
  const milliseconds = 1000 * (retryAfterSeconds ?? Math.min(LONGEST_PAUSE_SECONDS, 2 ** task.tries));
  if (retryAfterSeconds || status === UNREACHABLE) {
    pausedUntil = Date.now() + milliseconds;
    waiting.unshift(again);
  } else setTimeout(() => {
    waiting.push(again);
    next();
  }, milliseconds);
}
