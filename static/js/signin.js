// The sign-in box: trades the key for a session cookie that only the browser sees. It keeps the key nowhere.

import * as api from "./api.js";
import { find, setText } from "./dom.js";
import { text } from "./text.js";

/**
 * Ask for the key whenever the service wants one. After each success `isOther` says whether somebody else than before has
 * signed in; then `onother` runs behind the box, which goes on hiding what the page still shows, else `onsignedin`.
 */
export function openSignIn({ isOther, onother, onsignedin }) {
  const box = find("signin"), form = find("signin-form"), field = find("signin-key");
  let needed = false;
  const ask = () => {
    needed = true;
    if (box.open) return;
    box.showModal();
    field.focus();
  };
  box.addEventListener("cancel", (event) => event.preventDefault()); // nothing can be seen without it
  box.addEventListener("close", () => needed && ask()); // browsers close it all the same at a second Escape or a step back
  api.session.addEventListener("signed-out", ask);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const key = field.value.trim();
    if (!key) return fail(text("signin.enter"));
    find("signin-go").disabled = true;
    try {
      await api.signIn(key);
      field.value = "";
      fail("");
      if (await isOther()) return onother();
      needed = false;
      box.close();
      onsignedin();
      api.session.dispatchEvent(new Event("signed-in"));
    } catch (problem) {
      fail(problem.message);
      field.select();
    } finally {
      find("signin-go").disabled = false;
    }
  });

  function fail(sentence) {
    setText(find("signin-problem"), sentence);
    field.setAttribute("aria-invalid", sentence ? "true" : "false");
  }
}
