// One photo with what the model says of it.

import { explain } from "./api.js";
import { NONE, WHY, barsOf } from "./bars.js";
import { showWhenSeen } from "./previews.js";
import { announce, element, percent } from "./words.js";

const PREVIEW_SIDE = 720;

/**
 * Make a photo's card. The room for its result is there from the start, so that nothing moves when it comes.
 *
 * @param shown  how many classes the model names for a photo
 * @param onRemove  called with the photo
 */
export function makeCard(photo, model, shown, onRemove) {
  const image = element("img", { alt: "", decoding: "async" });
  const instead = element("p", { className: "instead" });
  const view = element("div", { className: "view" }, image, instead);
  const verdict = element("p", { className: "verdict" });
  const second = element("p", { className: "second" });
  const head = element("div", { className: "head" }, verdict, second);
  const bars = element("ol", { className: "bars" });
  const look = element("button", { type: "button", textContent: "Where it looked" });
  const remove = element("button", { type: "button", textContent: "Remove" });
  remove.setAttribute("aria-label", `Remove ${photo.name}`);
  const note = element("p", { className: "note" });
  const reason = element("p", { className: "reason" });
  const heading = element("h3", { textContent: photo.name });
  // The reason of a failure takes the room that the bars do not need then.
  const said = element("div", {}, heading, head, element("div", { className: "stack" }, bars, reason));
  const act = element("div", { className: "act" }, note, element("p", { className: "buttons" }, look, remove));
  const card = element("div", { className: "card" }, view, said, act);
  const parts = { photo, model, shown, image, instead, verdict, second, bars, reason, look, note };
  remove.addEventListener("click", () => onRemove(photo));
  look.addEventListener("click", () => toggleMap(parts));
  const update = () => {
    showResult(parts);
    showPicture(parts);
  };
  update();
  return { photo, element: card, update };
}

function showResult({ photo, shown, verdict, second, bars, reason, look }) {
  const { result, error } = photo;
  verdict.className = "verdict";
  if (result) {
    const rejected = result.accepted === false;
    verdict.textContent = rejected ? NONE : result.label;
    verdict.classList.toggle("rejected", rejected);
    const share = percent(result.probability);
    second.textContent = rejected ? `Closest: ${result.label}, ${share}` : share;
  } else {
    verdict.textContent = !error ? "Waiting" : photo.isUnread ? "Not classified" : "Cannot be read";
    verdict.classList.add(error ? "severe" : "faint");
    second.textContent = "";
  }
  reason.textContent = error?.message ?? "";
  bars.replaceChildren(...barsOf(result, shown));
  bars.setAttribute("aria-label", "Most likely classes");
  bars.classList.toggle("idle", !result); // its room stays
  look.disabled = !result;
  look.setAttribute("aria-label", `Where it looked in ${photo.name}`);
}

function showPicture({ photo, image, instead, look, note }) {
  const { map, result } = photo;
  look.setAttribute("aria-pressed", String(Boolean(map)));
  note.textContent = map ? "Bright: what speaks most for this class." : result?.accepted === false ? WHY : "";
  instead.textContent = "";
  if (map) {
    image.src = map.url;
    image.alt = `Where the model looked in ${photo.name} for ${map.label}`;
    image.hidden = false;
    return;
  }
  image.removeAttribute("src");
  image.alt = photo.name;
  image.hidden = false; // what is hidden never comes into sight
  showWhenSeen(image, photo, PREVIEW_SIDE, () => {
    image.hidden = true;
    instead.textContent = `No preview of ${kind(photo)}`;
  });
}

function kind(photo) {
  const suffix = /\.(\w{2,5})$/.exec(photo.name)?.[1];
  return suffix ? `this ${suffix.toUpperCase()} file` : "this file";
}

async function toggleMap(parts) {
  const { photo, model, look, note } = parts;
  if (photo.map) {
    photo.forgetMap();
    showPicture(parts);
    return;
  }
  if (look.getAttribute("aria-busy") === "true") return;
  look.setAttribute("aria-busy", "true");
  note.textContent = "Looking";
  const { label } = photo.result;
  try {
    const picture = await explain(model, photo, label);
    if (photo.removed || photo.result?.label !== label) return;
    photo.forgetMap();
    photo.map = { label, url: URL.createObjectURL(picture) };
    showPicture(parts);
    announce(`Shown where the model looked in ${photo.name} for ${label}.`);
  } catch (error) {
    note.textContent = error.message;
    announce(error.message);
  } finally {
    look.removeAttribute("aria-busy");
  }
}
