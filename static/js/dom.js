// Makes and finds elements. Text from outside only ever becomes a text node or an attribute's value, so no name or
// message can turn into markup.

const SVG = "http://www.w3.org/2000/svg";

export const find = (id) => document.getElementById(id);

/**
 * An element. `facts`: `class`, `on` (event name to listener), `data` (dataset), everything else an attribute; null
 * and false leave an attribute out, true sets it empty. Children are nodes or texts; null and false are left out.
 */
export function el(tag, facts = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(facts)) {
    if (name === "on") for (const [event, listener] of Object.entries(value)) made.addEventListener(event, listener);
    else if (name === "data") Object.assign(made.dataset, value);
    else if (name === "class") made.className = value;
    else setAttribute(made, name, value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

/** Set, or with null and false remove, one attribute; untouched when it already stands so. */
export function setAttribute(element, name, value) {
  if (value === null || value === undefined || value === false) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value === true ? "" : value))
    element.setAttribute(name, value === true ? "" : value);
}

/** Set a text, without touching the page when it already stands there. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** An icon of the sprite in index.html; it is decoration, the words stand beside it or in a label. */
export function icon(name) {
  const made = document.createElementNS(SVG, "svg");
  made.setAttribute("class", "icon");
  made.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#icon-${name}`);
  made.append(use);
  return made;
}

/** A button with an icon and words; `quiet` shows the icon alone and keeps the words as its label. */
export function button(words, { symbol = null, quiet = false, onclick, ...facts } = {}) {
  const label = quiet ? { "aria-label": words, title: words } : {};
  return el("button", { type: "button", on: onclick ? { click: onclick } : {}, ...label, ...facts },
    symbol && icon(symbol), !quiet && el("span", {}, words));
}

/** Run `work` before the next frame, however often it is asked for until then. */
export function oncePerFrame(work) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      work();
    });
  };
}

let announcing = 0;

/** Say one sentence to screen readers, politely; from within the open dialog, since they hear nothing behind it. */
export function announce(sentence) {
  const region = find("announcer");
  setText(region, "");
  const open = topDialog() ?? document.body;
  if (region.parentNode !== open) open.append(region);
  clearTimeout(announcing);
  announcing = setTimeout(() => setText(region, sentence), 100);
}

/** The dialog that lies above all others, or null. In the page they stand in the order in which they can cover each other. */
export const topDialog = () => [...document.querySelectorAll("dialog[open]")].at(-1) ?? null;
