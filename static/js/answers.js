// The answer to a press, given beside the button that was pressed: at work, done, or refused with the reason. A line for
// answers stands in each place that has buttons; screen readers hear the same sentence.

import { announce, el, setAttribute } from "./dom.js";

const DONE_MILLISECONDS = 8000;
const clearing = new WeakMap(); // line -> timer that clears it

/** A line for the answers of the buttons around it. */
export const answerLine = () => el("p", { class: "answer", hidden: true });

/** Say a sentence on a line in a tone (`busy`, `good`, `bad` or `ask`), with buttons or links behind it; none clears it. */
export function say(line, tone, words, ...more) {
  clearTimeout(clearing.get(line));
  const goesOn = tone === "busy" && line.dataset.tone === "busy" && !line.hidden; // how far it is need not be heard
  line.hidden = !words;
  line.dataset.tone = tone;
  line.replaceChildren(...(words ? [el("span", {}, words), ...more] : []));
  if (words && !goesOn) announce(words);
  if (words && tone === "good" && !more.length) clearing.set(line, setTimeout(() => (line.hidden = true), DONE_MILLISECONDS));
}

/**
 * Do what a button promises. `pressed` has the button and its line; while `work` runs the button is busy and the line
 * says `busy`, then what `done` makes of the outcome, or why it was refused. Gives the outcome, null when refused.
 */
export async function answered({ button, line }, work, { busy = "", done = () => "" } = {}) {
  if (button.getAttribute("aria-busy")) return null; // pressed again before the first press was answered
  setAttribute(button, "aria-busy", "true");
  say(line, "busy", busy);
  try {
    const outcome = await work();
    say(line, "good", done(outcome));
    return outcome ?? true;
  } catch (problem) {
    refuse(line, problem);
    return null;
  } finally {
    button.removeAttribute("aria-busy");
  }
}

/** Say why something was refused; a missing session has its own box. */
export function refuse(line, problem) {
  const isKnown = problem.status !== undefined;
  if (!isKnown && problem.name !== "AbortError") throw problem; // a fault of this page
  say(line, "bad", isKnown && problem.status !== 401 ? problem.message : "");
}
