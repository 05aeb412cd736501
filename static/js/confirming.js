// Deleting takes two presses: the first asks, at the button itself, and the question goes away when nobody answers.

import { say } from "./answers.js";
import { setText } from "./dom.js";
import { text } from "./text.js";

const ASKED_MILLISECONDS = 4000;

/** Whether this press is the second one; the first asks about `about`, what would be deleted. */
export function confirmed({ button, line }, about) {
  if (button.dataset.asked) return true;
  const words = button.querySelector("span"); // none where the button is only an icon
  const before = words?.textContent, label = button.getAttribute("aria-label");
  button.dataset.asked = "true";
  if (words) setText(words, text("job.really"));
  button.setAttribute("aria-label", text("job.really_label", { about }));
  say(line, "ask", text("job.press_again"));
  setTimeout(() => {
    delete button.dataset.asked;
    if (words) setText(words, before);
    button.setAttribute("aria-label", label);
    if (line.dataset.tone === "ask") say(line, "ask", "");
  }, ASKED_MILLISECONDS);
  return false;
}
