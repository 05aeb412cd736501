// What can be done with a photo of the tray before it is sent, on its small picture: turn it to either side, look at a preview.

import { announce, button, el } from "./dom.js";
import { size } from "./format.js";
import { turned } from "./result_size.js";
import { text } from "./text.js";
import { turn } from "./thumbnail.js";

/** The buttons of a photo; `onturned` is called when it was turned, `onpreview` when a preview is wished for. */
export function tileActions(photo, { onturned, onpreview }) {
  const { name } = photo.file;
  const turnBy = (quarters) => {
    turnPhoto(photo, quarters);
    onturned(photo);
  };
  return el("div", { class: "tile-actions" },
    button(text("tray.turn_left", { name }), { symbol: "turn-left", quiet: true, onclick: () => turnBy(-1) }),
    button(text("tray.turn_right", { name }), { symbol: "again", quiet: true, onclick: () => turnBy(1) }),
    button(text("tray.preview_of", { name }), { symbol: "hold", quiet: true, onclick: () => onpreview(photo) }));
}

/** Turn a photo by quarters clockwise: its small picture, its facts, and what is sent with it. */
function turnPhoto(photo, quarters) {
  photo.rotate = (photo.rotate + 90 * quarters + 360) % 360;
  photo.facts = turned(photo.facts);
  turn(photo.canvas, quarters);
  const { width, height } = photo.facts;
  announce(text("tray.turned", { name: photo.file.name, size: width ? size(width, height) : "" }));
}
