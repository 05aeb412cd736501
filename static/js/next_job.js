// Which photos of the tray go together as the next job, and what is asked for each. Pure functions.

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
export function nextJob(ready, optionsOf, most) {
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

/** Names each job for the service, so that one whose answer was lost is not taken twice: the same job has the same name. */
export class JobNames {
  #asked = "";
  #name = "";

  of({ photos, options, own }) {
    const asked = JSON.stringify([photos.map(({ id }) => id), options, own]);
    if (this.#asked !== asked) [this.#asked, this.#name] = [asked, randomName()];
    return this.#name;
  }
}

/** `crypto.randomUUID` is missing where the page came over plain HTTP from another machine. */
const randomName = () => [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
