// The lines of the list: which tasks, groups and headings are in it, in which order. Kept by what changed: only another filter or
// order has all of them sorted anew. Refuses to know: what a line looks like, and where the screen is.

import { matcher, opensGroups } from "./filters.js";
import { placeOf } from "./format.js";

/** With more changes than this at a time all lines are sorted anew, which costs less. */
const CHANGES_MAX = 1_000;

/**
 * @typedef {{kind: "heading" | "group" | "child", rank: number, begun: string, key: string, level: number, childBegun: string, id: string,
 *   group: any, row: any}} Line a `group` may well be one task alone
 */

export class View {
  /** @type {Line[]} in order */
  lines = [];
  /** How many tasks the filters want. */
  wanted = 0;
  /** Headings by their rank, with how many groups are below each. */
  #headings = new Map();
  #model;
  #filters;
  #matches;
  /** Of the last time that all lines were sorted: what was counted before that is counted no more. */
  #sorting = 0;
  /** Whether groups are, unless somebody closed one. */
  #areOpen = false;
  /** Groups that somebody opened or closed, against what holds for all. */
  #toggled = new Set();

  constructor(model, filters) {
    this.#model = model;
    this.ask(filters);
  }

  /** Shows something else from now on. */
  ask(filters) {
    const areOpen = opensGroups(filters);
    if (areOpen !== this.#areOpen) this.#toggled.clear();
    this.#areOpen = areOpen;
    this.#filters = filters;
    this.#matches = matcher(filters);
    this.#sortAnew();
  }

  isOpen(group) {
    return this.#areOpen !== this.#toggled.has(group.key);
  }

  toggle(group) {
    if (!this.#toggled.delete(group.key)) this.#toggled.add(group.key);
    // Keys of groups that are long gone are no longer needed.
    if (this.#toggled.size > CHANGES_MAX) this.#toggled = new Set([...this.#toggled].filter((key) => this.#model.groups.has(key)));
    if (group.line) {
      this.#takeOut(group);
      this.#putIn(group);
    }
  }

  /** Puts into place what changed. @returns {boolean} whether lines came, went or moved */
  update({ rows, groups }) {
    if (rows.size > CHANGES_MAX) return this.#sortAnew();
    let hasMoved = false;
    for (const row of rows) hasMoved = this.#follow(row) || hasMoved;
    for (const group of groups) hasMoved = this.#followGroup(group) || hasMoved;
    return hasMoved;
  }

  /** @returns {boolean} */
  #follow(row) {
    const { group } = row;
    const isWanted = !row.isGone && this.#matches(row.task);
    if (isWanted !== row.isWanted) {
      row.isWanted = isWanted;
      group.wanted += isWanted ? 1 : -1;
    }
    const hasLine = isWanted && group.root !== row && group.line !== null && this.isOpen(group) && group.isGroup;
    if (row.line && (!hasLine || row.line.group !== group)) {
      this.#remove(row.line);
      row.line = null;
    } else if (row.line || !hasLine) return this.#recount(row);
    if (hasLine) this.#insert((row.line = childLine(group, row)));
    this.#recount(row);
    return true;
  }

  #recount(row) {
    const counts = row.isWanted && !row.isGone;
    if (counts !== (row.countedIn === this.#sorting)) {
      row.countedIn = counts ? this.#sorting : 0;
      this.wanted += counts ? 1 : -1;
    }
    return false;
  }

  #followGroup(group) {
    const isShown = group.wanted > 0 && group.size > 0;
    const { line } = group;
    if (line === null && !isShown) return false;
    if (line !== null && isShown) {
      const isSame = line.begun === group.begun && line.rank === this.#rankOf(group) && line.isGroup === group.isGroup;
      line.row = group.face;
      if (isSame) return false;
    }
    if (line !== null) this.#takeOut(group);
    if (isShown) this.#putIn(group);
    return true;
  }

  #rankOf(group) {
    return this.#filters.order === "status" ? placeOf(group.status) : 0;
  }

  #groupLine(group) {
    return {
      kind: "group", rank: this.#rankOf(group), begun: group.begun, key: group.key, level: 0, childBegun: "", id: "",
      group, row: group.face, isGroup: group.isGroup,
    };
  }

  #childrenOf(group) {
    return group.isGroup && this.isOpen(group) ? [...group.children].filter((row) => row.isWanted) : [];
  }

  #putIn(group) {
    const line = (group.line = this.#groupLine(group));
    const children = this.#childrenOf(group).map((row) => (row.line = childLine(group, row))).sort(compare);
    this.lines.splice(this.#placeFor(line), 0, line, ...children);
    if (this.#filters.order === "status") this.#countHeading(line, 1);
  }

  #takeOut(group) {
    const { line } = group;
    const at = this.#placeFor(line);
    let end = at + 1;
    while (end < this.lines.length && this.lines[end].key === group.key && this.lines[end].level === 1) {
      this.lines[end].row.line = null;
      end += 1;
    }
    this.lines.splice(at, end - at);
    group.line = null;
    if (this.#filters.order === "status") this.#countHeading(line, -1);
  }

  #countHeading({ rank, group }, by) {
    const heading = this.#headings.get(rank) ?? headingLine(rank, group.status);
    heading.count += by;
    if (heading.count === 0) {
      this.#headings.delete(rank);
      this.#remove(heading);
    } else if (!this.#headings.has(rank)) {
      this.#headings.set(rank, heading);
      this.#insert(heading);
    }
  }

  #insert(line) {
    this.lines.splice(this.#placeFor(line), 0, line);
  }

  #remove(line) {
    const at = this.#placeFor(line);
    if (this.lines[at] === line) this.lines.splice(at, 1);
  }

  #placeFor(line) {
    let low = 0;
    let high = this.lines.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (compare(this.lines[middle], line) < 0) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Where the headings are, in order. */
  get headingIndexes() {
    return [...this.#headings.values()].map((heading) => this.indexOf(heading)).sort((a, b) => a - b);
  }

  /** Where a line is, or -1. */
  indexOf(line) {
    const at = this.#placeFor(line);
    return this.lines[at] === line ? at : -1;
  }

  #sortAnew() {
    const { rows, groups } = this.#model;
    for (const line of this.lines) {
      if (line.kind === "child") line.row.line = null;
      else if (line.kind === "group") line.group.line = null;
    }
    this.#headings.clear();
    this.wanted = 0;
    this.#sorting += 1;
    for (const group of groups.values()) group.wanted = 0;
    for (const row of rows.values()) {
      row.isWanted = this.#matches(row.task);
      row.countedIn = row.isWanted ? this.#sorting : 0;
      if (!row.isWanted) continue;
      row.group.wanted += 1;
      this.wanted += 1;
    }
    this.lines = [];
    for (const group of groups.values()) {
      if (group.wanted === 0) continue;
      this.lines.push((group.line = this.#groupLine(group)));
      for (const row of this.#childrenOf(group)) this.lines.push((row.line = childLine(group, row)));
      if (this.#filters.order === "status") this.#noteHeading(group.line);
    }
    this.lines.push(...this.#headings.values());
    this.lines.sort(compare);
    return true;
  }

  #noteHeading({ rank, group }) {
    const heading = this.#headings.get(rank) ?? headingLine(rank, group.status);
    heading.count += 1;
    this.#headings.set(rank, heading);
  }
}

const childLine = (group, row) => ({ ...group.line, kind: "child", level: 1, childBegun: row.begun, id: row.id, row });

const headingLine = (rank, status) => ({
  kind: "heading", rank, begun: "", key: "", level: -1, childBegun: "", id: `status ${status}`, group: null, row: null, status, count: 0,
});

/** Headings, below each its groups, the newest first, below each its children in the order of their beginning. */
function compare(a, b) {
  if (a.rank !== b.rank) return a.rank - b.rank;
  if (a.level === -1 || b.level === -1) return a.level - b.level;
  // ISO dates of one length compare as text.
  if (a.begun !== b.begun) return a.begun < b.begun ? 1 : -1;
  if (a.key !== b.key) return a.key < b.key ? -1 : 1;
  if (a.level !== b.level) return a.level - b.level;
  if (a.childBegun !== b.childBegun) return a.childBegun < b.childBegun ? -1 : 1;
  return a.id < b.id ? -1 : a.id > b.id ? 1 : 0;
}
