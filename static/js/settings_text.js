// The settings in words: what a preset sets, in what one photo differs from the others, and what is not offered any more.

import { factor, percent } from "./format.js";
import { backendText } from "./status_text.js";
import { text, textOf } from "./text.js";
import { REPAIR_OFF, isLossy } from "./settings_values.js";

const LABELS = {
  backend: "settings.where", quality: "settings.quality", model: "settings.model", scale: "settings.scale",
  face_enhance: "settings.faces", face_strength: "settings.face_strength", face_model: "settings.face_model",
  denoise: "settings.denoise", repair: "settings.repair", color_correction: "settings.color_correction", color_strength: "settings.color_strength",
  output_format: "settings.format", output_quality: "settings.output_quality", pages: "settings.pages",
  metadata: "settings.metadata", partial: "settings.partial", prompt: "settings.prompt",
};
const DENOISE = { 0: "denoise.least", 0.25: "denoise.little", 0.5: "denoise.half", 0.75: "denoise.much", 1: "denoise.most" };
// What says enough without its label.
const BARE = new Set(["backend", "quality", "model", "scale"]);
// Told together: a switch, and how strong it is where it is on.
const STRENGTHS = { face_enhance: "face_strength", color_correction: "color_strength" };

/** One value in the words of the form. */
export function valueText(name, value) {
  if (typeof value === "boolean") return text(value ? "settings.on" : "settings.off");
  if (name === "scale") return factor(value);
  if (name.endsWith("_strength")) return percent(value / 100);
  if (name === "backend") return backendText(value);
  if (name === "output_format") return textOf("format", value) ?? value;
  if (name === "denoise") return text(DENOISE[value] ?? "denoise.default");
  if (name === "model") return value || text("settings.model_by_quality");
  if (name === "face_model") return value || text("settings.model_by_service");
  return textOf(name, value) ?? String(value);
}

/** The values in short phrases; with `others` only what differs from those, else only what is set at all. */
export function phrases(values, others = null) {
  return Object.keys(LABELS).filter((name) => isTold(name, values, others)).map((name) => {
    const strength = STRENGTHS[name];
    const value = strength && values[name] ? valueText(strength, values[strength]) : valueText(name, values[name]);
    return BARE.has(name) ? value : text("settings.phrase", { setting: text(LABELS[name]), value });
  });
}

function isTold(name, values, others) {
  const value = values[name];
  if (value === undefined || Object.values(STRENGTHS).includes(name) || !matters(name, values)) return false;
  if (BARE.has(name) && value === "") return false;
  if (!others) return value !== "" && !(name === "repair" && value === REPAIR_OFF) && !(name === "color_correction" && !value) && !(name === "backend" && value === "local");
  if (value !== others[name]) return true;
  const strength = STRENGTHS[name];
  return Boolean(strength && value && values[strength] !== others[strength]);
}

/** Whether a value does anything beside the others; those of a preset need not be all. */
function matters(name, { backend = "local", model, face_enhance: faces = true, output_format: format }) {
  if (name === "quality") return !model || backend !== "local"; // a model takes its place
  if (name === "prompt") return backend !== "local";
  if (["model", "face_model", "denoise", "repair", "color_correction", "pages"].includes(name) && backend !== "local") return false;
  if (name === "face_model") return faces;
  return name !== "output_quality" || isLossy(format);
}

/** One sentence for a value that is not offered; see `fitValues`. */
export const goneText = ({ name, wanted, now }) =>
  text("settings.gone", { setting: text(LABELS[name] ?? name), wanted: valueText(name, wanted), now: valueText(name, now) });
