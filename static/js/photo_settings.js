// Settings for a single photo of the tray: the same form, lent to a dialog while it is open. A photo with settings of its
// own says so on its tile, and is sent in its place among the others.

import { announce, button, el, find, setText } from "./dom.js";
import { phrases } from "./settings_text.js";
import { contains, optionsOf } from "./settings_values.js";
import { text } from "./text.js";

const SEPARATOR = " · ";

export class PhotoSettings extends EventTarget {
  /** The photo whose settings are open, or null. */
  photo = null;
  #common = null; // what the others have, while the form is lent
  #box = find("photo-settings");

  /** Dispatches `change` when a photo got settings of its own, or gave them back. */
  constructor(settings, presets) {
    super();
    Object.assign(this, { settings, presets });
    find("photo-settings-save").addEventListener("click", () => this.#save());
    find("photo-settings-common").addEventListener("click", () => this.#forget(this.photo));
    find("photo-settings-close").addEventListener("click", () => this.#box.close());
    this.#box.addEventListener("close", () => this.#giveBack());
  }

  /** The values that a photo is restored with. */
  valuesOf(photo) {
    return photo.own?.values ?? this.#common?.values ?? this.settings.values();
  }

  /** The same as options of the service. */
  optionsOf(photo) {
    return optionsOf(this.valuesOf(photo));
  }

  /** Set the quality of a photo with settings of its own, else that of all. */
  choose(photo, quality) {
    if (!photo.own) return this.settings.choose(quality);
    photo.own = { ...photo.own, label: null, values: { ...photo.own.values, quality, model: "" } };
    this.dispatchEvent(new Event("change"));
  }

  /** Change some values of one photo only. */
  change(photo, values) {
    photo.own = { preset: null, label: null, values: { ...this.valuesOf(photo), ...values } };
    this.dispatchEvent(new Event("change"));
  }

  /** Lend the form to the dialog, with what this photo has. */
  open(photo) {
    const { settings, presets } = this;
    this.#common = { values: settings.values(), preset: presets.active };
    this.photo = photo;
    settings.remembers = false;
    setText(find("photo-settings-title"), text("photo_settings.title", { name: photo.file.name }));
    find("photo-settings-common").hidden = !photo.own;
    find("photo-settings-body").append(find("settings-body"));
    if (photo.own) this.#put(photo.own);
    this.#box.showModal();
    settings.dispatchEvent(new Event("change")); // times are those of this photo now
  }

  /** The pieces of a photo's tile: the button that opens its settings, and the line that tells them. */
  tileParts(photo) {
    const name = photo.file.name;
    const words = el("span", { class: "tile-own-words" });
    const own = el("span", { class: "tile-own", hidden: true }, words,
      button(text("photo_settings.remove", { name }), { symbol: "close", quiet: true, class: "round", onclick: () => this.#forget(photo) }));
    photo.ownParts = { own, words };
    const open = button(text("photo_settings.open", { name }), {
      symbol: "tune", quiet: true, class: "tile-settings", onclick: () => this.open(photo) });
    return [open, own];
  }

  /** Draw what the tiles say; what the others have may have changed. */
  draw(photos) {
    for (const photo of photos) {
      photo.ownParts.own.hidden = !photo.own;
      if (photo.own) setText(photo.ownParts.words, this.#words(photo.own));
    }
  }

  /** After the service offers other things: settings that it lost fall back, and are told. */
  fit(photos) {
    const lost = photos.filter(({ own }) => own).flatMap((photo) => {
      const { values, gone } = this.settings.fit(photo.own.values);
      photo.own = { ...photo.own, values };
      return gone;
    });
    const told = [...new Map(lost.map((one) => [`${one.name}: ${one.wanted}`, one])).values()];
    if (told.length) this.settings.dispatchEvent(new CustomEvent("gone", { detail: told }));
  }

  #words({ values, label }) {
    const common = this.#common?.values ?? this.settings.values();
    const what = label ?? (phrases(values, common).join(SEPARATOR) || text("photo_settings.same"));
    return text("photo_settings.own", { what });
  }

  /** Keep what the form says for this photo; where that is what the others have, it has none of its own. */
  #save() {
    const { photo, settings, presets } = this;
    const values = settings.values();
    const differs = !contains(values, this.#common.values);
    photo.own = differs ? { values, preset: presets.active, label: presets.wholeName } : null;
    announce(text(differs ? "photo_settings.kept" : "photo_settings.as_others", { name: photo.file.name }));
    this.#box.close();
  }

  #forget(photo) {
    photo.own = null;
    announce(text("photo_settings.as_others", { name: photo.file.name }));
    if (this.photo) return this.#box.close();
    photo.tile.querySelector(".tile-settings").focus();
    this.dispatchEvent(new Event("change"));
  }

  #put({ values, preset }) {
    this.presets.activate(preset);
    this.settings.apply(values);
  }

  /** The form goes back to its place, with what the others have. */
  #giveBack() {
    find("settings").append(find("settings-body"));
    this.photo = null;
    const common = this.#common;
    this.#common = null;
    this.#put(common);
    this.settings.remembers = true;
    this.presets.activate(common.preset);
    this.dispatchEvent(new Event("change"));
  }
}
