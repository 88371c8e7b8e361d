// One line of the list: a task, a group or a heading. Refuses to know: which, until it is told; and where it is.

import { hasEnded } from "../client.js";
import { BarView } from "./bar.js";
import { make, mark, write } from "./dom.js";
import { numbers, statusName, tasksOf, text, titleOf, whole, wordsOf } from "./format.js";
import { addressOf } from "./route.js";

export class RowView {
  item = make("li", "row");
  link = make("a", "task-title");
  expander = make("button", "expander");
  line = null;
  #bar = new BarView();
  #message = make("span", "message");
  #percent = make("span", "percent");
  #numbers = make("span", "numbers");
  #status = make("span", "status-name");
  #attempt = make("span", "attempt");
  #heading = make("h2", "row-heading");
  #top = -1;

  constructor() {
    this.expander.type = "button";
    this.expander.tabIndex = this.link.tabIndex = -1;
    const what = make("div", "what", this.link, this.#message);
    const how = make("div", "how", this.#bar.item, this.#numbers, this.#percent);
    const status = make("div", "status", make("span", "dot"), this.#status, this.#attempt);
    this.item.append(this.expander, what, how, status, this.#heading);
  }

  /** Where it is in the list, from 0, and how far from its top in pixels. */
  move(index, count, top) {
    mark(this.item, "aria-posinset", index + 1);
    mark(this.item, "aria-setsize", count);
    if (top !== this.#top) this.item.style.transform = `translateY(${(this.#top = top)}px)`;
  }

  show(line, isOpen) {
    const isNew = line !== this.line;
    if (isNew) this.#bar.jump();
    this.line = line;
    mark(this.item, "data-kind", line.kind);
    if (line.kind === "heading") return this.#showHeading(line);
    const group = line.kind === "group" && line.group.isGroup ? line.group : null;
    const task = line.row?.task;
    const status = text(group ? group.status : task.status) || "running";
    const title = task ? titleOf(task) : line.key;
    mark(this.item, "data-task-id", task ? task.task_id : null);
    mark(this.item, "data-group", group ? group.key : null);
    mark(this.item, "data-status", status);
    write(this.link, title);
    mark(this.link, "href", addressOf({ task: task ? task.task_id : line.key }));
    mark(this.link, "title", task ? task.task_id : line.key);
    write(this.#status, statusName(status));
    write(this.#attempt, task && task.attempt > 1 ? `attempt ${task.attempt}` : "");
    this.#showExpander(group, title, isOpen);
    const percent = group ? group.percent : line.row.bar.percent;
    this.#bar.show({ percent, status, label: title });
    write(this.#percent, percent === null ? "" : `${whole(percent)} %`);
    if (group) this.#showGroup(group);
    else this.#showTask(task, line.row.bar);
  }

  #showHeading({ status }) {
    mark(this.item, "data-task-id", null);
    mark(this.item, "data-group", null);
    mark(this.item, "data-status", status);
    write(this.#heading, statusName(status));
  }

  #showExpander(group, title, isOpen) {
    this.expander.hidden = group === null || group.children.size === 0;
    if (this.expander.hidden) return;
    mark(this.expander, "aria-expanded", isOpen);
    mark(this.expander, "aria-label", `${tasksOf(group.children.size)} of ${title}`);
  }

  #showGroup(group) {
    this.#message.classList.remove("bad");
    write(this.#message, wordsOf(group));
    write(this.#numbers, group.root ? text(group.root.task.step) || text(group.root.task.message) : "");
  }

  #showTask(task, bar) {
    const failure = hasEnded(task) ? text(task.error?.message) || text(task.error?.code) : "";
    write(this.#message, failure || [text(task.step), text(task.message)].filter(Boolean).join(" · "));
    this.#message.classList.toggle("bad", failure !== "");
    write(this.#numbers, numbers(task, bar).join(" · "));
  }
}
