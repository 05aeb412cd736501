// Waiting for a service that cannot be reached or has no time just now, and asking it again.

const FIRST_SECONDS = 3, LONGEST_SECONDS = 60;
const TOO_MANY_REQUESTS = 429, FAULTS = 500;
const NOT_TODAY = "quota_exceeded"; // nobody waits until tomorrow

/** Whether the same question may be answered a little later. */
export const passes = ({ status, code }) =>
  code !== NOT_TODAY && (status === 0 || status === TOO_MANY_REQUESTS || status >= FAULTS);

/** How long to wait after a problem: what the service says, else longer with every one of the `tries` that were made. */
export const waitSeconds = (problem, tries) => problem.retryAfterSeconds ?? Math.min(LONGEST_SECONDS, FIRST_SECONDS * 2 ** tries);

/** Wait; rejects with an AbortError when the signal, where there is one, says to stop. */
export function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, 1000 * seconds);
    signal?.addEventListener("abort", stop);
  });
}

/** What `ask` gives, however often it must be asked; `onwait` hears each problem that passes, others are thrown. */
export async function answerOf(ask, { signal, onwait = () => {} } = {}) {
  for (let tries = 0; ; tries += 1) {
    try {
      return await ask();
    } catch (problem) {
      if (!passes(problem)) throw problem;
      onwait(problem);
      await pause(waitSeconds(problem, tries), signal);
    }
  }
}
