// Light or dark: as the system says, until somebody chooses. A plain script in the head, so that the first paint is
// right already.

(() => {
  const STORAGE_KEY = "neural-image-restore.theme";
  const system = matchMedia("(prefers-color-scheme: dark)");
  let chosen = null;
  try {
    chosen = localStorage.getItem(STORAGE_KEY);
  } catch { /* storage is off */ }

  const current = () => (["light", "dark"].includes(chosen) ? chosen : system.matches ? "dark" : "light");
  const apply = () => {
    document.documentElement.dataset.theme = current();
  };
  system.addEventListener("change", apply);
  apply();

  addEventListener("DOMContentLoaded", () => document.getElementById("theme").addEventListener("click", () => {
    chosen = current() === "dark" ? "light" : "dark";
    try {
      localStorage.setItem(STORAGE_KEY, chosen);
    } catch { /* it lasts as long as the page */ }
    apply();
  }));
})();
