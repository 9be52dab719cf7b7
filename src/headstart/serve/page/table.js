// Many photos as a table that sorts.

import { showWhenSeen } from "./previews.js";
import { element, percent } from "./words.js";

const THUMBNAIL_SIDE = 96;
const COLLATOR = new Intl.Collator(undefined, { numeric: true });

const KEYS = {
  name: (photo) => photo.name,
  label: ({ result }) => result && (result.accepted === false ? `none of these, ${result.label}` : result.label),
  probability: ({ result }) => result && result.probability,
  accepted: ({ result }) => result && (result.accepted ? "yes" : "no"),
};

export class Table {
  /** @param open  called with the photo whose name was pressed */
  constructor(table, open) {
    Object.assign(this, { table, open, rows: new Map(), by: null, direction: 1 });
    for (const button of table.tHead.querySelectorAll("button")) {
      button.addEventListener("click", () => {
        this.direction = this.by === button.dataset.by ? -this.direction : 1;
        this.by = button.dataset.by;
        this.sort();
      });
    }
  }

  /** Show these photos instead of those before. */
  show(photos, judges) {
    this.table.classList.toggle("judges", judges);
    const rows = photos.map((photo) => this.rows.get(photo) ?? this.#row(photo));
    this.rows = new Map(photos.map((photo, place) => [photo, rows[place]]));
    this.sort();
  }

  update(photo) {
    const row = this.rows.get(photo);
    if (row) fill(row, photo);
  }

  /** The photos as their rows lie. */
  get order() {
    const photos = [...this.rows.keys()];
    if (!this.by) return photos;
    const keyed = photos.map((photo) => [KEYS[this.by](photo), photo]);
    // What has no value lies last, whichever way the others are sorted.
    keyed.sort(([a], [b]) => (a === null) - (b === null) || (a === null ? 0 : this.direction * compare(a, b)));
    return keyed.map(([, photo]) => photo);
  }

  sort() {
    const focused = document.activeElement;
    this.table.tBodies[0].replaceChildren(...this.order.map((photo) => this.rows.get(photo)));
    if (this.table.contains(focused)) focused.focus();
    for (const button of this.table.tHead.querySelectorAll("button")) {
      const heading = button.closest("th");
      if (button.dataset.by !== this.by) heading.removeAttribute("aria-sort");
      else heading.setAttribute("aria-sort", this.direction === 1 ? "ascending" : "descending");
    }
  }

  #row(photo) {
    const name = element("button", { type: "button", className: "link", textContent: photo.name });
    name.addEventListener("click", () => this.open(photo));
    const image = element("img", { alt: "", width: 40, height: 40, decoding: "async" });
    const heading = element("th", { scope: "row", role: "rowheader", className: "name" }, name);
    const cells = ["label", "number", "accepted"].map((className) => element("td", { role: "cell", className }));
    const small = element("td", { role: "cell", className: "small" }, image);
    const row = element("tr", { role: "row" }, small, heading, ...cells);
    fill(row, photo);
    return row;
  }
}

const compare = (a, b) => (typeof a === "number" ? a - b : COLLATOR.compare(a, b));

function fill(row, photo) {
  const [small, , label, probability, accepted] = row.cells;
  const { result, error } = photo;
  const rejected = result?.accepted === false;
  label.classList.toggle("severe", Boolean(error));
  if (rejected) {
    const closest = element("span", { className: "faint", textContent: `closest: ${result.label}` });
    label.replaceChildren("none of these", closest);
  } else label.textContent = result?.label ?? error?.message ?? "";
  probability.textContent = result ? percent(result.probability) : "";
  accepted.textContent = !result || result.accepted === null ? "" : rejected ? "no" : "yes";
  const image = small.firstElementChild;
  image.removeAttribute("src");
  showWhenSeen(image, photo, THUMBNAIL_SIDE, () => {});
}
