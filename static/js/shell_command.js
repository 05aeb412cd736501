// Sentences that name a command to run: the command stands out and can be copied.

import { button, el, setText } from "./dom.js";
import { text } from "./text.js";

const COMMAND = /python3 run\.py [A-Za-z0-9 ._-]*[A-Za-z0-9_]/;

/** A sentence whose command, if it names one, stands out and can be copied. */
export function withCommand(sentence) {
  const found = sentence.match(COMMAND);
  if (!found) return sentence;
  const [command] = found;
  const code = el("code", {}, command);
  const copy = button(text("command.copy"), { symbol: "copy", quiet: true, class: "copy", onclick: async () => {
    try {
      await navigator.clipboard.writeText(command);
      setText(copied, text("command.copied"));
    } catch {
      getSelection().selectAllChildren(code); // no clipboard for this page: at least it is marked
    }
  } });
  const copied = el("span", { class: "copied", role: "status" });
  const after = sentence.slice(found.index + command.length);
  return el("span", {}, sentence.slice(0, found.index), code, copy, copied, after);
}
