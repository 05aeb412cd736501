// The state of the service, always in sight: a word with a colour and the model at work, reasons and figures behind it,
// and the notice with the command that fixes what is missing.

import * as api from "./api.js";
import { withCommand } from "./shell_command.js";
import { el, find, setAttribute, setText } from "./dom.js";
import { bytes, duration, sentenceCase } from "./format.js";
import { text, textOf } from "./text.js";

const POLL_SECONDS = 10;
const FAST_POLL_SECONDS = 2;
/** Each word of health with its tone; `offline` is what the page itself finds. */
const HEALTH_TONES = {
  ready: "good", busy: "good", starting: "waiting", degraded: "flawed", failing: "bad", draining: "waiting", offline: "bad",
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
      if (!this.config || (word !== "starting" && this.#word === "starting") || this.#word === "offline") await this.#configure();
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
    this.#notices();
    this.dispatchEvent(new Event("configured"));
  }

  #draw(word) {
    const tone = HEALTH_TONES[word] ?? "waiting";
    const chip = find("service-chip");
    setAttribute(chip, "data-tone", tone);
    setText(find("service-word"), textOf("health", word) ?? sentenceCase(word));
    const model = word === "offline" ? "" : this.config?.default_model ?? "";
    setText(find("service-model"), [this.state?.device?.name, model].filter(Boolean).join(" · "));
    const reasons = word === "offline" ? [text("service.unreachable")] : this.state?.reasons ?? [];
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
      [text("service.device"), [device.name, device.reason && `(${device.reason})`].filter(Boolean).join(" ")],
      [text("service.precision"), [precision.name, precision.reason && `(${precision.reason})`].filter(Boolean).join(" ")],
      [text("service.model"), this.config?.default_model ?? text("service.no_model")],
      [text("service.queue"), text("service.queue_state", { count: queue.queued, working: queue.processing, limit: queue.limit })],
      [text("service.speed"), state.seconds_per_megapixel ? text("service.seconds_per_megapixel", { seconds: state.seconds_per_megapixel }) : text("service.no_speed")],
      [text("service.memory"), text("service.memory_state", { free: bytes(resources.memory_available_bytes), total: bytes(resources.memory_total_bytes) })],
      [text("service.uptime"), duration(state.uptime_seconds)],
      [text("service.models"), (this.config?.models ?? []).filter(({ installed }) => installed).map(({ name }) => name).join(", ") || text("service.no_models")],
    ];
    find("service-facts").replaceChildren(...rows.filter(([, value]) => value)
      .flatMap(([term, value]) => [el("dt", {}, term), el("dd", {}, value)]));
  }

  /** What is no fault but should be known, such as the small model that ships with the project. */
  #notices() {
    const { notes = [], embedded_model: embedded = false } = this.config;
    find("notice").hidden = !embedded && !notes.length;
    const sentences = notes.length ? notes : [text("service.embedded_model")];
    find("notice").replaceChildren(...sentences.map((sentence) => el("p", {}, withCommand(sentence))));
  }
}

let troubleShown = "";

function setTrouble(reasons) {
  if (troubleShown === reasons.join()) return;
  troubleShown = reasons.join();
  find("trouble").replaceChildren(...reasons.map((reason) => el("p", {}, withCommand(reason))));
}
