// Who is signed in, and what is left of the day's photos: one line beside the button that signs out.

import * as api from "./api.js";
import { find, setText } from "./dom.js";
import { moment } from "./format.js";
import { text } from "./text.js";

/** Ask the service and draw the line; only where callers are told apart. A refusal changes nothing. */
export async function showAccount() {
  try {
    setText(find("account"), words(await api.me()));
    find("account").hidden = false;
  } catch {
    // the next look, or the sign-in box, will tell
  }
}

function words({ name, role, photos_today: today }) {
  const who = text(role === "admin" ? "account.admin" : "account.who", { name });
  if (!today) return who;
  return `${who} ${text("account.left", { count: today.left, limit: today.limit, until: moment(today.resets_at) })}`;
}
