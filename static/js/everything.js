// One button for all results of all jobs: a ZIP, or several where one may not hold them all. The browser saves them
// itself, so that no archive passes through the memory of the page.

import * as api from "./api.js";
import { answered, say } from "./answers.js";
import { el } from "./dom.js";
import { text } from "./text.js";

const BETWEEN_MILLISECONDS = 1000; // browsers take downloads that start together for one

const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** The service sends a few archives at once: what finds no place is asked for again until another one has ended. */
async function whenFree(ask, tell = () => {}) {
  while (true) {
    try {
      return await ask();
    } catch (problem) {
      if (problem.code !== "too_many_archives") throw problem;
      tell(text("everything.waiting"));
      await sleep(1000 * problem.retryAfterSeconds);
    }
  }
}

/** Download everything at the press of a button; the answer has a link to each file where they are several. */
export async function downloadEverything(pressed) {
  const tell = (words) => say(pressed.line, "busy", words);
  const addresses = await answered(pressed, () => archives(tell), { busy: text("everything.looking") });
  if (!addresses) return;
  if (addresses.length === 1) say(pressed.line, "good", text("everything.started"));
  else say(pressed.line, "good", text("everything.parts", { count: addresses.length }), ...addresses.map(partLink));
  for (const [place, address] of addresses.entries()) {
    if (place > 0) await untilFree(address);
    save(address);
  }
}

/** The addresses of all archives, as each names the next. */
async function archives(tell) {
  const found = [api.EVERYTHING];
  for (let next; (next = await whenFree(() => api.archiveAfter(found.at(-1)), tell));) found.push(next);
  return found;
}

/** Wait until this archive has a place too, and between any two; what refuses it else is for the browser to show. */
async function untilFree(address) {
  await whenFree(() => api.archiveAfter(address)).catch(() => null);
  await sleep(BETWEEN_MILLISECONDS); // also for the place that the asking held
}

const partLink = (address, place) =>
  el("a", { class: "button small", href: address, download: "" }, text("everything.part", { number: place + 1 }));

function save(address) {
  const link = el("a", { href: address, download: "", hidden: true });
  document.body.append(link);
  link.click();
  link.remove();
}
