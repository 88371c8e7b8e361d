// Where people say what they want to see: search, choices, statuses with their counts. Keeps the address in step. Refuses to know:
// which tasks that leaves.

import { byId, make, mark, place, write } from "./dom.js";
import { filtersOf, isFiltering, opensGroups, searchOf } from "./filters.js";
import { amount, placeOf, statusName } from "./format.js";

/** Choices beyond these are found by searching. */
const CHOICES_MAX = 200;
/** How long somebody may go on typing until the address says it: browsers count such changes. */
const ADDRESS_DELAY_MS = 300;

const CHOICES = [
  { id: "type", counts: "names", all: "All types", leastToOffer: 1 },
  { id: "owner", counts: "owners", all: "Everybody’s", leastToOffer: 2 },
  { id: "tag", counts: "tags", all: "All tags", leastToOffer: 1 },
];

export class Toolbar {
  filters = filtersOf(location.search);
  #model;
  #onChange;
  #timer;
  #versions = new Map();
  /** @type {Map<string, {item: HTMLButtonElement, count: HTMLElement}>} */
  #chips = new Map();

  constructor(model, onChange) {
    this.#model = model;
    this.#onChange = onChange;
    byId("words").addEventListener("input", ({ target }) => this.#set({ words: target.value }));
    for (const { id } of CHOICES) byId(id).addEventListener("change", ({ target }) => this.#set({ [id]: target.value }));
    byId("order").addEventListener("change", ({ target }) => this.#set({ order: target.value }));
    byId("open-groups").addEventListener("click", () => this.#set({ areGroupsOpen: !this.filters.areGroupsOpen }));
    byId("statuses").addEventListener("click", ({ target }) => this.#onChip(target.closest("button")));
    for (const clear of document.querySelectorAll("[data-clear-filters]")) clear.addEventListener("click", () => this.clear());
    this.#show();
  }

  clear() {
    const { order, areGroupsOpen } = this.filters;
    this.#set({ ...filtersOf(""), order, areGroupsOpen });
    this.#show();
    byId("words").focus();
  }

  /** The address is another one: somebody went back, or followed a link. */
  followAddress() {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const now = filtersOf(location.search);
    if (searchOf(now) === searchOf(this.filters)) return;
    this.filters = now;
    this.#show();
    this.#onChange(now);
  }

  #set(changes) {
    this.filters = { ...this.filters, ...changes };
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.writeAddress(), "words" in changes ? ADDRESS_DELAY_MS : 0);
    this.#onChange(this.filters);
    this.draw();
  }

  /** Before another address comes: what is asked for belongs to this one. */
  writeAddress() {
    if (this.#timer === undefined) return;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    history.replaceState(history.state, "", `${location.pathname}${searchOf(this.filters)}${location.hash}`);
  }

  #onChip(chip) {
    if (!chip) return;
    const { status } = chip.dataset;
    const statuses = new Set(this.filters.statuses);
    if (status === "") statuses.clear();
    else if (!statuses.delete(status)) statuses.add(status);
    this.#set({ statuses });
  }

  #show() {
    const { words, order } = this.filters;
    byId("words").value = words;
    byId("order").value = order;
    this.#versions.clear();
    this.draw();
  }

  /** Counts as they are now. */
  draw() {
    const { statuses, active, rows } = this.#model;
    const chosen = this.filters.statuses;
    const known = [...new Set([...statuses.keys(), ...chosen])].filter((status) => !["active", "ended"].includes(status));
    const chips = [
      this.#chip("", "All", rows.size, chosen.size === 0),
      this.#chip("active", "Active", active, chosen.has("active")),
      this.#chip("ended", "Ended", rows.size - active, chosen.has("ended")),
      ...known.sort((a, b) => placeOf(a) - placeOf(b)).map((status) => this.#chip(status, statusName(status), statuses.get(status) ?? 0, chosen.has(status))),
    ];
    place(byId("statuses"), chips);
    for (const choice of CHOICES) this.#drawChoice(choice);
    const { areGroupsOpen } = this.filters;
    const areOpenAnyway = opensGroups({ ...this.filters, areGroupsOpen: false });
    byId("open-groups").hidden = areOpenAnyway || (!areGroupsOpen && this.#model.groups.size === rows.size);
    mark(byId("open-groups"), "aria-pressed", areGroupsOpen);
    byId("clear").hidden = !isFiltering(this.filters);
  }

  #chip(status, name, count, isChosen) {
    let chip = this.#chips.get(status);
    if (!chip) {
      const number = make("span", "count");
      const item = make("button", "chip", make("span", "dot"), make("span", "", name), number);
      item.type = "button";
      item.dataset.status = status;
      this.#chips.set(status, (chip = { item, count: number }));
    }
    write(chip.count, amount(count));
    mark(chip.item, "aria-pressed", isChosen);
    return chip.item;
  }

  /** What there is to choose from changes rarely, and never under somebody's hand. */
  #drawChoice({ id, counts, all, leastToOffer }) {
    const select = byId(id);
    const known = this.#model[counts];
    const chosen = this.filters[id];
    select.closest("label").hidden = known.size < leastToOffer && chosen === "";
    if (this.#versions.get(id) === known.version || document.activeElement === select) return;
    this.#versions.set(id, known.version);
    const values = [...known.keys()].map(String).slice(0, CHOICES_MAX);
    if (chosen !== "" && !values.includes(chosen)) values.push(chosen);
    const option = (value, name, disabled = false) => Object.assign(make("option", "", name), { value, disabled });
    const more = known.size > CHOICES_MAX ? [option("", "…search for more", true)] : [];
    select.replaceChildren(option("", all), ...values.sort((a, b) => a.localeCompare(b)).map((value) => option(value, value)), ...more);
    select.value = chosen;
  }
}
