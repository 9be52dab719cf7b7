// The page: what the user does, and what is told of it.

import { Gone, models, on } from "./api.js";
import { setUpCamera } from "./camera.js";
import { csvOf, download } from "./csv.js";
import { fromDrop, fromList, fromPaste, sorted } from "./photos.js";
import { Queue } from "./queue.js";
import { Results, summary } from "./results.js";
import { askForToken } from "./token.js";
import { announce, byId, counted, element, listed, percent } from "./words.js";

const FEW_CLASSES = 12;

const queue = new Queue({ settled, stopped });
const results = new Results(() => byId("choose").focus());
let byName = new Map();
let isKnown;
const known = new Promise((resolve) => (isKnown = resolve)); // once the server has told of its models
let asked = 0; // how many photos the work under way is about
let answered = 0;

on.tokenWanted = askForToken;
on.busy = (seconds) => {
  if (!queue.isRunning) return;
  const text = `The server is busy. Going on in ${counted(Math.ceil(seconds), "second")}.`;
  byId("status").textContent = text;
  announce(text, true);
};

// ---- the models ----

async function open() {
  byId("loading").textContent = "Asking the server for its models";
  try {
    const told = await models();
    byName = new Map(told.models.map((model) => [model.name, model]));
    queue.limits = told.limits;
  } catch (error) {
    const again = element("button", { type: "button", textContent: "Try again" });
    again.addEventListener("click", open);
    byId("loading").replaceChildren(`${error.message} `, again);
    return;
  }
  const names = [...byName.keys()];
  byId("model").replaceChildren(...names.map((name) => element("option", { value: name, textContent: name })));
  byId("model-choice").hidden = names.length < 2;
  byId("host").textContent = location.host;
  use(names[0]);
  byId("loading").hidden = true;
  byId("page").hidden = false;
  isKnown();
}

function use(name) {
  const model = byName.get(name);
  queue.cancel();
  queue.model = name;
  document.title = `${name}: Headstart`;
  byId("title").textContent = name;
  byId("task").textContent = `Says which of ${counted(model.class_names.length, "class")} a photo shows.`;
  const accuracy = model.accuracy === null ? "" : `, right on ${percent(model.accuracy)} of its test photos`;
  byId("about").textContent = `${model.backbone} at ${model.image_size} pixels, ${model.engine}${accuracy}.`;
  byId("classes-count").textContent = counted(model.class_names.length, "class");
  byId("class-names").replaceChildren(...model.class_names.map((text) => element("li", { textContent: text })));
  byId("classes").open = model.class_names.length <= FEW_CLASSES;
  byId("accepts").textContent = model.accepts
    ? `A photo that is not accepted is likely none of these classes. ${capital(model.accepts)}.`
    : "This model names its best guess for every photo: it does not know when a photo is none of its classes.";
  for (const photo of results.photos) photo.reset();
  results.use(model);
  send(results.photos);
}

const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1).replace(/\.$/, "");

// ---- giving photos ----

async function give(files) {
  await known;
  const { photos, others } = sorted(files);
  const left = `${counted(others.length, "file")} left out, no photo by name or type: ${listed(others)}.`;
  if (photos.length) notice(others.length ? left : "");
  else notice(others.length ? `Nothing here is a photo. ${left}` : "There is no photo in this.");
  if (photos.length) show(photos);
}

function show(photos) {
  results.add(photos);
  send(photos);
}

function choosing(button, input) {
  byId(button).addEventListener("click", () => byId(input).click());
  byId(input).addEventListener("change", () => {
    const files = fromList(byId(input).files);
    byId(input).value = ""; // the same file may be chosen again
    if (files.length) give(files);
  });
}

function takeDrops() {
  const isFiles = (event) => [...event.dataTransfer.types].some((type) => type === "Files" || type.startsWith("text/"));
  let depth = 0; // of the elements that the pointer has entered
  const mark = () => byId("drop").classList.toggle("over", depth > 0);
  addEventListener("dragenter", (event) => {
    if (isFiles(event)) depth += 1;
    mark();
  });
  addEventListener("dragleave", (event) => {
    if (isFiles(event)) depth = Math.max(0, depth - 1);
    mark();
  });
  addEventListener("dragover", (event) => isFiles(event) && event.preventDefault());
  addEventListener("drop", async (event) => {
    if (event.target.closest?.("input")) return; // text for the field
    event.preventDefault();
    depth = 0;
    mark();
    give(await fromDrop(event.dataTransfer));
  });
  addEventListener("paste", (event) => {
    if (event.target.closest?.("input")) return;
    event.preventDefault();
    const files = fromPaste(event.clipboardData);
    if (files.length) give(files);
    else notice("There is no photo in what was pasted.");
  });
}

/** Tell what is wrong; an alert, so that a screen reader says it at once. */
function notice(text) {
  byId("notice").textContent = text;
}

// ---- classifying ----

function send(photos) {
  if (!photos.length) return;
  asked = queue.isRunning ? asked + photos.length : photos.length;
  if (!queue.isRunning) answered = 0;
  queue.add(photos);
  if (!queue.isRunning) return;
  progress();
  announce(`Classifying ${counted(photos.length, "photo")}.`);
}

function settled(photo) {
  answered += 1;
  results.update(photo);
  progress();
}

function progress() {
  const text = `Classified ${answered.toLocaleString("en")} of ${counted(asked, "photo")}.`;
  byId("status").textContent = text;
  byId("progress").max = Math.max(1, asked);
  byId("progress").value = answered;
  byId("progress").classList.toggle("idle", !queue.isRunning);
  byId("cancel").disabled = !queue.isRunning;
  byId("resume").hidden = true;
  if (queue.isRunning) announce(text, true);
}

function stopped(failure) {
  if (failure instanceof Gone) notice(`${failure.message} It may have been stopped. Start it, then go on below.`);
  else if (failure?.status === 401) notice("The server wants a token. Go on below to give it.");
  else if (failure) notice(failure.message);
  const { photos } = results;
  const text = photos.length ? summary(photos) : "";
  const hadFocus = document.activeElement === byId("cancel");
  progress();
  byId("status").textContent = text;
  if (text && asked) announce(text);
  results.table.sort();
  const left = photos.filter((photo) => photo.mayTryAgain);
  byId("resume").hidden = !left.length;
  byId("resume").textContent = `Go on with ${counted(left.length, "photo")}`;
  if (hadFocus) (left.length ? byId("resume") : byId("clear")).focus();
}

byId("resume").addEventListener("click", () => {
  notice("");
  const left = results.photos.filter((photo) => photo.mayTryAgain);
  for (const photo of left) {
    photo.reset();
    results.update(photo);
  }
  byId("cancel").disabled = false;
  byId("cancel").focus();
  send(left);
});
byId("cancel").addEventListener("click", () => queue.cancel());
byId("clear").addEventListener("click", () => {
  results.clear();
  queue.cancel();
  notice("");
  announce("Cleared.");
  byId("choose").focus();
});
byId("download").addEventListener("click", () => {
  const { photos, table } = results;
  download(csvOf(byId("table").hidden ? photos : table.order), `${queue.model}.csv`);
});
byId("model").addEventListener("change", () => use(byId("model").value));

choosing("choose", "files");
choosing("choose-folder", "folder");
byId("choose-folder").hidden = !("webkitdirectory" in byId("folder"));
takeDrops();
setUpCamera({ taken: (photo) => show([photo]), problem: notice, model: () => byName.get(queue.model) });
open();
