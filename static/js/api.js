// The client of the HTTP API: each call gives JSON or throws a `Problem` with one plain sentence; `session` tells when
// the service wants a key.

import { errorText, text } from "./text.js";

const DEFAULT_RETRY_SECONDS = 5;

/** What went wrong, as the service said it; `status` 0 means that it could not be reached. */
export class Problem extends Error {
  constructor(status, code, message, { rows = [], retryAfterSeconds = null } = {}) {
    super(message);
    Object.assign(this, { status, code, rows, retryAfterSeconds });
  }
}

/**
 * Tells `signed-out` whenever a call is refused for want of a key, `signed-in` once the page goes on with one, and
 * `somebody-else` when it is found to be another's.
 */
export const session = new EventTarget();

let clockOffsetSeconds = 0;

/** The service's idea of now, in epoch seconds: this machine's clock may be wrong. */
export const serverNow = () => Date.now() / 1000 + clockOffsetSeconds;

async function request(path, { method = "GET", json, body, accept, signal } = {}) {
  const init = { method, signal, body, headers: accept ? { Accept: accept } : {} };
  if (json !== undefined) {
    init.headers["Content-Type"] = "application/json";
    init.body = JSON.stringify(json);
  }
  let answer;
  try {
    answer = await fetch(path, init);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw unreachableProblem();
  }
  const serverTime = Date.parse(answer.headers.get("Date"));
  if (serverTime) clockOffsetSeconds = (serverTime - Date.now()) / 1000;
  if (!answer.ok) throw toProblem(answer.status, await answer.json().catch(() => null), answer.headers.get("Retry-After"));
  return answer;
}

const requestJson = async (path, options) => {
  const answer = await request(path, options);
  return answer.status === 204 ? null : answer.json();
};

function unreachableProblem() {
  return new Problem(0, "unreachable", text("problem.unreachable"));
}

function toProblem(status, body, retryAfter) {
  const sentence = errorText({ code: body?.code, message: body?.detail }) ?? text("problem.status", { status: String(status) });
  const problem = new Problem(status, body?.code ?? "unknown", sentence, {
    rows: (body?.errors ?? []).map((row) => ({ ...row, message: errorText(row) })),
    retryAfterSeconds: retryAfter === null ? null : Number(retryAfter) || DEFAULT_RETRY_SECONDS,
  });
  if (status === 401 && !["wrong_key", "wrong_token", "token_expired"].includes(problem.code)) session.dispatchEvent(new Event("signed-out"));
  return problem;
}

const JOBS = "/api/v1/jobs";
export const config = () => requestJson("/api/v1/config");
export const status = () => requestJson("/api/v1/status");
/** What photos of these sizes would take with these options. */
export const estimate = (photos, options) => requestJson(`/api/v1/estimate?${new URLSearchParams([
  ...photos.map(({ width, height }) => ["size", `${width}x${height}`]), ...Object.entries(options),
])}`);
/** Every model with what it is for, whether it is here, and how far its download is. */
export const models = () => requestJson("/api/v1/models");
export const installModel = (name, accepted) =>
  requestJson(`/api/v1/models/${encodeURIComponent(name)}/download`, { method: "POST", json: accepted ? { accept_licence: true } : {} });
export const cancelInstall = (name) => requestJson(`/api/v1/models/${encodeURIComponent(name)}/download`, { method: "DELETE" });
export const jobs = (limit = 100, before = null) => requestJson(`${JOBS}?limit=${limit}${before ? `&before=${before}` : ""}`);
export const job = (id) => requestJson(`${JOBS}/${id}`);
export const removeJob = (id) => requestJson(`${JOBS}/${id}`, { method: "DELETE" });
/** Cancel or remove one photo of a job. */
export const removeAttempt = (id, attemptId) => requestJson(`${JOBS}/${id}/attempts/${attemptId}`, { method: "DELETE" });
/** Keep a job past its time; both give the job as it then is. */
export const keep = (id) => requestJson(`${JOBS}/${id}/keep`, { method: "POST" });
export const letGo = (id) => requestJson(`${JOBS}/${id}/keep`, { method: "DELETE" });
const TOKEN = /^eyJ[\w-]+\.[\w-]+\.[\w-]+$/; // a signed JWT always begins so; a key holds no dots by our own recipe
/** Trade a key or token for a session cookie. */
export const signIn = (text) =>
  requestJson("/api/v1/session", { method: "POST", json: TOKEN.test(text) ? { token: text } : { key: text } });
export const me = () => requestJson("/api/v1/me");
export const signOut = () => requestJson("/api/v1/session", { method: "DELETE" });
export const faces = (jobId) => requestJson(`${JOBS}/${jobId}/faces`);
export const blendFaces = (jobId, attemptId, strengths, signal) =>
  requestJson(`${JOBS}/${jobId}/faces?attempt=${attemptId}`, { method: "POST", json: strengths, signal });
export const restoreAgain = (photoId, options) =>
  requestJson(`/api/v1/photos/${photoId}/restore`, { method: "POST", json: options });
/** What was found in a photo, as a grey PNG of its own size: the "mask" that was used or the "probability" it came from. */
export const damageMap = (jobId, attemptId, which, signal) =>
  fetchImage(`${JOBS}/${jobId}/damage?attempt=${attemptId}&show=${which}`, signal);
/** Restore a photo again with a mask of what to repair; gives the accepted job. */
export const repairWith = (jobId, attemptId, mask) => requestJson(`${JOBS}/${jobId}/damage`, { method: "POST", body: formOf({ attempt: attemptId, mask }) });
/** Likewise with the mask that the attempt came with. */
export const repairAgain = (jobId, attemptId) => requestJson(`${JOBS}/${jobId}/damage`, { method: "POST", body: formOf({ attempt: attemptId }) });
/** How much of a photo looks damaged, from a small copy; nothing of it is kept. */
export const quickLook = (photo, signal) => requestJson("/api/v1/damage", { method: "POST", body: formOf({ file: photo }), signal });

function formOf(fields) {
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) form.append(name, value);
  return form;
}

const LINES = "application/x-ndjson";
/**
 * A patch of a photo in each quality: `online` gets the place and the untouched patch, then each restored one when it is
 * there. `fields` are options with x, y and qualities.
 */
export async function preview(file, fields, online, signal) {
  const body = formOf(fields);
  body.append("file", file, file.name || "photo");
  const answer = await request("/api/v1/preview", { method: "POST", body, accept: LINES, signal });
  for await (const line of linesOf(answer.body)) {
    const found = JSON.parse(line);
    if (found.code) throw toProblem(found.status, found, null);
    online(found);
  }
}

async function* linesOf(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let begun = "";
  while (true) {
    const { done, value } = await reader.read();
    const lines = (begun + (value ?? "")).split("\n");
    begun = lines.pop();
    yield* lines.filter(Boolean);
    if (done) return;
  }
}

/** A picture's bytes. */
export const fetchImage = async (address, signal) => (await request(address, { signal })).blob();

/** The upload behind an attempt, as it was sent. */
export const original = (jobId, attemptId) => fetchImage(`${JOBS}/${jobId}/original?attempt=${attemptId}`);

/** The ZIP of everything, newest results first. */
export const EVERYTHING = "/api/v1/results";
const NEXT = /<([^<>]+)>; *rel="next"/;

/** Ask for an archive without taking its bytes: the address of the one that follows it, or null; refusals are thrown. */
export async function archiveAfter(address) {
  const looking = new AbortController();
  const answer = await request(address, { signal: looking.signal });
  looking.abort();
  return answer.headers.get("Link")?.match(NEXT)?.[1] ?? null;
}

export const archiveAddress = (jobId) => `/api/v1/batch/${jobId}/results`;
export const socketAddress = (jobId) =>
  `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${JOBS}/${jobId}/status`;

/** A JPEG of the original or the result, at most `side` pixels a side; `version` changes when faces were blended again. */
export function displayAddress(jobId, attempt, which, side) {
  const kind = which === "original" ? "original?preview=true&" : "preview?";
  return `${JOBS}/${jobId}/${kind}attempt=${attempt.id}&size=${side}&v=${attempt.version ?? 1}`;
}

/** A piece of the original or the result at its true pixels; level 0 is the full size. */
export const tileAddress = (jobId, attempt, of, level, x, y) =>
  `${JOBS}/${jobId}/tile?attempt=${attempt.id}&of=${of}&level=${level}&x=${x}&y=${y}&v=${attempt.version ?? 1}`;

/**
 * Send photos with one set of options, and what single ones have of their `own`; gives the accepted job, and under the
 * same `name` the same one. `onprogress` hears the share of bytes that are out. XMLHttpRequest, because fetch cannot
 * tell how far an upload is.
 */
export function submit(photos, options, { name, onprogress, signal }) {
  const form = formOf(options);
  const own = photos.map((photo) => photo.own ?? {});
  if (own.some((options) => Object.keys(options).length)) form.append("photo_options", JSON.stringify(own));
  for (const { file } of photos) form.append("files", file, file.name || "photo");
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", "/api/v1/enhance/batch");
    request.setRequestHeader("Idempotency-Key", name);
    request.responseType = "json";
    request.upload.onprogress = (event) => event.lengthComputable && onprogress(event.loaded / event.total);
    request.onload = () => {
      if (request.status === 202) resolve(request.response);
      else reject(toProblem(request.status, request.response, request.getResponseHeader("Retry-After")));
    };
    request.onerror = () => reject(unreachableProblem());
    request.onabort = () => reject(new DOMException("cancelled", "AbortError"));
    signal?.addEventListener("abort", () => request.abort());
    request.send(form);
  });
}
