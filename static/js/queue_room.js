// Whether the service's queue has room for the photos that come next, so that no megabytes are sent in vain.

import * as api from "./api.js";
import { text } from "./text.js";

/** The most photos that one job can have. */
export const largestJob = ({ max_batch_size: batch, queue_limit: all, queue_limit_per_owner: own }) => Math.min(batch, all, own ?? Infinity);

/** One sentence that says what so many photos wait for; null when they can be sent. Who has a share of the queue waits for that too. */
export async function reasonToWait(count, limits) {
  const { queue } = await api.status();
  if (queue.queued + count > limits.queue_limit) return text("submission.room", { count: queue.queued });
  const { used, limit } = (limits.queue_limit_per_owner && (await api.me()).waiting) || { used: 0 };
  return used && used + count > limit ? text("submission.own_room", { count: used, limit }) : null;
}
