// The camera: on demand only, a photo at a time or live.

import { predict } from "./api.js";
import { NONE, barsOf, told } from "./bars.js";
import { Photo } from "./photos.js";
import { announce, byId, element } from "./words.js";

const LIVE_MS = 1000;
const QUALITY = 0.92;

let stream = null;
let live = null; // of live mode while it is on: { abort, said }
let taken = 0;

/**
 * @param tell.taken  called with a photo that was taken
 * @param tell.problem  called with words about what is wrong, or "" when nothing is
 * @param tell.model  returns the model in use
 */
export function setUpCamera(tell) {
  byId("open-camera").addEventListener("click", () => (stream ? stop() : start(tell)));
  byId("stop-camera").addEventListener("click", () => {
    stop();
    byId("open-camera").focus();
  });
  byId("take").addEventListener("click", async () => {
    const photo = await snap(`camera ${++taken}.jpg`);
    if (photo) tell.taken(photo);
  });
  byId("live").addEventListener("click", () => (live ? stopLive() : runLive(tell)));
  byId("cameras").addEventListener("change", () => start(tell, byId("cameras").value));
  addEventListener("pagehide", stop);
}

async function start(tell, deviceId) {
  tell.problem("");
  if (!navigator.mediaDevices) {
    tell.problem(
      `The camera works only on a secure page: https, or http on localhost. This page came from ${location.origin}.`,
    );
    return;
  }
  const wanted = deviceId ? { deviceId: { exact: deviceId } } : { facingMode: "environment" };
  const wasLive = Boolean(live);
  stop();
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { ...wanted, width: { ideal: 1280 } } });
  } catch (error) {
    tell.problem(reason(error));
    return;
  }
  stream.getVideoTracks()[0].addEventListener("ended", () => {
    stop();
    tell.problem("The camera has gone. It may have been unplugged.");
  });
  byId("camera").hidden = false;
  byId("open-camera").setAttribute("aria-expanded", "true");
  const video = byId("video");
  video.srcObject = stream;
  await video.play().catch(() => {}); // stopped before it began
  await showCameras();
  announce("The camera is on.");
  if (wasLive) runLive(tell);
  else if (!deviceId) byId("take").focus();
}

function reason(error) {
  const reasons = {
    NotAllowedError: "The camera was refused. Allow it in the browser's settings for this page, then try again.",
    NotFoundError: "No camera was found. Plug one in, then try again.",
    OverconstrainedError: "That camera is no longer there. Choose another one.",
    NotReadableError: "The camera is there but does not answer. Another program may be using it.",
  };
  return reasons[error.name] ?? `The camera could not be opened (${error.message || error.name}).`;
}

function stop() {
  stopLive();
  if (!stream) return;
  for (const track of stream.getTracks()) track.stop();
  stream = null;
  byId("video").srcObject = null;
  byId("camera").hidden = true;
  byId("open-camera").setAttribute("aria-expanded", "false");
}

async function showCameras() {
  const cameras = (await navigator.mediaDevices.enumerateDevices()).filter(({ kind }) => kind === "videoinput");
  const used = stream?.getVideoTracks()[0].getSettings().deviceId;
  byId("camera-choice").hidden = cameras.length < 2;
  byId("cameras").replaceChildren(
    ...cameras.map(({ deviceId, label }, place) =>
      element("option", { value: deviceId, textContent: label || `Camera ${place + 1}`, selected: deviceId === used }),
    ),
  );
}

async function snap(name) {
  const video = byId("video");
  if (!video.videoWidth) return null; // no frame has come yet
  const canvas = element("canvas", { width: video.videoWidth, height: video.videoHeight });
  canvas.getContext("2d").drawImage(video, 0, 0);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", QUALITY));
  return new Photo(new File([blob], name, { type: "image/jpeg" }));
}

async function runLive(tell) {
  const mine = { abort: new AbortController(), said: "" };
  live = mine;
  byId("live").setAttribute("aria-pressed", "true");
  byId("live-note").hidden = true;
  byId("live-result").hidden = false;
  const { signal } = mine.abort;
  try {
    while (!signal.aborted) {
      const began = performance.now();
      // A tab that nobody sees sends nothing.
      const photo = document.hidden ? null : await snap("live.jpg");
      if (photo) {
        const { name, class_names } = tell.model();
        const [answer] = await predict(name, [photo], signal);
        if (signal.aborted) return;
        showLive(answer, mine, Math.min(5, class_names.length));
      }
      await passed(Math.max(0, began + LIVE_MS - performance.now()), signal);
    }
  } catch (error) {
    if (signal.aborted) return;
    stopLive();
    tell.problem(error.message);
  }
}

const passed = (time, signal) =>
  new Promise((resolve) => {
    const timer = setTimeout(resolve, time);
    signal.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });

function showLive(answer, mine, shown) {
  const rejected = answer.accepted === false;
  const label = rejected ? NONE : answer.label;
  const verdict = element("p", { className: "verdict", textContent: label });
  verdict.classList.toggle("rejected", rejected);
  byId("live-result").replaceChildren(verdict, element("ol", { className: "bars" }, ...barsOf(answer, shown)));
  if (mine.said === label) return;
  mine.said = label;
  announce(told(answer), true);
}

function stopLive() {
  live?.abort.abort();
  live = null;
  byId("live").setAttribute("aria-pressed", "false");
  byId("live-note").hidden = false;
  byId("live-result").hidden = true;
  byId("live-result").replaceChildren();
}
