// Numbers, counts and progress in words.

export const percent = (share) => `${(100 * share).toFixed(1)}%`;

/** `1 photo`, `1,200 photos`, `2 classes`. */
export function counted(number, noun) {
  if (number === 1) return `1 ${noun}`;
  return `${number.toLocaleString("en")} ${noun}${noun.endsWith("s") ? "es" : "s"}`;
}

/** Bytes as the server counts them: `3.2 MB` of 1,048,576 bytes. */
export function size(bytes) {
  if (bytes < 2 ** 20) return `${Math.max(1, Math.round(bytes / 2 ** 10))} KB`;
  return `${(bytes / 2 ** 20).toFixed(1)} MB`;
}

/** Join names: the first few, then how many more there are. */
export function listed(names, limit = 3) {
  const shown = names.slice(0, limit).join(", ");
  return names.length <= limit ? shown : `${shown} and ${names.length - limit} more`;
}

export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

export const byId = (id) => document.getElementById(id);

const QUIET_MS = 8000;
let lastSaid = 0;

/**
 * Tell a screen reader. What is `passing` (progress) is left out when something was said a moment ago; what is not
 * passing (a result, an end) is always said.
 */
export function announce(text, passing = false) {
  const now = performance.now();
  if (passing && now - lastSaid < QUIET_MS) return;
  lastSaid = now;
  byId("announcer").textContent = text;
}
