// What the model says of one photo, as words and as bars.

import { element, percent } from "./words.js";

export const NONE = "None of these";
export const WHY = "Unlike the training photos, or unsure."; // short: it has one line of a card

/** Say a result in one line. */
export function told(result) {
  const best = `${result.label}, ${percent(result.probability)}`;
  return result.accepted === false ? `${NONE} (closest: ${best})` : best;
}

/** Make the items of the `count` likeliest classes: empty ones, as room to come, where there is no result. */
export function barsOf(result, count) {
  return Array.from({ length: count }, (_, place) => bar(result?.top[place], result?.accepted === false));
}

function bar(one, rejected) {
  const fill = element("span", { className: "fill" });
  fill.classList.toggle("rejected", rejected);
  fill.style.inlineSize = one ? `${100 * one.probability}%` : "0";
  return element(
    "li",
    {},
    element("span", { className: "class", textContent: one?.label ?? "\u00a0" }),
    element("span", { className: "share", textContent: one ? percent(one.probability) : "" }),
    element("span", { className: "track" }, fill),
  );
}
