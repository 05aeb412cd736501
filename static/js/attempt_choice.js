// Which two pictures of a photo are compared, where it was restored more than once: on the left the original or an
// attempt, on the right an attempt, to which facts, faces and download belong.

import { el, find } from "./dom.js";
import { moment } from "./format.js";
import { optionWords } from "./job_text.js";
import { text } from "./text.js";

const ORIGINAL = "";

export class AttemptChoice {
  #rows = [];

  /** `onchoose` gets the ids of the attempts on the right and on the left, null there for the original. */
  constructor(onchoose) {
    this.left = find("compare-left");
    this.right = find("compare-right");
    this.left.addEventListener("change", () => onchoose(this.right.value, this.left.value || null));
    this.right.addEventListener("change", () => {
      const { shown } = this;
      // What was on the right is compared with its successor, unless the original is.
      onchoose(this.right.value, shown.left && this.right.value === shown.left ? shown.right : shown.left);
    });
  }

  /** Offer the attempts at a photo (rows of a job and an attempt, oldest first); with one there is nothing to choose. */
  show(rows, right, left) {
    this.shown = { right, left };
    this.#rows = rows;
    find("compare-choice").hidden = rows.length < 2;
    this.right.replaceChildren(...rows.map((row) => option(row.attempt.id, nameOf(row, rows), right)));
    this.left.replaceChildren(option(ORIGINAL, text("choice.original"), left ?? ORIGINAL),
      ...rows.filter(({ attempt }) => attempt.id !== right).map((row) => option(row.attempt.id, nameOf(row, rows), left)));
  }

  /** What a side is called over its picture. */
  nameOf(id) {
    return nameOf(this.#rows.find(({ attempt }) => attempt.id === id), this.#rows);
  }
}

const option = (value, words, chosen) => el("option", { value, selected: value === chosen }, words);

/** The options that it was made with; with its number and time, since two may have been made alike. */
const nameOf = (row, rows) => text("choice.attempt", {
  number: rows.indexOf(row) + 1, options: optionWords(row.job), moment: moment(row.attempt.ended_at ?? row.job.created_at) });
