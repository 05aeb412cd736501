// Dragging a result out of the page, into a folder or another program: Chromium saves it under its own name, and every
// browser hands the address on.

const TYPES = { jpg: "image/jpeg", png: "image/png", webp: "image/webp", tif: "image/tiff", avif: "image/avif" };

/** Let an element be dragged as a file; `attempt` gives the finished attempt that it stands for, or null. */
export function dragOut(element, attempt) {
  element.addEventListener("dragstart", (event) => {
    const found = attempt();
    if (!found) return event.preventDefault();
    const { name, type, address } = fileOf(found);
    event.dataTransfer.effectAllowed = "copy";
    event.dataTransfer.setData("DownloadURL", `${type}:${name}:${address}`);
    event.dataTransfer.setData("text/uri-list", address);
  });
}

/** As the service itself names it for saving, but for the scale. */
function fileOf({ original_filename, result }) {
  const ending = result.url.split(".").at(-1);
  const stem = original_filename.replace(/(?<=.)\.[^.]{1,5}$/, "").replaceAll(/[:/\\]/g, "_");
  return { name: `${stem}_restored.${ending}`, type: TYPES[ending] ?? "application/octet-stream", address: new URL(result.url, location.href).href };
}
