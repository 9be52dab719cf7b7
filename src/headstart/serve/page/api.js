// The server, as the page asks it.

const TOKEN = "headstart-token";
const UNSENT = "It could not be sent. The file may have been moved or changed since.";
const WAIT_S = 2;
const LONGEST_WAIT_S = 60;

/** What the server answered instead of what was asked for. */
export class Refusal extends Error {
  constructor(status, code, message, retryAfter) {
    super(message);
    Object.assign(this, { status, code, retryAfter });
  }
}

/** The server does not answer at all. */
export class Gone extends Error {
  constructor() {
    super("The server does not answer.");
  }
}

// What the page does when a token is asked for, and when the server is busy; main.js sets both.
export const on = {
  tokenWanted: async (_wrong) => null,
  busy: (_seconds) => {},
};

let token = remembered();
let asking = null;

function remembered() {
  try {
    return sessionStorage.getItem(TOKEN) ?? "";
  } catch {
    return ""; // storage is switched off: the token lives as long as the page
  }
}

function remember(text) {
  token = text;
  try {
    sessionStorage.setItem(TOKEN, text);
  } catch {
    // as above
  }
}

export const models = (signal) => ask("v1/models", { signal }).then((response) => response.json());

/** Classify photos ({ file, name }) by one request; resolves to predictions in their order. */
export async function predict(model, photos, signal) {
  const body = new FormData();
  for (const photo of photos) body.append("photos", photo.file, photo.name);
  const path = `v1/predict?${new URLSearchParams({ model, top_k: 5 })}`;
  const response = await ask(path, { method: "POST", body, signal });
  return (await response.json()).predictions;
}

/** Grad-CAM of a photo for a class; resolves to the picture. */
export async function explain(model, photo, label, signal) {
  const body = new FormData();
  body.append("photos", photo.file, photo.name);
  const path = `v1/explain?${new URLSearchParams({ model, label })}`;
  return (await ask(path, { method: "POST", body, signal })).blob();
}

async function isAlive() {
  try {
    return (await fetch(new URL("healthz", document.baseURI), { cache: "no-store" })).ok;
  } catch {
    return false;
  }
}

/** Ask until there is an answer: wait where the server is busy, and ask the user for a token where one is wanted. */
async function ask(path, options) {
  for (;;) {
    const sent = token;
    try {
      return await askOnce(path, options, sent);
    } catch (error) {
      if (error.status === 401) {
        // Several requests may come back refused: the user is asked once, and not about a token that has changed since.
        if (token === sent) await newToken(error, sent);
      } else if (error.status === 503) {
        on.busy(error.retryAfter);
        await pause(error.retryAfter, options.signal);
      } else {
        throw error;
      }
    }
    options.signal?.throwIfAborted();
  }
}

async function askOnce(path, options, sent) {
  const headers = sent ? { Authorization: `Bearer ${sent}` } : {};
  let response;
  try {
    response = await fetch(new URL(path, document.baseURI), { ...options, headers, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    // A browser that cannot read a file says the same as one that finds no server.
    if (options.body && (await isAlive())) throw new Refusal(0, "unsent", UNSENT);
    throw new Gone();
  }
  if (response.ok) return response;
  // A proxy answers so in the place of a server that is away.
  if (response.status === 502 || response.status === 504) throw new Gone();
  const told = await response.json().catch(() => ({}));
  const { code = "unknown", message = `The server answered with status ${response.status}.` } = told.error ?? {};
  throw new Refusal(response.status, code, message, seconds(response.headers.get("Retry-After")));
}

function seconds(text) {
  const number = Number(text || NaN);
  return Number.isFinite(number) ? Math.min(Math.max(number, 0.2), LONGEST_WAIT_S) : WAIT_S;
}

async function newToken(refusal, sent) {
  asking ??= on.tokenWanted(Boolean(sent)).finally(() => (asking = null));
  const given = await asking;
  if (given === null) throw refusal;
  remember(given);
}

function pause(time, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, 1000 * time);
    signal?.addEventListener("abort", stop, { once: true });
  });
}
