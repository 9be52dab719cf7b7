// Results as a CSV file (RFC 4180), with the columns of `headstart predict`.

/** The text of the file. A byte order mark comes first: spreadsheets take the text for another encoding without it. */
export function csvOf(photos) {
  const most = Math.max(1, ...photos.map((photo) => photo.result?.top.length ?? 0));
  const further = [...Array(most - 1).keys()].map((place) => place + 2);
  const header = ["name", "label", "probability", "accepted", "error"];
  for (const rank of further) header.push(`label_${rank}`, `probability_${rank}`);
  return "\ufeff" + [header, ...photos.map((photo) => row(photo, further))].map(line).join("");
}

function row(photo, further) {
  const { result, error } = photo;
  if (!result) return [photo.name, "", "", "", error?.message ?? "not classified", ...further.flatMap(() => ["", ""])];
  const accepted = { true: "True", false: "False" }[result.accepted] ?? "";
  const cells = [photo.name, result.label, number(result.probability), accepted, ""];
  for (const rank of further) {
    const one = result.top[rank - 1];
    cells.push(one?.label ?? "", one ? number(one.probability) : "");
  }
  return cells;
}

const number = (value) => String(Number(value.toPrecision(6)));

const line = (cells) => cells.map(cell).join(",") + "\r\n";

function cell(text) {
  // A spreadsheet takes a text that begins so for a formula, and runs it.
  const harmless = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(harmless) ? `"${harmless.replaceAll('"', '""')}"` : harmless;
}

export function download(text, name) {
  const url = URL.createObjectURL(new Blob([text], { type: "text/csv;charset=utf-8" }));
  const link = Object.assign(document.createElement("a"), { href: url, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}
