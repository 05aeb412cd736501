// The preview: a small part of a photo in each quality, side by side, before a long run begins. Closing it, or choosing
// another part, stops what is under way; the service keeps nothing of it.

import * as api from "./api.js";
import { announce, find, setText } from "./dom.js";
import { duration } from "./format.js";
import { PreviewPatches } from "./preview_patches.js";
import { PreviewPlace } from "./preview_place.js";
import { resultSize } from "./result_size.js";
import { QUALITIES } from "./status_text.js";
import { text, textOf } from "./text.js";

const WAITS = { too_many_previews: "preview.waiting", previews_full: "preview.full" }; // refusals that pass by themselves
const MODEL = "model"; // the key of the model that was chosen by name, beside those of the qualities

export class Preview {
  #box = find("preview");
  #patches = new PreviewPatches();
  #place = new PreviewPlace((at) => this.#ask(at));
  #run = null;
  #photo = null;
  #at = null; // where somebody wished to look; null: the service chooses

  /** `options` gives the options of a photo as they are chosen now; `choose` sets its quality. */
  constructor({ options, choose }) {
    Object.assign(this, { options, choose });
    find("preview-close").addEventListener("click", () => this.#box.close());
    find("preview-auto").addEventListener("click", () => this.#ask(null));
    find("preview-again").addEventListener("click", () => this.#ask(this.#at));
    this.#box.addEventListener("close", () => this.#leave());
    api.session.addEventListener("signed-out", () => this.#box.close());
  }

  /** Show the panel for a photo of the tray. */
  async open(photo) {
    if (!photo || this.#box.open) return;
    this.#photo = photo;
    setText(find("preview-name"), photo.file.name);
    this.#box.showModal();
    this.#ask(null);
    const seen = await this.#place.show(photo);
    if (this.#photo !== photo) return;
    find("preview-hint").hidden = !seen;
    find("preview-blind").hidden = seen;
  }

  /** Make the patches anew, around `at` or where the service finds most to see. */
  async #ask(at) {
    this.#run?.abort();
    const run = (this.#run = new AbortController());
    this.#at = at;
    this.#patches.clear();
    this.#tell(text("preview.sending"));
    try {
      await this.#whenFree(() => this.#receive(at, run.signal), run.signal);
    } catch (problem) {
      if (!run.signal.aborted) this.#tell(problem.message, true);
    }
    if (!run.signal.aborted) this.#patches.end();
  }

  /** One preview at a time, and few in all: what was just left ends its patch first, and this one waits for that. */
  async #whenFree(ask, signal) {
    while (!signal.aborted) {
      try {
        return await ask();
      } catch (problem) {
        const words = Object.hasOwn(WAITS, problem.code) && WAITS[problem.code];
        if (!words) throw problem;
        this.#tell(text(words));
        await new Promise((resolve) => setTimeout(resolve, 1000 * problem.retryAfterSeconds));
      }
    }
  }

  async #receive(at, signal) {
    const photo = this.#photo, { prompt, ...options } = this.options(photo); // what somebody wrote counts for the provider only
    const fields = { ...options, rotate: photo.rotate, ...at, ...(options.model && { qualities: QUALITIES.join(",") }) };
    let place = null, done = 0;
    await api.preview(photo.file, fields, (line) => {
      if (signal.aborted) return;
      if (place) this.#patches.show(keyOf(line.quality), line, line.model);
      else place = this.#begin(line, options, signal);
      const count = place.qualities.length;
      this.#tell(done < count ? text("preview.progress", { done, count }) : textOf("preview_place", place.chosen_by) ?? "");
      done += 1;
    }, signal);
  }

  /** The first line: where the part lies, how it looks there, and what will come. */
  #begin(place, options, signal) {
    const now = options.model ? MODEL : options.quality;
    this.#place.mark(place);
    const variants = place.qualities.map((quality) => {
      const key = keyOf(quality), name = textOf("quality", quality) ?? options.model;
      return { key, name, use: text(key === now ? "preview.keep" : "preview.use", { name }) };
    });
    this.#patches.begin(place.original, resultSize(place, Number(options.scale)), variants, (key) => this.#use(key, variants));
    this.#showTimes({ width: place.photo_width, height: place.photo_height }, options, signal);
    return place;
  }

  async #showTimes(size, options, signal) {
    const answer = await api.estimate([size], options).catch(() => null);
    if (!answer || signal.aborted) return;
    for (const { quality, seconds } of [...answer.qualities, { quality: null, seconds: answer.seconds }])
      this.#patches.showTime(keyOf(quality), seconds === null ? "" : text("preview.whole", { time: duration(seconds) }));
  }

  #use(key, variants) {
    if (key !== MODEL) this.choose(this.#photo, key);
    this.#box.close();
    announce(text("preview.chosen", { name: variants.find((one) => one.key === key).name }));
  }

  /** Say how it stands; what went wrong can be tried again. */
  #tell(words, wrong = false) {
    setText(find("preview-state"), words);
    find("preview-state").classList.toggle("wrong", wrong);
    find("preview-again").hidden = !wrong;
  }

  #leave() {
    this.#run?.abort();
    this.#run = this.#photo = this.#at = null;
    this.#place.clear();
    this.#patches.clear();
    this.#tell("");
    find("preview-hint").hidden = find("preview-blind").hidden = true;
  }
}

const keyOf = (quality) => quality ?? MODEL;
