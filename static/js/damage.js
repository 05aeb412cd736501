// "Damage" in the comparison: a button that opens the panel in which one sees what was found, and says what is repaired.
// Its modules and its style come when it is opened for the first time.

import { announce, el, find, setAttribute, setText } from "./dom.js";
import { text } from "./text.js";

export class Damage {
  #panel = null;
  #shown = null; // the job and the attempt that are looked at
  #open = false;
  #button = find("damage-open");

  /**
   * `compare` is the comparison that it lies on; `act` has enter() and leave(), called when the panel opens and closes,
   * sent(attempt, job) for the job that a mask made, onmissing(), and available(), whether photos can be repaired here.
   */
  constructor(compare, act) {
    Object.assign(this, { compare, act });
    this.#button.addEventListener("click", () => this.toggle());
  }

  /** Another attempt is looked at, or with null none. */
  show(job, attempt) {
    if (this.#shown?.attempt.id !== attempt?.id) this.close();
    this.#shown = attempt && { job, attempt };
    this.#button.hidden = !attempt || !this.#isOffered(attempt);
  }

  get isOpen() {
    return this.#open;
  }

  /** What keys do in it, beside or in place of those of the comparison. */
  get acts() {
    const own = this.#button.hidden ? {} : { damage: () => this.toggle() };
    return this.#open && this.#panel ? { ...own, ...this.#panel.acts } : own;
  }

  toggle() {
    if (this.#open) return this.close();
    return this.#enter();
  }

  /** Close the panel; what was painted is there again when it is opened for the same attempt. */
  close() {
    if (!this.#open) return;
    this.#open = false;
    const held = find("damage").contains(document.activeElement);
    setAttribute(this.#button, "aria-pressed", "false");
    this.#panel?.close();
    this.act.leave();
    if (held) this.#button.focus({ preventScroll: true });
  }

  /** The comparison is left: nothing is kept. */
  forget() {
    this.close();
    this.#panel?.forget();
    this.#shown = null;
  }

  /** Nothing can be sent any more: the photo was deleted. */
  withdraw() {
    this.close();
    this.#button.hidden = true;
  }

  /** Where the attempt was repaired there is something to see; elsewhere one can paint, if this machine can repair. */
  #isOffered({ result }) {
    return Boolean(result.params?.repair) || this.#canRepair({ result });
  }

  /** A mask belongs to one page, and only this machine fills what it marks. */
  #canRepair({ result }) {
    return result.backend === "local" && !(result.params?.pages > 1) && this.act.available();
  }

  async #enter() {
    this.#open = true;
    setAttribute(this.#button, "aria-pressed", "true");
    this.#panel ??= await this.#load();
    if (!this.#open) return;
    if (!this.#panel) {
      this.close();
      return this.act.onmissing();
    }
    this.act.enter();
    setText(find("hold-before"), text("damage.hold"));
    announce(text("damage.title"));
    const { job, attempt } = this.#shown;
    await this.#panel.open(job, attempt, this.#canRepair(attempt));
  }

  async #load() {
    const [found] = await Promise.all([import("./damage_panel.js").catch(() => null), styled("style/damage.css")]);
    return found && new found.DamagePanel(this.compare, {
      close: () => this.close(), sent: (attempt, job) => this.act.sent(attempt, job) });
  }
}

/** A style sheet is there, or cannot be had: the panel works without it. */
function styled(address) {
  return new Promise((resolve) => {
    document.head.append(el("link", { rel: "stylesheet", href: address, on: { load: resolve, error: resolve } }));
  });
}
