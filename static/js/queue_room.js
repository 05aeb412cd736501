// Whether the service's queue has room for the photos that come next, so that no megabytes are sent in vain.

import * as api from "./api.js";
import { text } from "./text.js";

/** The most photos that one job can have. */
export const largestJob = ({ max_batch_size: batch, queue_limit: all, queue_limit_per_owner: own }) => Math.min(batch, all, own ?? Infinity);

/** One sentence that says what so many photos wait for; null when they can be sent. */
export async function reasonToWait(count, limits) {
  const { queue } = await api.status();
  return queue.queued + count > limits.queue_limit ? text("submission.room", { count: queue.queued }) : null;
}
