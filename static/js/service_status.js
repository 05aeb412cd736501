// The state of the service, always in sight: a word with a colour and the model at work, reasons and figures behind it.

import * as api from "./api.js";
import { withCommand } from "./shell_command.js";
import { el, find, setAttribute, setText } from "./dom.js";
import { bytes, duration, sentenceCase } from "./format.js";
import { reasonText, text, textOf } from "./text.js";

const WATCHED_POLL_SECONDS = 0.9; // somebody looks at the chip, or photos are at work
const POLL_SECONDS = 10;
const START_POLL_SECONDS = 2;
const SOON_MILLISECONDS = 200;
const TOO_MANY_REQUESTS = 429;
/** Each word of health with its tone; `offline` is what the page itself finds. */
const HEALTH_TONES = {
  ready: "good", busy: "good", starting: "waiting", degraded: "flawed", failing: "bad", draining: "waiting", offline: "bad",
};

export class ServiceStatus extends EventTarget {
  #timer = 0;
  #word = "";
  #told = { at: -Infinity, counts: "" };

  constructor() {
    super();
    Object.assign(this, { state: null, config: null });
    document.addEventListener("visibilitychange", () => document.hidden || (this.#timer && this.poll()));
    addEventListener("focus", () => this.#timer && this.poll());
    find("service").addEventListener("toggle", () => this.state && this.#facts(this.state));
  }

  /**
   * Ask now and from then on; tells `configured` when the service offers something else than before, and `polled` when
   * its queue has changed, and every few seconds.
   */
  async poll() {
    clearTimeout(this.#timer);
    let word = "offline", refused = false;
    try {
      this.state = await api.status();
      word = this.state.status;
      const isNews = this.#word === "offline" || this.state.models_revision !== this.config?.models_revision;
      if (!this.config || (word !== "starting" && this.#word === "starting") || isNews) await this.#configure();
    } catch (problem) {
      if (problem.status === 401) return; // the sign-in box asks; after it we are called again
      if (problem.status) word = this.#word || "starting";
      refused = problem.status === TOO_MANY_REQUESTS;
    }
    this.#word = word;
    this.#draw(word);
    this.#tell(word);
    clearTimeout(this.#timer); // of another poll that ended meanwhile
    this.#timer = setTimeout(() => this.poll(), 1000 * (refused ? POLL_SECONDS : this.#pause(word)));
  }

  /** Something happened here: ask at once, but once for all that happens together. */
  pollSoon() {
    if (!this.#timer) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.poll(), SOON_MILLISECONDS);
  }

  /** Seconds until the next look: the chip is true within one while somebody looks at it or waits for a photo. */
  #pause(word) {
    if (["offline", "starting", "draining"].includes(word)) return START_POLL_SECONDS;
    if (document.hidden) return POLL_SECONDS;
    return word === "busy" || waitingPhotos(this.state) > 0 || document.hasFocus() ? WATCHED_POLL_SECONDS : POLL_SECONDS;
  }

  #tell(word) {
    const { queue } = this.state ?? {};
    const counts = [word, waitingPhotos(this.state), queue?.processing, queue?.completed].join();
    if (counts === this.#told.counts && performance.now() - this.#told.at < 1000 * POLL_SECONDS) return;
    this.#told = { at: performance.now(), counts };
    if (this.state) this.#facts(this.state);
    this.dispatchEvent(new Event("polled"));
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
    const tone = HEALTH_TONES[word] ?? "waiting";
    const chip = find("service-chip");
    setAttribute(chip, "data-tone", tone);
    setText(find("service-word"), textOf("health", word) ?? sentenceCase(word));
    const waiting = word === "offline" ? 0 : waitingPhotos(this.state);
    setText(find("service-waiting"), waiting ? text("service.waiting", { count: waiting }) : "");
    const model = word === "offline" ? "" : this.config?.default_model ?? "";
    setText(find("service-model"), [this.state?.device?.name, model].filter(Boolean).join(" · "));
    const reasons = word === "offline" ? [text("service.unreachable")] : this.state?.causes?.map(reasonText) ?? this.state?.reasons ?? [];
    showSentences(find("service-reasons"), "li", reasons);
    const grave = ["failing", "degraded", "offline"].includes(word) && reasons.length > 0;
    find("trouble").hidden = !grave;
    find("trouble").dataset.tone = tone;
    if (grave) showSentences(find("trouble"), "p", reasons);
  }

  /** The figures behind the chip, only while they are seen. */
  #facts(state) {
    if (!find("service").open) return;
    const { queue, device, precision, resources } = state;
    const rows = [
      [text("service.device"), [device.name, device.reason && `(${device.reason})`].filter(Boolean).join(" ")],
      [text("service.precision"), [precision.name, precision.reason && `(${precision.reason})`].filter(Boolean).join(" ")],
      [text("service.model"), this.config?.default_model ?? text("service.no_model")],
      [text("service.queue"), text("service.queue_state", {
        count: waitingPhotos(state), working: queue.processing - waitingPhotos(state) + queue.queued, limit: queue.limit })],
      [text("service.speed"), state.seconds_per_megapixel ? text("service.seconds_per_megapixel", { seconds: state.seconds_per_megapixel }) : text("service.no_speed")],
      [text("service.memory"), text("service.memory_state", { free: bytes(resources.memory_available_bytes), total: bytes(resources.memory_total_bytes) })],
      [text("service.uptime"), duration(state.uptime_seconds)],
      [text("service.models"), (this.config?.models ?? []).filter(({ installed }) => installed).map(({ name }) => name).join(", ") || text("service.no_models")],
    ];
    find("service-facts").replaceChildren(...rows.filter(([, value]) => value)
      .flatMap(([term, value]) => [el("dt", {}, term), el("dd", {}, value)]));
  }
}

/** Photos that wait, those among them that were read ahead already. */
const waitingPhotos = (state) => state?.queue.waiting ?? state?.queue.queued ?? 0;

/** Sentences as elements of one kind; those that stand there already stay, with what somebody marked in them. */
function showSentences(place, tag, sentences) {
  if (place.dataset.shown === sentences.join()) return;
  place.dataset.shown = sentences.join();
  place.replaceChildren(...sentences.map((sentence) => el(tag, {}, withCommand(sentence))));
}
