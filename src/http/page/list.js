// The list on the screen: of thousands of lines only those that can be seen are there. Scrolling, focus and keys. Refuses to know:
// which lines there are and why.

import { place } from "./dom.js";
import { RowView } from "./row.js";

/** Lines above and below the screen that are there already. */
const SPARE = 6;
const SPARE_ROWS_MAX = 60;

export class List {
  /** Rows on the page by their line. @type {Map<any, RowView>} */
  #shown = new Map();
  #idle = [];
  /** The line that the keyboard is at. */
  #current = null;
  #hasFocus = false;
  /** What stays where it is on the screen when lines above it come and go. */
  #anchor = null;
  #rowHeight = 60;
  #headingHeight = 40;
  #isMeasured = false;
  /** Where headings are, which are lower than the other lines. */
  #headings = [];
  #ask;

  /**
   * @param {{sizer: HTMLElement, list: HTMLElement, view: import("./view.js").View, onScroll: () => void, onToggle: (group: any) => void}} parts
   * `onScroll` asks for a frame
   */
  constructor({ sizer, list, view, onScroll, onToggle }) {
    Object.assign(this, { sizer, list, view, onToggle });
    this.#ask = onScroll;
    addEventListener("scroll", onScroll, { passive: true });
    addEventListener("resize", () => {
      this.#isMeasured = false;
      onScroll();
    });
    list.addEventListener("keydown", (event) => this.#onKey(event));
    list.addEventListener("focusin", (event) => this.#onFocus(event));
    list.addEventListener("focusout", () => { this.#hasFocus = false; });
    list.addEventListener("click", (event) => this.#onClick(event));
  }

  /** Heights are the style's business: on a phone lines are higher. */
  #measure() {
    const probe = document.createElement("li");
    probe.className = "row";
    probe.style.visibility = "hidden";
    this.list.append(probe);
    // Of what is not shown nobody can tell.
    this.#isMeasured = probe.offsetHeight > 0;
    this.#rowHeight = probe.offsetHeight || this.#rowHeight;
    probe.dataset.kind = "heading";
    this.#headingHeight = probe.offsetHeight || this.#headingHeight;
    probe.remove();
  }

  /** How far below the top of the list that line begins, in pixels. */
  #topOf(index) {
    const above = this.#headings.filter((heading) => heading < index).length;
    return index * this.#rowHeight - above * (this.#rowHeight - this.#headingHeight);
  }

  /** The line at that distance from the top of the list. */
  #indexAt(pixels) {
    let index = Math.floor(pixels / this.#rowHeight);
    while (index < this.view.lines.length && this.#topOf(index + 1) <= pixels) index += 1;
    return index;
  }

  /**
   * @param {{rows: Set<any>, groups: Set<any>} | null} changed null: draw all that is on the screen
   * @param {boolean} hasMoved lines came, went or moved
   */
  draw(changed, hasMoved) {
    const { lines } = this.view;
    this.sizer.hidden = lines.length === 0;
    if (!this.#isMeasured) this.#measure();
    this.#headings = this.view.headingIndexes;
    this.sizer.style.height = `${this.#topOf(lines.length)}px`;
    const top = this.sizer.getBoundingClientRect().top;
    if (hasMoved) this.#holdStill(top);
    const above = Math.max(0, -this.sizer.getBoundingClientRect().top);
    const first = Math.max(0, this.#indexAt(above) - SPARE);
    const last = Math.min(lines.length, this.#indexAt(above + innerHeight) + 1 + SPARE);
    this.#noteAnchor(above);
    const wanted = lines.slice(first, last);
    this.#keepFocused(wanted, first, last);
    this.#release(wanted);
    const items = [];
    for (const [at, line] of wanted.entries()) {
      const isKept = this.#shown.has(line);
      const row = isKept ? this.#shown.get(line) : this.#take(line);
      const isTouched = !isKept || changed === null || changed.rows.has(line.row) || (line.kind === "group" && changed.groups.has(line.group)) || line.kind === "heading";
      if (isTouched) row.show(line, line.kind === "group" && this.view.isOpen(line.group));
      const index = at < last - first ? first + at : this.view.indexOf(line);
      row.move(index, lines.length, this.#topOf(index));
      items.push(row.item);
    }
    place(this.list, items);
    this.#followCurrent(wanted);
  }

  /** Somebody reads further down: what comes above does not push it away. */
  #holdStill(top) {
    if (top < 0) scrollBy(0, this.#movedBy(this.#anchor));
  }

  /** How much further down that line is by now, in pixels. */
  #movedBy(anchor) {
    const line = anchor && presentOf(anchor.line);
    const index = line ? this.view.indexOf(line) : -1;
    return index < 0 ? 0 : this.#topOf(index) - anchor.at;
  }

  /** Somebody goes elsewhere, and comes back to the same lines. @returns {() => void} takes them there */
  leave() {
    const [anchor, top] = [this.#anchor, scrollY];
    return () => scrollTo(0, top + this.#movedBy(anchor));
  }

  #noteAnchor(above) {
    const index = this.#indexAt(above) + 1;
    const line = above > 0 ? this.view.lines[index] : undefined;
    this.#anchor = line ? { line, at: this.#topOf(index) } : null;
  }

  /** What has the focus stays on the page, or the keyboard would be nowhere. */
  #keepFocused(wanted, first, last) {
    if (!this.#hasFocus || this.#current === null) return;
    const line = presentOf(this.#current);
    const index = line ? this.view.indexOf(line) : -1;
    if (index >= 0 && (index < first || index >= last)) wanted.push(line);
  }

  #take(line) {
    const row = this.#idle.pop() ?? new RowView();
    this.#shown.set(line, row);
    return row;
  }

  #release(wanted) {
    const kept = new Set(wanted);
    for (const [line, row] of this.#shown) {
      if (kept.has(line)) continue;
      this.#shown.delete(line);
      // The same task may be in another line now: its row goes along, and with it the focus.
      const successor = wanted.find((other) => !this.#shown.has(other) && other.kind === line.kind && other.key === line.key && other.id === line.id);
      if (successor) {
        if (this.#current === line) this.#current = successor;
        row.line = successor;
        this.#shown.set(successor, row);
        row.show(successor, successor.kind === "group" && this.view.isOpen(successor.group));
      } else if (this.#idle.length < SPARE_ROWS_MAX) this.#idle.push(row);
    }
  }

  /** One line is in the order of the tab key: the first, until somebody went further. */
  #followCurrent(wanted) {
    if (this.#current === null || !this.#shown.has(this.#current)) {
      this.#current = wanted.find(({ kind }) => kind !== "heading") ?? null;
    }
    for (const [line, row] of this.#shown) row.link.tabIndex = line === this.#current ? 0 : -1;
  }

  #rowOf(target) {
    const item = target.closest?.("li.row");
    return item && [...this.#shown.values()].find((row) => row.item === item);
  }

  #onFocus({ target }) {
    const row = this.#rowOf(target);
    if (!row?.line) return;
    this.#hasFocus = true;
    this.#current = row.line;
    for (const other of this.#shown.values()) other.link.tabIndex = other === row ? 0 : -1;
  }

  #onClick(event) {
    const expander = event.target.closest?.("button.expander");
    const row = expander && this.#rowOf(expander);
    if (row) this.onToggle(row.line.group);
  }

  #onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || this.#current === null) return;
    const page = Math.max(1, Math.floor(innerHeight / this.#rowHeight) - 2);
    const { lines } = this.view;
    const steps = { ArrowDown: 1, ArrowUp: -1, j: 1, k: -1, PageDown: page, PageUp: -page, Home: -lines.length, End: lines.length };
    const { group, kind } = this.#current;
    if (Object.hasOwn(steps, event.key)) this.#step(steps[event.key]);
    else if (event.key === "ArrowRight" && kind === "group" && group.isGroup && !this.view.isOpen(group)) this.onToggle(group);
    else if (event.key === "ArrowLeft" && kind === "group" && group.isGroup && this.view.isOpen(group)) this.onToggle(group);
    else if (event.key === "ArrowLeft" && kind === "child") this.#goTo(group.line);
    else return;
    event.preventDefault();
  }

  #step(by) {
    const { lines } = this.view;
    const from = this.view.indexOf(this.#current);
    let to = Math.min(Math.max(from + by, 0), lines.length - 1);
    if (lines[to]?.kind === "heading") to += by < 0 && to > 0 ? -1 : 1;
    if (lines[to]) this.#goTo(lines[to]);
  }

  #goTo(line) {
    this.#current = line;
    this.#hasFocus = true;
    const top = this.sizer.getBoundingClientRect().top + this.#topOf(this.view.indexOf(line));
    const margin = this.#rowHeight * 1.5;
    if (top < margin) scrollBy(0, top - margin);
    else if (top + this.#rowHeight > innerHeight - margin) scrollBy(0, top + this.#rowHeight - innerHeight + margin);
    this.draw({ rows: new Set(), groups: new Set() }, false);
    this.#shown.get(line)?.link.focus({ preventScroll: true });
    this.#ask();
  }

  /** As somebody does who presses the tab key. */
  focus() {
    this.#shown.get(this.#current)?.link.focus({ preventScroll: true });
  }
}

/** The line that tells by now of what that one told: some are made anew when they move. */
function presentOf(line) {
  if (line.kind === "heading") return line;
  return line.kind === "child" ? line.row.line : line.group.line;
}
