// A model that is chosen by name counts in place of every quality, so it stands among the qualities as a choice of its own:
// choosing it unchecks them, and choosing a quality lets go of it. Both can never be meant at once.

import { find, setText } from "./dom.js";

export class ModelChoice {
  #before = null; // the quality that a model took the place of

  constructor(form) {
    this.form = form;
  }

  /**
   * Bring qualities and model into line. `pressed` is the field that was just changed, null for the form as a whole;
   * `local`: models are asked for on this machine only; `usual`: the quality where none was chosen before.
   */
  settle(pressed, local, usual) {
    const { quality, model } = this.form.elements;
    if (pressed?.name === "quality" && quality.value) model.value = "";
    const name = local ? model.value : "";
    if (quality.value) this.#before = quality.value;
    const place = find("model-choice-field");
    place.dataset.means = this.#before ?? usual; // for whoever keeps what stands in the form
    if (name) place.checked = true; // browsers do not find it by its empty value
    else if (!quality.value) quality.value = place.dataset.means;
    find("model-choice").hidden = find("model-note").hidden = !name;
    setText(find("model-choice-name"), name);
  }
}
