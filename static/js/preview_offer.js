// The offer of a preview, whose modules come with the first one that is opened: the first paint does without them.

import { find } from "./dom.js";

const WORTH_SECONDS = 20; // from here on a preview is offered; for less it only stands ready

export class PreviewOffer {
  #preview = null;
  #coming = null;

  /** `make` gives the preview from its class, `first` the photo to look at; `onmissing` is told when its modules cannot be had. */
  constructor({ make, first, onmissing }) {
    Object.assign(this, { make, onmissing });
    find("preview-open").addEventListener("click", () => this.open(first()));
  }

  /** Offer a look before work of so many seconds (null: nobody can tell); `any`: whether there is a photo to look at. */
  offer(seconds, any) {
    find("preview-open").disabled = !any;
    find("preview-offer").hidden = !any || !(seconds >= WORTH_SECONDS);
  }

  /** Show the panel for a photo of the tray. */
  async open(photo) {
    const preview = await this.#load();
    if (preview) preview.open(photo);
    else this.onmissing();
  }

  #load() {
    this.#coming ??= import("./preview.js").catch(() => (this.#coming = null)).then((found) =>
      found && (this.#preview ??= this.make(found.Preview)));
    return this.#coming;
  }
}
