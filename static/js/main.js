// The entry point: creates the modules of the page, connects them, and starts once the service lets us in.

import { showAccount } from "./account.js";
import * as api from "./api.js";
import { answered, refuse } from "./answers.js";
import { announce, find, setText } from "./dom.js";
import { PlannedTime } from "./estimate.js";
import { downloadEverything } from "./everything.js";
import { Gallery } from "./gallery.js";
import { openFileInput } from "./file_input.js";
import { FinishNotice } from "./finish_notice.js";
import { Jobs, ended } from "./jobs.js";
import { formatNames } from "./validation.js";
import { LiveUpdates } from "./live_updates.js";
import { Models } from "./models.js";
import { drawNotice } from "./models_notice.js";
import { endedSentences } from "./models_text.js";
import { JobActions } from "./job_actions.js";
import { Submission } from "./submission.js";
import { ServiceStatus } from "./service_status.js";
import { Settings } from "./settings.js";
import { Shortcuts } from "./shortcuts.js";
import { openSignIn } from "./signin.js";
import { fillPage, text, textOf } from "./text.js";
import { Tray } from "./tray.js";
import { Viewer } from "./viewer.js";

const SAMPLE = "sample.jpg";

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
const tray = new Tray({ scale: () => settings.scale, seconds: () => planned.seconds });
const actions = new JobActions(jobs);
const viewer = new Viewer(jobs, { again: (pressed, id, attempt) => actions.again(pressed, id, attempt, settings.options()) });
new Shortcuts(viewer.acts);
const gallery = new Gallery(jobs, {
  open: (jobId, attemptId) => viewer.open(jobId, attemptId),
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

function planTime() {
  if (service.config) planned.ask(tray.ready().map(({ facts }) => facts), settings.options());
  tray.draw();
}

function drawTimes() {
  settings.showTimes(planned.words);
  tray.draw();
}

async function loadJobs(before = null) {
  const page = await api.jobs(20, before);
  page.jobs.forEach((job) => jobs.merge(job));
  find("older").hidden = page.next === null;
  find("older").dataset.before = page.next ?? "";
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

function applyConfig() {
  const { config } = service;
  const { limits } = config;
  tray.config = config;
  settings.applyConfig(config);
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
  planTime();
  if (service.config?.key_required) showAccount();
});
settings.addEventListener("change", planTime);
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
openSignIn(start);
api.session.addEventListener("signed-out", () => {
  live.stop();
  service.stop();
  models.stop();
});
find("restore").addEventListener("click", () => {
  find("restore-answer").hidden = true;
  submission.run(settings.options());
});
find("message-close").addEventListener("click", () => (find("message").hidden = true));
find("older").addEventListener("click", ({ currentTarget }) => {
  const { before } = currentTarget.dataset;
  answered({ button: currentTarget, line: find("older-answer") }, () => loadJobs(before));
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
  settings.forgetTexts();
  location.reload();
});
if (matchMedia("(min-width: 62rem)").matches) find("settings").open = true;
start();
