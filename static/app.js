// A small page on the same API that every client uses. Text from outside is only ever set as textContent.
const $ = (id) => document.getElementById(id);
const make = (tag, text = "", facts = {}) => Object.assign(document.createElement(tag), { textContent: text }, facts);

let healthTimer = 0;

async function ask(path, options = {}) {
  const answer = await fetch(path, options);
  if (answer.status === 401) {
    $("signin").hidden = false;
    $("form").hidden = true;
  }
  if (!answer.ok) {
    const problem = await answer.json().catch(() => ({ detail: "The service does not answer as it should." }));
    throw new Error(problem.detail);
  }
  return answer.status === 204 ? null : answer.json();
}

function say(error) {
  $("message").textContent = error instanceof Error ? error.message : error;
}

function fill(id, option, empty) {
  $(id).replaceChildren(...(empty ? [make("option", empty, { value: "" })] : []),
    ...option.choices.map((word) => make("option", word, { value: word })));
}

async function begin() {
  try {
    const config = await ask("/api/v1/config");
    fill("quality", config.options.quality, "chosen for this machine");
    fill("output_format", config.options.output_format);
    Object.assign($("scale"), { min: config.options.scale.minimum, max: config.options.scale.maximum,
      value: config.options.scale.default });
    $("hint").textContent = `Up to ${config.limits.max_batch_size} photos of ${config.limits.max_file_megabytes} MB; `
      + `${config.formats.join(", ")}.`;
    $("signin").hidden = true;
    $("form").hidden = false;
    say("");
    clearTimeout(healthTimer);
    showHealth();
    const page = await ask("/api/v1/jobs?limit=20");
    $("jobs").replaceChildren();
    page.jobs.reverse().forEach(show);
  } catch (error) {
    say(error);
  }
}

async function showHealth() {
  try {
    const health = await ask("/api/v1/health");
    $("health").textContent = [`The service is ${health.status}.`, ...health.reasons].join(" ");
  } catch { /* the message box says it */ }
  healthTimer = setTimeout(showHealth, 15000);
}

function show(job) {
  let row = document.getElementById(`job-${job.job_id}`);
  if (!row) {
    row = make("li", "", { id: `job-${job.job_id}` });
    $("jobs").prepend(row);
  }
  const ended = ["completed", "failed", "cancelled"].includes(job.status);
  const place = job.queue_position ? `, number ${job.queue_position} in the queue` : "";
  const head = make("div", `${job.status}${place}${ended ? "" : ` · ${job.stage} · ${Math.round(100 * job.progress)} %`} `);
  const button = make("button", ended ? "Remove" : "Cancel", { type: "button" });
  button.onclick = () => remove(job.job_id, row);
  head.append(button);
  row.replaceChildren(head);
  if (!ended) row.append(make("progress", "", { max: 1, value: job.progress }));
  job.attempts.forEach((attempt) => row.append(showAttempt(job, attempt)));
  if (job.attempts.length > 1 && job.status === "completed")
    row.append(make("a", "Download all as ZIP", { href: `/api/v1/batch/${job.job_id}/results` }));
  if (!ended && !row.live) follow(job.job_id, row);
}

function showAttempt(job, attempt) {
  const box = make("div");
  box.append(make("strong", attempt.original_filename));
  if (attempt.error) box.append(make("p", attempt.error.message));
  if (!attempt.result) return box;
  const result = attempt.result, base = `/api/v1/jobs/${job.job_id}`, choice = `attempt=${attempt.id}`;
  const pair = make("div", "", { className: "pair" });
  pair.append(picture("before", `${base}/original?preview=true&${choice}`), picture("after", `${base}/preview?${choice}`));
  box.append(make("span", ` ${result.width} × ${result.height}, ${result.model}, ${result.seconds} s`, { className: "small" }), pair,
    make("a", "Download", { href: result.url, download: "" }));
  result.warnings.forEach((warning) => box.append(make("p", warning.message, { className: "small" })));
  return box;
}

function picture(word, address) {
  const figure = make("figure");
  figure.append(make("img", "", { src: address, alt: word, loading: "lazy" }), make("figcaption", word));
  return figure;
}

function follow(id, row) {
  row.live = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/api/v1/jobs/${id}/status`);
  row.live.onmessage = (event) => show(JSON.parse(event.data));
  row.live.onclose = (event) => {
    row.live = null;
    if (event.code !== 1000 && row.isConnected)
      setTimeout(() => ask(`/api/v1/jobs/${id}`).then(show).catch(say), 3000);
  };
}

async function remove(id, row) {
  try {
    const done = await ask(`/api/v1/jobs/${id}`, { method: "DELETE" });
    if (done.status === "removed") row.remove();
    else show(await ask(`/api/v1/jobs/${id}`));
  } catch (error) {
    say(error);
  }
}

async function send(files) {
  if (!files.length) return say("Choose a photo first.");
  const form = new FormData();
  for (const name of ["quality", "scale", "output_format"]) form.append(name, $(name).value);
  for (const file of files) form.append("files", file);
  try {
    say("");
    const job = await ask("/api/v1/enhance/batch", { method: "POST", body: form });
    $("files").value = "";
    show(await ask(`/api/v1/jobs/${job.job_id}`));
  } catch (error) {
    say(error);
  }
}

$("form").onsubmit = (event) => { event.preventDefault(); send($("files").files); };
$("signin").onsubmit = async (event) => {
  event.preventDefault();
  try {
    await ask("/api/v1/session", { method: "POST", headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ key: $("key").value }) });
    $("key").value = "";
    begin();
  } catch (error) {
    say(error);
  }
};
for (const name of ["dragover", "dragleave", "drop"])
  $("drop").addEventListener(name, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", name === "dragover");
    if (name === "drop") $("files").files = event.dataTransfer.files;
  });
begin();
