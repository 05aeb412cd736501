// Says above the page which settings of an earlier visit, of a preset or of a photo are not offered any more and what
// stands in their place, until it is dismissed.

import { button, el, find } from "./dom.js";
import { goneText } from "./settings_text.js";
import { text } from "./text.js";

/** Show the notice whenever `settings` tells `gone`. */
export function openGoneNotice(settings) {
  const box = find("gone");
  settings.addEventListener("gone", ({ detail }) => {
    const close = () => {
      box.hidden = true;
      settings.acceptGone();
    };
    box.replaceChildren(
      el("div", { class: "notice-rows" }, el("p", {}, text("settings.gone_title")),
        el("ul", {}, ...detail.map((one) => el("li", {}, goneText(one))))),
      button(text("notice.dismiss"), { symbol: "close", quiet: true, class: "round", onclick: close }));
    box.hidden = false;
  });
}
