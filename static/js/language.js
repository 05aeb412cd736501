// Which language the page speaks: the one that was chosen in this browser, else the first of the browser's own that there
// is a catalog for. A plain script in the head, so that the catalog is under way before the modules are.

(() => {
  const STORAGE_KEY = "neural-image-restore.language";
  const LANGUAGES = ["en", "de", "es"]; // each has its catalog in strings/
  const baseOf = (tag) => tag.split("-")[0].toLowerCase();
  let chosen = null;
  try {
    chosen = localStorage.getItem(STORAGE_KEY);
  } catch { /* storage is off */ }

  const spoken = navigator.languages.filter((tag) => LANGUAGES.includes(baseOf(tag)));
  const language = LANGUAGES.includes(chosen) ? chosen : baseOf(spoken[0] ?? "en");
  const root = document.documentElement;
  root.lang = language;
  root.dataset.locale = spoken.find((tag) => baseOf(tag) === language) ?? language; // numbers and dates as in its country
  const early = Object.assign(document.createElement("link"), { rel: "preload", as: "fetch", crossOrigin: "anonymous" });
  early.href = `strings/${language}.json`;
  document.head.append(early);

  addEventListener("DOMContentLoaded", () => {
    const menu = document.getElementById("language");
    menu.value = language;
    menu.addEventListener("change", () => {
      try {
        localStorage.setItem(STORAGE_KEY, menu.value);
      } catch { /* the choice cannot be kept */ }
      const waiting = document.body.classList.contains("has-tray"); // opening the page again would lose these photos
      document.getElementById("language-later").hidden = !waiting;
      if (!waiting) location.reload();
    });
  });
})();
