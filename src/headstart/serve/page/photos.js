// Photos that the user gives: from a drop, the clipboard, a file dialog or the camera.

const SUFFIXES = /\.(jpe?g|jpe|jfif|png|apng|webp|bmp|dib|gif|tiff?|hei[cf]|avif)$/i;

// Codes of what may succeed when it is tried again.
const PASSING = new Set(["timeout", "internal", "unsent"]);

let count = 0;

/** A photo, and what has become of it: `waiting`, then `done` (result) or `failed` (error). */
export class Photo {
  constructor(file, name = file.name) {
    Object.assign(this, { id: ++count, file, name, state: "waiting", result: null, error: null });
    this.removed = false;
    this.map = null; // where the network looked: { label, url }
    this.urls = new Map(); // previews by their longer side
  }

  settle(answer) {
    this.state = answer.error ? "failed" : "done";
    this.result = answer.error ? null : answer;
    this.error = answer.error ?? null;
  }

  /** Whether it may yet be classified. */
  get mayTryAgain() {
    return this.state === "waiting" || PASSING.has(this.error?.code);
  }

  /** Whether nothing is known of it, not even that it cannot be read. */
  get isUnread() {
    return this.mayTryAgain || this.error?.code === "too_large";
  }

  /** Make it a photo that has not been classified. */
  reset() {
    Object.assign(this, { state: "waiting", result: null, error: null });
    this.forgetMap();
  }

  forgetMap() {
    if (this.map) URL.revokeObjectURL(this.map.url);
    this.map = null;
  }

  remove() {
    this.removed = true;
    this.forgetMap();
    for (const url of this.urls.values()) URL.revokeObjectURL(url);
    this.urls.clear();
  }
}

// What has neither a type nor a suffix may be a photo: the server looks at what is inside.
function mayBePhoto(file) {
  if (file.type) return file.type.startsWith("image/") || SUFFIXES.test(file.name);
  return SUFFIXES.test(file.name) || !file.name.includes(".");
}

// Files that systems leave beside photos.
const isHidden = (file) => file.name.startsWith(".") || file.name === "Thumbs.db" || file.name === "desktop.ini";

/** Sort files ({ file, name }) into photos and the names of what is none. */
export function sorted(files) {
  const photos = [];
  const others = [];
  for (const { file, name } of files) {
    if (isHidden(file)) continue;
    if (mayBePhoto(file)) photos.push(new Photo(file, name));
    else others.push(name);
  }
  return { photos, others };
}

export function fromList(list) {
  return [...list].map((file) => ({ file, name: file.webkitRelativePath || file.name }));
}

/** The files of a drop, those in its folders too. Call it within the event: the browser empties the transfer after. */
export async function fromDrop(transfer) {
  const entries = [...transfer.items]
    .filter((item) => item.kind === "file")
    .map((item) => item.webkitGetAsEntry?.() ?? item.getAsFile());
  const files = [];
  for (const entry of entries) {
    if (entry instanceof File) files.push({ file: entry, name: entry.name });
    else if (entry) await read(entry, files);
  }
  return files;
}

async function read(entry, files) {
  if (entry.isFile) {
    const file = await new Promise((resolve) => entry.file(resolve, () => resolve(null)));
    if (file) files.push({ file, name: entry.fullPath.replace(/^\//, "") });
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    // A reader gives some hundred entries at a time, and none at the end.
    const some = await new Promise((resolve) => reader.readEntries(resolve, () => resolve([])));
    if (!some.length) return;
    for (const inner of some) await read(inner, files);
  }
}

let pasted = 0;

/** The pictures of a paste. A screenshot has no name of its own. */
export function fromPaste(transfer) {
  return [...(transfer?.files ?? [])].map((file) => ({
    file,
    name: /^image\.\w+$/.test(file.name) ? file.name.replace("image", `pasted ${++pasted}`) : file.name,
  }));
}
