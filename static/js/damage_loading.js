// The damage that was found in a photo, fetched and made small enough for a canvas: above 16 megapixels a whole number of
// pixels becomes one, and the worst of them counts, so that no thin scratch is lost.

import * as api from "./api.js";
import { DamageMask, RIM_PIXELS } from "./damage_mask.js";
import { readGreyPng, writeGreyPng } from "./grey_png.js";

const MOST_PIXELS = 16e6;
const NOTHING_KEPT_STATUS = 404;

/** How many pixels of a photo's side become one. */
export const reductionOf = (width, height) => Math.max(1, Math.ceil(Math.sqrt((width * height) / MOST_PIXELS)));

/**
 * The mask of an attempt as it was used, `factor`, how many times smaller its sides are than the photo's, and whether
 * something was filled of which the mask was not kept.
 */
export async function loadDamage(jobId, attempt, signal) {
  const { original_width: width, original_height: height } = attempt;
  const factor = reductionOf(width, height), report = attempt.result.params?.repair;
  const reduced = { width: Math.ceil(width / factor), height: Math.ceil(height / factor) };
  const found = report ? await mapOf(jobId, attempt, "mask", factor, signal) : null;
  const probability = found && !report.own_mask ? await mapOf(jobId, attempt, "probability", factor, signal) : null;
  if (found) for (let at = 0; at < found.length; at += 1) found[at] = found[at] ? 1 : 0;
  const faces = (report?.faces ?? []).map((box) => box.map((side) => side / factor));
  const facts = { found, probability, faces, threshold: report?.threshold ?? 0.5, faceThreshold: report?.face_threshold };
  const mask = new DamageMask(reduced.width, reduced.height, { ...facts, rim: Math.ceil(RIM_PIXELS / factor) });
  return { factor, mask, isLost: !found && report?.share > 0 };
}

/** The mask as a file of the photo's own size. */
export const maskFile = (mask, { original_width: width, original_height: height }, factor) =>
  writeGreyPng(width, height, (row, y) => mask.rowInto(row, y, factor));

async function mapOf(jobId, attempt, which, factor, signal) {
  let file;
  try {
    file = await api.damageMap(jobId, attempt.id, which, signal);
  } catch (problem) {
    if (problem.status === NOTHING_KEPT_STATUS && problem.code === "no_damage_map") return null;
    throw problem;
  }
  let map, columns;
  await readGreyPng(file, (width, height) => {
    columns = Math.ceil(width / factor);
    map = new Uint8Array(columns * Math.ceil(height / factor));
  }, (row, y) => poolRow(row, map, Math.floor(y / factor) * columns, factor));
  return map;
}

/** Let the greatest of each `factor` values of a row count in a map, from `start` on. */
function poolRow(row, map, start, factor) {
  if (factor === 1) return map.set(row, start);
  for (let at = start, x = 0; x < row.length; at += 1) {
    for (const end = Math.min(row.length, x + factor); x < end; x += 1) if (row[x] > map[at]) map[at] = row[x];
  }
}
