// The state of the service, always in sight: a word with a colour and the model at work, reasons and figures behind it.

import * as api from "./api.js";
import { withCommand } from "./shell_command.js";
import { el, find, setAttribute, setText } from "./dom.js";
import { bytes, duration, plural, sentenceCase } from "./format.js";

const POLL_SECONDS = 10;
const FAST_POLL_SECONDS = 2;
/** Each word of health with what the chip says and its tone; `offline` is what the page itself finds. */
const HEALTH = {
  ready: ["Ready", "good"], busy: ["Restoring", "good"], starting: ["Starting", "waiting"],
  degraded: ["Limited", "flawed"], failing: ["Cannot restore", "bad"], draining: ["Shutting down", "waiting"],
  offline: ["Not reachable", "bad"],
};

export class ServiceStatus extends EventTarget {
  #timer = 0;
  #word = "";

  constructor() {
    super();
    Object.assign(this, { state: null, config: null });
    document.addEventListener("visibilitychange", () => document.hidden || (this.#timer && this.poll()));
  }

  /** Ask now and from then on; tells `configured` when the service offers something else than before. */
  async poll() {
    clearTimeout(this.#timer);
    let word = "offline";
    try {
      this.state = await api.status();
      word = this.state.status;
      const isNews = this.#word === "offline" || this.state.models_revision !== this.config?.models_revision;
      if (!this.config || (word !== "starting" && this.#word === "starting") || isNews) await this.#configure();
    } catch (problem) {
      if (problem.status === 401) return; // the sign-in box asks; after it we are called again
      if (problem.status) word = this.#word || "starting";
    }
    this.#word = word;
    this.#draw(word);
    this.dispatchEvent(new Event("polled"));
    const soon = ["offline", "starting", "draining"].includes(word);
    this.#timer = setTimeout(() => this.poll(), 1000 * (soon ? FAST_POLL_SECONDS : POLL_SECONDS));
  }

  /** Stop asking, as when the session ended. */
  stop() {
    clearTimeout(this.#timer);
    this.#timer = 0;
  }

  async #configure() {
    this.config = await api.config();
    this.dispatchEvent(new Event("configured"));
  }

  #draw(word) {
    const [words, tone] = HEALTH[word] ?? [sentenceCase(word), "waiting"];
    const chip = find("service-chip");
    setAttribute(chip, "data-tone", tone);
    setText(find("service-word"), words);
    const model = word === "offline" ? "" : this.config?.default_model ?? "";
    setText(find("service-model"), [this.state?.device?.name, model].filter(Boolean).join(" · "));
    const reasons = word === "offline" ? ["The service cannot be reached; this page keeps trying."] : this.state?.reasons ?? [];
    find("service-reasons").replaceChildren(...reasons.map((reason) => el("li", {}, withCommand(reason))));
    if (this.state) this.#facts(this.state);
    const grave = ["failing", "degraded", "offline"].includes(word) && reasons.length > 0;
    find("trouble").hidden = !grave;
    find("trouble").dataset.tone = tone;
    if (grave) setTrouble(reasons);
  }

  #facts(state) {
    const { queue, device, precision, resources } = state;
    const rows = [
      ["Device", [device.name, device.reason && `(${device.reason})`].filter(Boolean).join(" ")],
      ["Precision", [precision.name, precision.reason && `(${precision.reason})`].filter(Boolean).join(" ")],
      ["Model", this.config?.default_model ?? "none installed"],
      ["Queue", `${plural(queue.queued, "photo")} waiting, ${queue.processing} in work, room for ${queue.limit}`],
      ["Speed", state.seconds_per_megapixel ? `${state.seconds_per_megapixel.toFixed(2)} s per megapixel of result` : "measured with the first photo"],
      ["Memory", `${bytes(resources.memory_available_bytes)} free of ${bytes(resources.memory_total_bytes)}`],
      ["Running for", duration(state.uptime_seconds)],
      ["Models", (this.config?.models ?? []).filter(({ installed }) => installed).map(({ name }) => name).join(", ") || "none"],
    ];
    find("service-facts").replaceChildren(...rows.filter(([, value]) => value)
      .flatMap(([term, value]) => [el("dt", {}, term), el("dd", {}, value)]));
  }
}

let troubleShown = "";

function setTrouble(reasons) {
  if (troubleShown === reasons.join()) return;
  troubleShown = reasons.join();
  find("trouble").replaceChildren(...reasons.map((reason) => el("p", {}, withCommand(reason))));
}
