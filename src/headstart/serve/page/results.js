// The photos with their results: cards where they are few, a table where they are many.

import { makeCard } from "./card.js";
import { Table } from "./table.js";
import { announce, byId, counted } from "./words.js";

const MOST_CARDS = 8;
// Longer names of classes may take two lines in a card, which then has room for them from the start.
const ONE_LINE = 22;

export class Results {
  /** @param emptied  called when no photo is left */
  constructor(emptied) {
    Object.assign(this, { photos: [], batches: 0, emptied, model: null, cards: new Map(), opened: null });
    this.table = new Table(byId("table"), (photo) => this.#open(photo));
    const dialog = byId("one");
    byId("close").addEventListener("click", () => dialog.close());
    byId("previous").addEventListener("click", () => this.#step(-1));
    byId("next").addEventListener("click", () => this.#step(1));
    dialog.addEventListener("close", () => {
      this.opened = null;
      byId("one-card").replaceChildren();
    });
  }

  get #shown() {
    return Math.min(5, this.model.class_names.length);
  }

  add(photos) {
    this.batches += 1;
    for (const photo of photos) photo.batch = this.batches;
    this.photos.push(...photos);
    this.draw();
  }

  /** The photos as cards lie: the last ones given first, so that they are in sight. */
  get #cardOrder() {
    return [...this.photos].sort((a, b) => b.batch - a.batch || a.id - b.id);
  }

  /** Show the photos anew, as another model's. */
  use(model) {
    this.model = model;
    byId("page").classList.toggle("long-names", model.class_names.some((name) => name.length > ONE_LINE));
    this.cards.clear();
    this.table.rows.clear();
    this.draw();
  }

  draw() {
    byId("results").hidden = !this.photos.length;
    const many = this.photos.length > MOST_CARDS;
    byId("table").hidden = !many;
    byId("cards").hidden = many;
    if (many) this.cards.clear();
    this.table.show(many ? this.photos : [], this.model.accepts !== null);
    const cards = many ? [] : this.#cardOrder.map((photo) => this.cards.get(photo) ?? this.#card(photo));
    this.cards = new Map(cards.map((card) => [card.photo, card]));
    const list = byId("cards");
    list.classList.toggle("single", cards.length === 1);
    list.replaceChildren(
      ...cards.map((card) => {
        const item = card.element.parentElement ?? document.createElement("li");
        item.append(card.element);
        return item;
      }),
    );
  }

  update(photo) {
    this.cards.get(photo)?.update();
    this.table.update(photo);
    if (this.opened?.photo === photo) this.opened.update();
  }

  clear() {
    for (const photo of this.photos) photo.remove();
    this.photos = [];
    byId("one").close();
    this.draw();
  }

  remove(photo) {
    const place = this.#cardOrder.indexOf(photo);
    const inDialog = this.opened?.photo === photo;
    const order = this.table.order;
    const beside = order[order.indexOf(photo) + 1] ?? order.at(-2);
    photo.remove();
    this.photos.splice(this.photos.indexOf(photo), 1);
    announce(`${photo.name} removed.`);
    if (inDialog) byId("one").close();
    this.draw();
    if (!this.photos.length) this.emptied();
    else if (inDialog && this.photos.length > MOST_CARDS) this.table.rows.get(beside)?.querySelector("button").focus();
    else this.#focusCard(Math.min(place, this.photos.length - 1));
  }

  #focusCard(place) {
    const card = this.cards.get(this.#cardOrder[place]);
    if (card) card.element.querySelector("button:last-child").focus();
  }

  #card(photo) {
    return makeCard(photo, this.model.name, this.#shown, (one) => this.remove(one));
  }

  #open(photo) {
    this.opened = this.#card(photo);
    byId("one-card").replaceChildren(this.opened.element);
    const order = this.table.order;
    byId("previous").disabled = order[0] === photo;
    byId("next").disabled = order.at(-1) === photo;
    if (!byId("one").open) byId("one").showModal();
    byId("one").scrollTop = 0;
  }

  #step(by) {
    const order = this.table.order;
    const next = order[order.indexOf(this.opened.photo) + by];
    if (next) this.#open(next);
  }
}

/** How many photos came to what, in a sentence. */
export function summary(photos) {
  const done = photos.filter((photo) => photo.result);
  const parts = [];
  if (done.some((photo) => photo.result.accepted !== null)) {
    const accepted = done.filter((photo) => photo.result.accepted).length;
    parts.push([accepted, "accepted"], [done.length - accepted, "none of these"]);
  } else {
    parts.push([done.length, "classified"]);
  }
  parts.push([photos.filter((photo) => photo.error && !photo.isUnread).length, "could not be read"]);
  parts.push([photos.filter((photo) => photo.isUnread).length, "not classified"]);
  const told = parts.filter(([count]) => count).map(([count, what]) => `${count.toLocaleString("en")} ${what}`);
  return `${counted(photos.length, "photo")}: ${told.join(", ")}.`;
}
