// The keys of the page in one table: what listens to them and the dialog that shows them read the same rows. They work
// wherever the focus is, but while somebody types or in a control that needs the key itself.

import { el, find, topDialog } from "./dom.js";
import { text } from "./text.js";

const STORAGE_KEY = "neural-image-restore.shortcuts";
const ARROWS = ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"];
const PAGES = ["PageUp", "PageDown"], ENDS = ["Home", "End"];

/** Each row: what it `does` (a name of the acts), its `keys`, the dialog in which it does so (none: anywhere), its text. */
export const SHORTCUTS = [
  { does: "move", keys: ARROWS, in: "viewer", words: "shortcut.move" },
  { does: "cut_far", keys: PAGES, in: "viewer", words: "shortcut.cut_far" },
  { does: "cut_end", keys: ENDS, in: "viewer", words: "shortcut.cut_end" },
  { does: "hold", keys: ["b", " "], in: "viewer", words: "shortcut.hold" },
  { does: "mode", keys: ["m"], in: "viewer", words: "shortcut.mode" },
  { does: "closer", keys: ["+", "="], in: "viewer", words: "shortcut.closer" },
  { does: "farther", keys: ["-"], in: "viewer", words: "shortcut.farther" },
  { does: "fit", keys: ["0"], in: "viewer", words: "shortcut.fit" },
  { does: "zoom_100", keys: ["1"], in: "viewer", words: "shortcut.zoom_100" },
  { does: "zoom_400", keys: ["4"], in: "viewer", words: "shortcut.zoom_400" },
  { does: "next", keys: ["n"], in: "viewer", words: "shortcut.next" },
  { does: "previous", keys: ["p"], in: "viewer", words: "shortcut.previous" },
  { does: "damage", keys: ["d"], in: "viewer", words: "shortcut.damage" },
  { does: "brush_dab", keys: ["Enter"], in: "viewer", words: "shortcut.brush_dab" },
  { does: "brush_swap", keys: ["x"], in: "viewer", words: "shortcut.brush_swap" },
  { does: "brush_smaller", keys: ["[", ","], in: "viewer", words: "shortcut.brush_smaller" },
  { does: "brush_larger", keys: ["]", "."], in: "viewer", words: "shortcut.brush_larger" },
  { does: "damage_undo", keys: ["z"], in: "viewer", words: "shortcut.damage_undo" },
  { does: "damage_redo", keys: ["y"], in: "viewer", words: "shortcut.damage_redo" },
  { does: "help", keys: ["?"], words: "shortcut.help" },
  { does: "close", keys: ["Escape"], words: "shortcut.close" }, // the browser's own, for every dialog
];
/** As they stand on keyboards; others as they are, in capitals. */
const KEY_SIGNS = { ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", "-": "−" };
const KEY_TEXTS = { " ": "key.space", PageUp: "key.page_up", PageDown: "key.page_down", Home: "key.home", End: "key.end", Escape: "key.escape", Enter: "key.enter" };

const TYPING = "textarea, select, [contenteditable], input:not([type=range], [type=checkbox], [type=radio], [type=file])";
const SLIDING = "input[type=range], input[type=radio]";
const PRESSED = "button, a[href], summary, label, input";

export class Shortcuts {
  #box = find("shortcuts");

  /**
   * `acts` gives a function for each name of the table, or none while there is nothing to act on; `hold` is called with
   * true and, once the key is up, with false.
   */
  constructor(acts) {
    this.acts = () => ({ ...acts(), help: () => this.open() });
    for (const id of ["shortcuts-open", "shortcuts-viewer"]) find(id).addEventListener("click", () => this.open());
    find("shortcuts-close").addEventListener("click", () => this.#box.close());
    addEventListener("popstate", () => this.#box.close()); // what it lay upon is left
    const choice = find("shortcuts-on");
    choice.checked = stored() !== "off";
    choice.addEventListener("change", () => store(choice.checked ? "on" : "off"));
    document.addEventListener("keydown", (event) => this.#keyDown(event));
    document.addEventListener("keyup", ({ key }) => rowOf(key)?.does === "hold" && acts().hold?.(false));
    addEventListener("blur", () => acts().hold?.(false));
  }

  /** Show the table. */
  open() {
    find("shortcuts-list").replaceChildren(...SHORTCUTS.flatMap(({ keys, words }) =>
      [el("dt", {}, ...keys.flatMap((key) => [el("kbd", {}, keyName(key)), " "])), el("dd", {}, text(words))]));
    if (!this.#box.open) this.#box.showModal();
  }

  #keyDown(event) {
    const row = rowOf(event.key);
    const act = row && this.acts()[row.does];
    if (!act || event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
    if (isTaken(event) || !this.#isHere(row) || (isCharacter(event.key) && !find("shortcuts-on").checked)) return;
    event.preventDefault();
    act(row.does === "hold" ? true : event);
  }

  /** A row of a dialog needs that dialog on top; one of everywhere any but those that ask for something else. */
  #isHere(row) {
    const top = topDialog()?.id;
    return row.in ? top === row.in : top !== "signin" && top !== "shortcuts";
  }
}

const rowOf = (key) => SHORTCUTS.find(({ keys }) => keys.includes(key.length === 1 ? key.toLowerCase() : key));

/** Whether the element with the focus needs this key itself. */
function isTaken({ key, target }) {
  if (!(target instanceof Element)) return false;
  if (target.closest(TYPING)) return true;
  const moves = [...ARROWS, ...PAGES, ...ENDS].includes(key);
  if (target.matches(SLIDING)) return moves || key === " ";
  if (key === " " || key === "Enter") return target.closest(PRESSED) !== null;
  const scrolls = moves && key !== ARROWS[0] && key !== ARROWS[1];
  return scrolls && target.matches("[data-scrolls]") && target.scrollHeight > target.clientHeight;
}

/** Letters, digits and signs: keys that somebody may hit who speaks to the computer, so they can be switched off. */
const isCharacter = (key) => key.length === 1 && key !== " ";

const keyName = (key) => (KEY_TEXTS[key] ? text(KEY_TEXTS[key]) : KEY_SIGNS[key] ?? key.toUpperCase());

function stored() {
  try {
    return localStorage.getItem(STORAGE_KEY);
  } catch {
    return null; // storage is off
  }
}

function store(value) {
  try {
    localStorage.setItem(STORAGE_KEY, value);
  } catch { /* the choice holds until the page is left */ }
}
