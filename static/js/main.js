// The entry point: creates the modules of the page, connects them, and starts once the service lets us in.

import { isSomebodyElse, showAccount } from "./account.js";
import * as api from "./api.js";
import { answered, refuse } from "./answers.js";
import { Comparison } from "./comparison.js";
import { announce, find, setText } from "./dom.js";
import { PlannedTime } from "./estimate.js";
import { downloadEverything } from "./everything.js";
import { Gallery } from "./gallery.js";
import { openFileInput } from "./file_input.js";
import { FinishNotice } from "./finish_notice.js";
import { openGoneNotice } from "./gone_notice.js";
import { Jobs, ended } from "./jobs.js";
import { formatNames } from "./validation.js";
import { LiveUpdates } from "./live_updates.js";
import { Models } from "./models.js";
import { groupByOptions } from "./next_job.js";
import { PreviewOffer } from "./preview_offer.js";
import { drawNotice } from "./models_notice.js";
import { endedSentences } from "./models_text.js";
import { JobActions } from "./job_actions.js";
import { PhotoSettings } from "./photo_settings.js";
import { Presets } from "./presets.js";
import { Submission } from "./submission.js";
import { ServiceStatus } from "./service_status.js";
import { Settings } from "./settings.js";
import { REPAIR_AUTO, REPAIR_OFF } from "./settings_values.js";
import { Shortcuts } from "./shortcuts.js";
import { openSignIn } from "./signin.js";
import { fillPage, text, textOf } from "./text.js";
import { Tray } from "./tray.js";

const SAMPLE = "sample.jpg";
const CALM_MILLISECONDS = 10_000; // between two estimates that no choice asks for, while photos are sent or there are many
const MANY_PHOTOS = 50; // more than that take several questions

fillPage();
const jobs = new Jobs();
const activeIds = new Set(); // jobs that were seen at work
const statuses = new Map(); // the last that was seen of each job
const pendingFiles = []; // files that came before the service's limits were known
const live = new LiveUpdates(jobs);
new FinishNotice(jobs);
const service = new ServiceStatus();
const models = new Models();
const settings = new Settings(find("settings-form"));
const planned = new PlannedTime();
const presets = new Presets(settings, models);
const photoSettings = new PhotoSettings(settings, presets);
const showMissing = () => showProblem(new api.Problem(0, "unreachable", text("problem.unreachable")));
const preview = new PreviewOffer({
  make: (Preview) => new Preview({
    options: (photo) => photoSettings.optionsOf(photo),
    choose: (photo, quality) => photoSettings.choose(photo, quality),
  }),
  first: () => tray.ready()[0],
  onmissing: showMissing,
});
const tray = new Tray({
  scale: (photo) => Number(photoSettings.valuesOf(photo).scale),
  format: (photo) => photoSettings.valuesOf(photo).output_format,
  seconds: () => planned.seconds,
  preview: (photo) => preview.open(photo),
  parts: (photo) => photoSettings.tileParts(photo),
});
const actions = new JobActions(jobs);
const again = (pressed, jobId, attempt) => actions.again(pressed, jobId, attempt, settings.options());
const canRepair = () => Boolean(service.config?.repair?.available);
let repairOffer = null; // its module comes with the first photos
const comparison = new Comparison(jobs, (Viewer) => new Viewer(jobs, { again, repairs: canRepair, onmissing: showMissing }), showMissing);
new Shortcuts(() => comparison.acts);
const gallery = new Gallery(jobs, {
  open: (jobId, attemptId) => comparison.open(jobId, attemptId),
  retry: (pressed, jobId, attempt) => actions.retry(pressed, jobId, attempt),
  retryRest: (pressed, jobId) => actions.retryRest(pressed, jobId),
  remove: (pressed, jobId) => actions.remove(pressed, jobId),
  removeOne: (pressed, jobId, attempt) => actions.removeOne(pressed, jobId, attempt),
  keep: (pressed, jobId, on) => actions.keep(pressed, jobId, on),
  mayKeep: () => service.config?.limits.keep_bytes !== 0,
});
const submission = new Submission(tray, {
  onjob: (job, pictures) => {
    gallery.addThumbnails(pictures);
    jobs.merge(job);
    if (service.config.key_required) showAccount();
  },
  onproblem: (problem) => refuse(find("restore-answer"), problem),
});

/** Say what went wrong although nothing was pressed, in the page and to screen readers; a missing session has its own box. */
function showProblem(problem) {
  if (problem.status === 401 || problem.name === "AbortError") return;
  setText(find("message-words"), problem.message);
  find("message").hidden = false;
}

let plannedAt = -Infinity;
function planTime() {
  plannedAt = performance.now();
  if (service.config) {
    const photos = photoSettings.photo ? [photoSettings.photo] : tray.ready(); // in its dialog the times are its own
    const asked = groupByOptions(photos, (photo) => (photoSettings.photo ? settings.options() : photoSettings.optionsOf(photo)));
    planned.ask(settings.options(), asked.map(({ options, photos: some }) => ({ options, photos: some.map(({ facts }) => facts) })));
    photoSettings.draw(tray.photos);
  }
  drawTray();
  offerRepair();
}

async function offerRepair() {
  if (!repairOffer && !(canRepair() && tray.photos.length)) return;
  const found = await import("./repair_offer.js").catch(() => null); // without it nothing is offered
  repairOffer ??= found && new found.RepairOffer({
    repairOf: (photo) => (photoSettings.optionsOf(photo).backend === "local" ? photoSettings.valuesOf(photo).repair : null),
    turnOn: (photos) => photos.forEach((photo) => photoSettings.change(photo, { repair: REPAIR_AUTO })),
    turnOnAll: () => {
      settings.apply({ ...settings.values(), repair: REPAIR_AUTO });
      tray.photos.filter(({ own }) => own?.values.repair === REPAIR_OFF).forEach((photo) => photoSettings.change(photo, { repair: REPAIR_AUTO }));
    },
  });
  repairOffer?.update(canRepair() ? tray.photos : []);
}

function drawTimes() {
  settings.showTimes(planned.words);
  drawTray();
}

function drawTray() {
  tray.draw();
  if (service.config) preview.offer(planned.seconds, tray.ready().length > 0);
}

async function loadJobs(before = null) {
  const page = await api.jobs(20, before);
  page.jobs.forEach((job) => jobs.merge(job));
  find("older").hidden = page.next === null;
  find("older").dataset.before = page.next ?? "";
  gallery.draw();
}

/** The jobs after one; where that was deleted meanwhile, after the oldest that is still there, or else the newest. */
async function loadOlder(before) {
  const oldest = jobs.all().filter(({ gone }) => !gone).at(-1)?.job_id ?? null;
  for (const id of new Set([before, oldest])) {
    try {
      return await loadJobs(id);
    } catch (problem) {
      if (problem.status !== 404) throw problem;
    }
  }
  return loadJobs();
}

async function start() {
  try {
    await service.poll();
    if (service.config) await loadJobs();
    document.body.dataset.state = "started"; // jobs that were there are shown
  } catch (problem) {
    showProblem(problem);
  }
}

/** The same one has signed in again: what stood still goes on. */
function goOn() {
  live.resume();
  if (service.config) models.refresh();
  return start();
}

/** Nothing of one who was here stays for the next. */
function startAfresh() {
  settings.forgetTexts();
  submission.abandon();
  location.reload();
}

function applyConfig() {
  const { config } = service;
  const { limits } = config;
  tray.config = config;
  const wasWhole = presets.isWhole;
  settings.applyConfig(config);
  presets.applyConfig(config, wasWhole);
  if (config.models.length) photoSettings.fit(tray.photos); // before that nobody knows what there is
  setText(find("limits"), text("desk.limits", { formats: formatNames(config.formats),
    megabytes: Number(limits.max_file_megabytes), megapixels: limits.max_input_megapixels }));
  find("sign-out").hidden = !config.key_required;
  if (pendingFiles.length) tray.add(pendingFiles.splice(0));
}

service.addEventListener("configured", applyConfig);
service.addEventListener("configured", () => models.refresh());
let modelsBefore = null;
models.addEventListener("change", () => {
  const ended = endedSentences(modelsBefore, models.state);
  modelsBefore = models.state;
  if (ended) announce(ended);
  if (!service.config) return;
  drawNotice(service.config, models);
  if (models.state.models_revision !== service.config.models_revision) service.poll(); // the choices are other ones
});
planned.addEventListener("change", drawTimes);
service.addEventListener("polled", () => {
  const isCalm = submission.active || tray.photos.length > MANY_PHOTOS; // the service's share of requests is for the photos
  if (isCalm && performance.now() - plannedAt < CALM_MILLISECONDS) return drawTray();
  planTime();
  if (service.config?.key_required) showAccount();
});
settings.addEventListener("change", planTime);
photoSettings.addEventListener("change", planTime);
openGoneNotice(settings);
tray.addEventListener("change", planTime);
jobs.addEventListener("changed", ({ detail }) => {
  const job = jobs.get(detail);
  if (statuses.get(detail) !== job.status) service.pollSoon(); // the chip follows what happens here at once
  statuses.set(detail, job.status);
  if (!ended(job)) activeIds.add(detail);
  else if (activeIds.delete(detail)) {
    announce(textOf("job_ended", job.status));
  }
});

openFileInput((files) => {
  if (service.config) tray.add(files);
  else pendingFiles.push(...files);
});
openSignIn({ isOther: () => isSomebodyElse(service.config !== null), onother: startAfresh, onsignedin: goOn });
api.session.addEventListener("somebody-else", startAfresh);
api.session.addEventListener("signed-out", () => {
  live.stop();
  service.stop();
  models.stop();
});
find("restore").addEventListener("click", () => {
  find("restore-answer").hidden = true;
  const common = settings.options(); // what is changed or added while photos are sent is for the next press
  submission.run(tray.ready(), (photo) => (photo.own ? photoSettings.optionsOf(photo) : common));
});
find("message-close").addEventListener("click", () => (find("message").hidden = true));
find("older").addEventListener("click", ({ currentTarget }) => {
  const { before } = currentTarget.dataset;
  answered({ button: currentTarget, line: find("older-answer") }, () => loadOlder(before));
});
find("everything").addEventListener("click", ({ currentTarget }) =>
  downloadEverything({ button: currentTarget, line: find("everything-answer") }));
find("sample").addEventListener("click", ({ currentTarget }) =>
  answered({ button: currentTarget, line: find("desk-answer") }, async () => {
    const blob = await api.fetchImage(SAMPLE);
    tray.add([new File([blob], SAMPLE, { type: blob.type })]);
  }));
find("sign-out").addEventListener("click", async () => {
  try {
    await api.signOut();
  } catch (problem) {
    if (problem.status !== 401) return showProblem(problem); // still signed in, and it says so right below
  }
  startAfresh();
});
if (matchMedia("(min-width: 62rem)").matches) find("settings").open = true;
start();
