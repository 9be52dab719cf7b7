// Small pictures of photos. A photo of 12 megapixels takes 48 MB when it is decoded, so few are decoded at a time,
// and only what is small is kept.

const AT_ONCE = 2;
const QUALITY = 0.85;
let decoding = 0;
const waiting = [];

/** Resolve to a blob URL of the photo, its longer side `side` pixels at most; null where the browser cannot show it. */
export async function preview(photo, side) {
  if (photo.urls.has(side)) return photo.urls.get(side);
  await turn();
  try {
    if (photo.removed) return null;
    const url = await drawn(photo.file, side);
    if (photo.removed || photo.urls.has(side)) URL.revokeObjectURL(url);
    else photo.urls.set(side, url);
    return photo.urls.get(side) ?? null;
  } catch {
    return null; // HEIC and TIFF in most browsers, and what is damaged
  } finally {
    decoding -= 1;
    waiting.pop()?.(); // what came into sight last is likely still there
  }
}

async function turn() {
  while (decoding >= AT_ONCE) await new Promise((resolve) => waiting.push(resolve));
  decoding += 1;
}

async function drawn(file, side) {
  const bitmap = await createImageBitmap(file);
  const scale = Math.min(1, side / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  const type = file.type === "image/jpeg" ? "image/jpeg" : "image/png"; // other formats may be transparent
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, type, QUALITY));
  return URL.createObjectURL(blob);
}

// A file that says it has gigapixels would freeze the page.
const mayShow = (photo) => photo.state === "done" || (photo.state === "failed" && photo.error.code !== "bomb");

let sights = null;

/** Show the photo in `image` when it has been classified and comes into sight; call `failed` where that cannot be. */
export function showWhenSeen(image, photo, side, failed) {
  sights ??= new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) {
        if (!isIntersecting) continue;
        sights.unobserve(target);
        target.show();
      }
    },
    { rootMargin: "200px" },
  );
  image.show = async () => {
    const url = await preview(photo, side);
    if (url) image.src = url;
    else failed();
  };
  if (mayShow(photo)) sights.observe(image);
  else if (photo.state === "failed") failed();
}
