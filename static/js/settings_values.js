// The values of the settings form as plain data: read from it, fitted to what it offers, written into it, and as options
// of a restoration. A value is a text, of a checkbox true or false; strengths are percent.

const LOSSY_FORMATS = new Set(["auto", "jpg", "webp", "avif"]);
const PAGES_FORMATS = new Set(["auto", "tiff"]);
/** Scratches and dust are left as they are. */
export const REPAIR_OFF = "off";
/** What is surely damage is repaired. */
export const REPAIR_AUTO = "auto";
const LOCAL_OPTIONS = ["model", "repair", "denoise", "face_model", "color_correction", "color_strength", "pages"];

/** Whether results of this format can be smaller by being worse. */
export const isLossy = (format) => LOSSY_FORMATS.has(format);

/** What stands in a form, by the names of its fields; one that takes the place of others says what it `means` of them. */
export function readValues(form) {
  const values = {};
  for (const field of form.elements) {
    if (!field.name || (field.type === "radio" && !field.checked)) continue;
    values[field.name] = field.type === "checkbox" ? field.checked : field.dataset.means ?? field.value;
  }
  return values;
}

/** Put values into a form that offers them, as `fitValues` gives them. */
export function writeValues(form, values) {
  for (const field of form.elements) {
    if (!Object.hasOwn(values, field.name)) continue;
    const value = values[field.name];
    if (field.type === "checkbox") field.checked = value;
    else if (field.type === "radio") field.checked = field.value === value;
    else field.value = value;
  }
}

/**
 * Values as this form can take them. `gone` names those that it does not offer (any more), each with the value that
 * was `wanted` and the one `now` in its place; fields that the form never had are left out.
 */
export function fitValues(form, values) {
  const fitted = {}, gone = [];
  for (const [name, wanted] of Object.entries(values)) {
    const fields = [...form.elements].filter((field) => field.name === name && field.dataset.means === undefined);
    if (!fields.length) continue;
    if (wanted === "" && fields[0].type === "radio" && !fields.some(({ value }) => value === "")) continue; // nothing was wished
    fitted[name] = fit(fields, wanted);
    if (String(fitted[name]) !== String(wanted)) gone.push({ name, wanted: String(wanted), now: fitted[name] });
  }
  return { values: fitted, gone };
}

function fit([field, ...others], wanted) {
  if (field.type === "checkbox") return wanted === true;
  const offered = field.tagName === "SELECT" ? [...field.options] : field.type === "radio" ? [field, ...others] : null;
  if (offered) return (offered.find(({ value }) => value === String(wanted)) ?? offered[0])?.value ?? "";
  if (field.type !== "range") return String(wanted);
  const number = Number.parseFloat(wanted);
  return String(Number.isFinite(number) ? Math.min(field.max, Math.max(field.min, number)) : field.value);
}

/** Whether a model that is named takes the place of every quality; elsewhere than here there are none. */
const takesModel = ({ model, backend }) => Boolean(model) && (backend || "local") === "local";

/** The options as the service names them; those that say nothing, or nothing there, are left out. */
export function optionsOf(values) {
  const found = {
    backend: values.backend || "local", quality: takesModel(values) ? "" : values.quality, scale: values.scale,
    face_enhance: String(values.face_enhance), face_strength: String(values.face_strength / 100),
    output_format: values.output_format, metadata: values.metadata,
    model: values.model, face_model: values.face_model, denoise: values.denoise,
  };
  if (values.color_correction) {
    Object.assign(found, { color_correction: "auto", color_strength: String(values.color_strength / 100) });
  }
  if (values.repair && values.repair !== REPAIR_OFF) found.repair = values.repair;
  if (isLossy(found.output_format)) found.output_quality = values.output_quality;
  if (values.pages !== "first" && PAGES_FORMATS.has(found.output_format)) found.pages = values.pages;
  if (values.partial !== "refuse") found.partial = values.partial;
  if (found.backend !== "local") {
    found.prompt = values.prompt.trim();
    for (const name of LOCAL_OPTIONS) delete found[name];
  }
  return Object.fromEntries(Object.entries(found).filter(([, value]) => value !== "" && value !== undefined));
}

/** Options as the service has them, as values of the form; null means the field's own default. */
export function valuesOf(options) {
  return Object.fromEntries(Object.entries(options).map(([name, value]) => {
    if (name === "color_correction") return [name, value === "auto"];
    if (name === "face_strength" || name === "color_strength") return [name, String(Math.round(100 * value))];
    return [name, typeof value === "boolean" ? value : String(value ?? "")];
  }));
}

/** Whether all of `some` stand so among `values`. */
export const contains = (values, some) => Object.entries(some).every(([name, value]) => values[name] === value);
