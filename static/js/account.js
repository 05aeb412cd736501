// Who is signed in, and what is left of the day's photos: one line beside the button that signs out. It knows whose
// photos stand on the page, and notices when somebody else takes over.

import * as api from "./api.js";
import { find, setText } from "./dom.js";
import { moment } from "./format.js";
import { text } from "./text.js";

let owner = null; // of what stands on the page

/**
 * Ask the service and draw the line; only where callers are told apart. A refusal changes nothing; `somebody-else` of
 * the session tells that another one has signed in, as in another tab.
 */
export async function showAccount() {
  try {
    const me = await api.me();
    if (owner !== null && me.owner !== owner) return void api.session.dispatchEvent(new Event("somebody-else"));
    owner = me.owner;
    setText(find("account"), words(me));
    find("account").hidden = false;
  } catch {
    // the next look, or the sign-in box, will tell
  }
}

/** Whether another one than before has signed in; where nobody knows who it was, that is `unknown`. Refusals are thrown. */
export async function isSomebodyElse(unknown) {
  const before = owner;
  ({ owner } = await api.me());
  return before === null ? unknown : before !== owner;
}

function words({ name, role, photos_today: today }) {
  const who = text(role === "admin" ? "account.admin" : "account.who", { name });
  if (!today) return who;
  return `${who} ${text("account.left", { count: today.left, limit: today.limit, until: moment(today.resets_at) })}`;
}
