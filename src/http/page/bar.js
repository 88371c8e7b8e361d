// A bar: where it is, for eyes and for screen readers. Refuses to know: what it is the progress of.

import { make, mark } from "./dom.js";
import { statusName, whole } from "./format.js";

export class BarView {
  item = make("div", "bar");
  #fill = make("div", "fill");
  #percent = NaN;

  constructor() {
    this.item.setAttribute("role", "progressbar");
    this.item.setAttribute("aria-valuemin", "0");
    this.item.setAttribute("aria-valuemax", "100");
    this.item.append(this.#fill);
  }

  /** @param {{percent: number | null, status: string, label: string}} shown `percent` is null while nobody knows */
  show({ percent, status, label }) {
    const { item } = this;
    const isUnknown = percent === null;
    mark(item, "aria-label", label);
    mark(item, "aria-valuetext", `${statusName(status)}${isUnknown ? "" : `, ${whole(percent)} %`}`);
    mark(item, "aria-valuenow", isUnknown ? null : whole(percent));
    mark(item, "data-unknown", isUnknown ? (status === "running" ? "moving" : "still") : null);
    if (percent === this.#percent) return;
    this.#percent = percent;
    this.#fill.style.transform = isUnknown ? "" : `scaleX(${percent / 100})`;
  }

  /** Another task from now on: the bar does not travel from one to the other. */
  jump() {
    this.#percent = NaN;
    this.#fill.style.transform = "";
    this.item.classList.add("jumping");
    requestAnimationFrame(() => this.item.classList.remove("jumping"));
  }
}
