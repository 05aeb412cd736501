// Sends the photos of the tray: in jobs as large as the service takes, one after another, waiting for room in its
// queue, and again without those that it refuses.

import * as api from "./api.js";
import { announce, find, setText } from "./dom.js";
import { percent } from "./format.js";
import { text } from "./text.js";

const QUEUE_POLL_SECONDS = 3;
const PHOTO_REFUSED_STATUSES = new Set([400, 413, 415, 422]);

/** Photos with equal options together: `{ options, photos }`, in the order in which the first of each stands. */
export function groupByOptions(photos, optionsOf) {
  const groups = new Map();
  for (const photo of photos) {
    const options = optionsOf(photo), key = JSON.stringify(options);
    if (!groups.has(key)) groups.set(key, { options, photos: [] });
    groups.get(key).photos.push(photo);
  }
  return [...groups.values()];
}

/**
 * The photos of the next job, at most `most`, in their order: those that go where the first goes. `options` are those of
 * most of them, and `own` is what each has in place of those; an empty text means the service's default.
 */
function nextJob(ready, optionsOf, most) {
  const { backend } = optionsOf(ready[0]);
  const photos = ready.filter((photo) => optionsOf(photo).backend === backend).slice(0, most);
  const [{ options }] = groupByOptions(photos, optionsOf).sort((one, other) => other.photos.length - one.photos.length);
  const own = photos.map((photo) => ({ ...difference(optionsOf(photo), options), ...(photo.rotate && { rotate: photo.rotate }) }));
  return { photos, options, own };
}

function difference(own, shared) {
  const names = Object.keys({ ...shared, ...own }).filter((name) => own[name] !== shared[name]);
  return Object.fromEntries(names.map((name) => [name, own[name] ?? ""]));
}

const sleep = (count) => new Promise((resolve) => setTimeout(resolve, 1000 * count));

export class Submission {
  /** `onjob` gets each accepted job and the small pictures by attempt; `onproblem` what stopped the sending. */
  constructor(tray, { onjob, onproblem }) {
    Object.assign(this, { tray, onjob, onproblem, active: false });
    addEventListener("beforeunload", (event) => this.active && event.preventDefault());
  }

  /**
   * Send these photos, as far as they are still in the tray when their turn comes; `optionsOf` gives the options of a photo.
   * Photos of one backend share jobs. What is put into the tray meanwhile waits for a press of its own.
   */
  async run(chosen, optionsOf) {
    const { limits } = this.tray.config;
    const most = Math.min(limits.max_batch_size, limits.queue_limit);
    this.#begin();
    try {
      let photos;
      while ((photos = this.tray.fitting(chosen, optionsOf)).length) await this.#send(nextJob(photos, optionsOf, most), limits);
    } catch (problem) {
      this.onproblem(problem);
    } finally {
      this.#end();
    }
  }

  async #send({ photos, options, own }, limits) {
    await this.#waitForQueueRoom(photos.length, limits.queue_limit);
    try {
      const accepted = await api.submit(photos.map(({ file }, place) => ({ file, own: own[place] })), options, (share) => this.#showProgress(photos, share));
      const job = await api.job(accepted.job_id);
      const pictures = new Map(photos.map((photo, place) => [job.attempts[place]?.id, this.tray.release(photo)]));
      announce(text("submission.sent", { count: photos.length }));
      this.onjob(job, pictures);
    } catch (problem) {
      await this.#handleRefusal(photos, problem);
    }
  }

  /** The queue takes only so many photos; better to wait here than to send megabytes in vain. */
  async #waitForQueueRoom(count, limit) {
    while (true) {
      const { queue } = await api.status();
      if (queue.queued + count <= limit) return;
      this.#showStatus(text("submission.room", { count: queue.queued }));
      await sleep(QUEUE_POLL_SECONDS);
    }
  }

  /** Take out what was refused, wait when asked to, and give up on anything else. */
  async #handleRefusal(photos, problem) {
    if (problem.rows?.length) {
      for (const row of problem.rows) {
        const photo = photos[row.index] ?? photos.find(({ file }) => file.name === row.original_filename);
        if (photo) this.tray.refuse(photo, row.message);
      }
    } else if (PHOTO_REFUSED_STATUSES.has(problem.status) && problem.code !== "invalid_option" && photos.length === 1) {
      this.tray.refuse(photos[0], problem.message);
    } else if (problem.retryAfterSeconds && problem.code !== "quota_exceeded") { // nobody waits until tomorrow
      this.#showStatus(problem.message);
      await sleep(problem.retryAfterSeconds);
    } else throw problem;
  }

  #begin() {
    this.active = this.tray.sending = true;
    find("sending").hidden = false;
    this.tray.draw();
    this.#showStatus(text("submission.sending"));
  }

  #end() {
    this.active = this.tray.sending = false;
    find("sending").hidden = true;
    this.tray.draw();
  }

  #showProgress(photos, share) {
    find("sending-bar").value = share;
    this.#showStatus(share < 1 ? text("submission.share", { count: photos.length, share: percent(share) }) : text("submission.looking"));
  }

  #showStatus(words) {
    setText(find("sending-words"), words);
  }
}
