// The ways in: drop files or folders anywhere on the page, choose them, pick a folder, paste a picture.

import { find } from "./dom.js";
import { locale, text } from "./text.js";

const BY_NAME = new Intl.Collator(locale, { numeric: true });
const PICTURE_NAME = /\.(jpg|jpeg|jpe|jfif|mpo|png|webp|tif|tiff|bmp|avif|heic|heif)$/i;

/** Watch all ways in; `onfiles` gets a list of files each time. */
export function openFileInput(onfiles) {
  for (const id of ["choose-files", "choose-folder"]) {
    find(id).addEventListener("change", (event) => {
      const chosen = [...event.target.files];
      event.target.value = "";
      onfiles(id === "choose-folder" ? ordered(chosen.filter((file) => PICTURE_NAME.test(file.name))) : chosen);
    });
  }
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (!files.length) return;
    event.preventDefault();
    onfiles(files.map(named));
  });
  watchDrops(onfiles);
}

/** A picture from the clipboard is always called image.png; with the time in its name, several differ. */
function named(file) {
  if (file.name && file.name !== "image.png") return file;
  const time = new Date().toTimeString().slice(0, 8).replaceAll(":", "-");
  return new File([file], `${text("desk.pasted", { time })}.${file.type.split("/")[1] || "png"}`, { type: file.type });
}

/** The whole page takes drops, so nobody has to aim, and a near miss does not open the file in the browser. */
function watchDrops(onfiles) {
  let depth = 0;
  const hover = (on) => document.body.classList.toggle("dropping", on);
  const carriesFiles = (event) => [...event.dataTransfer.types].includes("Files");
  document.addEventListener("dragenter", (event) => {
    if (!carriesFiles(event)) return;
    depth += 1;
    hover(true);
  });
  document.addEventListener("dragleave", () => {
    depth = Math.max(0, depth - 1);
    if (!depth) hover(false);
  });
  document.addEventListener("dragover", (event) => carriesFiles(event) && event.preventDefault());
  document.addEventListener("drop", async (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    depth = 0;
    hover(false);
    onfiles(await dropped(event.dataTransfer));
  });
}

/** Files of a drop, with everything inside dropped folders. The entries must be taken before the first wait. */
async function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.());
  if (!entries.some((entry) => entry?.isDirectory)) return [...transfer.files];
  const found = await Promise.all(entries.filter(Boolean).map((entry) => filesOf(entry, false)));
  return ordered(found.flat());
}

/** Folders come in no order at all; people expect photo 2 before photo 10. */
function ordered(files) {
  return files.sort((one, other) =>
    BY_NAME.compare(one.webkitRelativePath || one.name, other.webkitRelativePath || other.name));
}

async function filesOf(entry, inFolder) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject)).catch(() => null);
    return file && (!inFolder || PICTURE_NAME.test(file.name)) ? [file] : [];
  }
  const reader = entry.createReader(), found = [];
  while (true) {
    const part = await new Promise((resolve) => reader.readEntries(resolve, () => resolve([])));
    if (!part.length) return found; // a reader gives at most a hundred at a time
    found.push(...(await Promise.all(part.map((child) => filesOf(child, true)))).flat());
  }
}
