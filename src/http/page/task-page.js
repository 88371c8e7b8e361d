// One task's own page: how far it is, its way so far, what it said, what came of it. Keeps more of this task than of others while it
// is open. Refuses to know: the list, and how the task is told of.

import { hasEnded } from "../client.js";
import { BarView } from "./bar.js";
import { now } from "./clock.js";
import { byId, make, mark, place, write } from "./dom.js";
import { amount, moment, numbers, span, statusName, text, time, titleOf, whole, wordsOf } from "./format.js";
import { askHistory, wordsOfHistory } from "./history.js";
import { plot } from "./plot.js";
import { addressOf } from "./route.js";
import { stations, timeline } from "./timeline.js";

/** The newest frames of the open task that are kept. */
const FRAMES_MAX = 50;
const CHILDREN_MAX = 50;
/** Where a task's own words stand. */
const PARTS = [
  "task-title", "task-id", "task-message", "task-numbers", "children", "children-tally", "plot", "timeline", "details", "messages", "result",
  "metadata", "error", "error-more", "frames",
];
/** How often what is slow to draw is drawn: nobody reads faster. */
const SLOW_MS = 250;

export class TaskPage {
  /** @type {string | null} */
  id = null;
  #client;
  #model;
  #ask;
  #stop = () => {};
  #handle;
  /** @type {{at: number, task: any}[]} newest first */
  #frames = [];
  #nodes = new WeakMap();
  #bar = new BarView();
  #drawnAt = 0;
  /** The last state that was told, for when it is no longer kept. */
  #last = null;
  /** @type {any} */
  #row = null;
  /** What the service keeps of the time before, and which question for it is the one that counts: one each time that the connection is there. */
  #history = null;
  #asked = null;

  constructor(client, model, onChange) {
    this.#client = client;
    this.#model = model;
    this.#ask = onChange;
    byId("task-bar").append(this.#bar.item);
    byId("frames").closest("details").addEventListener("toggle", () => this.#drawSlow());
  }

  /** @param {string | null} id null: no task any more */
  open(id) {
    if (id === this.id) return;
    this.#stop();
    this.#row?.trail.study(false);
    this.#row = this.#last = this.#history = this.#asked = null;
    this.#frames = [];
    this.#drawnAt = -SLOW_MS;
    this.#wipe();
    this.id = id;
    if (id === null) return void (this.#stop = () => {});
    this.#bar.jump();
    this.#handle = this.#client.task(id);
    this.#stop = this.#handle.on("update", (task) => {
      if (task) this.#keep(task);
      this.#ask();
    });
    const { current } = this.#handle;
    if (current) this.#keep(current);
  }

  /** Somebody else may be looking from now on: of what was told to whoever looked before, nothing stays. */
  forget() {
    const { id } = this;
    this.open(null);
    this.open(id);
  }

  #wipe() {
    for (const id of PARTS) byId(id).replaceChildren();
    this.#words.clear();
    this.#terms.clear();
  }

  #keep(task) {
    this.#last = task;
    if (!this.#frames.some((frame) => frame.task === task)) this.#frames.unshift({ at: now(), task });
    this.#frames.length = Math.min(this.#frames.length, FRAMES_MAX);
    const row = this.#model.rows.get(this.id);
    if (row && row !== this.#row) {
      this.#row = row;
      // One that was removed and told again knows nothing of what was asked for the one before it.
      this.#history = this.#asked = null;
      row.trail.study(true);
      this.#drawnAt = -SLOW_MS;
    }
  }

  /** What came before this page, or while it was not connected. */
  #recall() {
    if (this.#client.connection.current.state !== "live") return void (this.#asked = null);
    if (this.#row === null || this.#asked !== null) return;
    const asked = (this.#asked = {});
    const take = (history) => {
      if (this.#asked !== asked) return;
      this.#history = history;
      this.#drawnAt = -SLOW_MS;
      this.#ask();
    };
    askHistory(this.id).then((history) => {
      if (this.#asked === asked) this.#keepPast(history.frames);
      take(history);
    }).catch((error) => take({ error: error.message }));
  }

  #keepPast(frames) {
    this.#row.trail.recall(frames);
    const known = new Set(this.#frames.map(({ task }) => fieldsOf(task)));
    const past = frames.map(taskOf).filter((task) => !known.has(fieldsOf(task)));
    const all = [...this.#frames, ...past.map((task) => ({ at: moment(task.updated_at), task })).reverse()];
    const changedAt = ({ at, task }) => moment(task.updated_at) || at;
    this.#frames = all.sort((one, other) => changedAt(other) - changedAt(one)).slice(0, FRAMES_MAX);
  }

  /** Like a heading that somebody went to. */
  focus() {
    byId("task-title").focus({ preventScroll: true });
  }

  draw() {
    if (this.id === null) return;
    const { current, error } = this.#handle;
    const group = this.#model.groups.get(this.id);
    const isGroup = group?.isGroup === true || (group !== undefined && group.root === null);
    // Read when they are drawn at the latest: the row may be there only after the handle was told.
    const row = this.#model.rows.get(this.id) ?? this.#row;
    if (current && (this.#row === null || row !== this.#row)) this.#keep(current);
    this.#recall();
    const task = current ?? this.#last;
    this.#drawAbsence(current, error, task, isGroup);
    byId("task-known").hidden = !task && !isGroup;
    write(byId("task-title"), task ? titleOf(task) : this.id);
    write(byId("task-id"), task && titleOf(task) !== this.id ? this.id : "");
    document.title = `${task ? titleOf(task) : this.id} · taskcast`;
    this.#drawHead(task, isGroup ? group : null);
    if (performance.now() - this.#drawnAt >= SLOW_MS) this.#drawSlow();
    else this.#later ??= setTimeout(() => {
      this.#later = undefined;
      this.#ask();
    }, SLOW_MS);
  }

  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #later;

  #drawAbsence(current, error, task, isGroup) {
    const { state } = this.#client.connection.current;
    const absence = byId("task-absent");
    absence.hidden = Boolean(current) || (isGroup && !error);
    if (absence.hidden) return;
    if (error) write(absence, `The service tells nothing of this task: ${error.message}`);
    else if (current === null && task) write(absence, "The service no longer keeps this task. Below is what it told last.");
    else if (current === null) write(absence, "The service knows no such task, or does not show it to you. Should it begin, it appears here.");
    else write(absence, state === "live" ? "Asking for this task…" : "This task is shown as soon as there is a connection.");
  }

  #drawHead(task, group) {
    const status = task ? text(task.status) : group?.status ?? "";
    byId("task").dataset.status = status;
    write(byId("task-status"), status ? statusName(status) : "");
    write(byId("task-attempt"), task?.attempt > 1 ? `attempt ${task.attempt}` : "");
    const bar = task ? this.#row?.bar : undefined;
    const own = bar?.percent ?? null;
    // As in the list: a bar of several tasks tells of all of them.
    const percent = group ? group.percent : own;
    this.#bar.show({ percent, status, label: "Progress" });
    const counted = bar ? numbers(task, bar) : [];
    const isOther = group !== null && own !== null && whole(own) !== whole(percent);
    if (percent !== null) counted.splice(1, 0, `${whole(percent)} %`, ...(isOther ? [`${whole(own)} % by its own word`] : []));
    write(byId("task-numbers"), counted.join(" · "));
    write(byId("task-message"), task ? [text(task.step), text(task.message)].filter(Boolean).join(" · ") : "");
  }

  #drawSlow() {
    this.#drawnAt = performance.now();
    if (this.id === null) return;
    const task = this.#handle.current ?? this.#last;
    const row = this.#row;
    this.#drawGroup(task);
    for (const part of document.querySelectorAll("#task [data-needs-task]")) part.hidden = !task;
    if (!task || !row) return;
    this.#drawPlot(task, row.trail);
    this.#putAnew(byId("timeline"), timeline(stations(task, row.trail)));
    this.#drawMessages(row.trail);
    this.#drawDetails(task);
    this.#drawJson("result", task.result);
    this.#drawJson("metadata", task.metadata);
    this.#drawError(task);
    this.#drawFrames();
  }

  #drawPlot(task, trail) {
    const ended = hasEnded(task) ? moment(task.completed_at) : NaN;
    const image = plot(trail, Number.isFinite(ended) ? ended : now(), Math.max(byId("plot").clientWidth, 240));
    byId("plot").closest("section").hidden = image === null && hasEnded(task);
    byId("no-plot").hidden = image !== null;
    place(byId("plot"), image ? [image] : []);
    write(byId("followed"), wordsOfHistory(trail, this.#history));
  }

  #drawMessages({ messages, dropped }) {
    byId("messages").closest("section").hidden = messages.length === 0;
    place(byId("messages"), messages.toReversed().map((message) => this.#nodeOf(message, messageNode)));
    write(byId("messages-dropped"), dropped > 0 ? `${amount(dropped)} older ones are no longer kept.` : "");
  }

  #drawDetails(task) {
    const [created, started, ended, updated] = [task.created_at, task.started_at, task.completed_at, task.updated_at].map(moment);
    const lasted = (hasEnded(task) ? ended : now()) - (Number.isFinite(started) ? started : created);
    const group = task.root_id ?? task.parent_id;
    const known = [
      ["Type", text(task.name)], ["Owner", task.user_id === undefined ? "" : String(task.user_id)], ["Worker", text(task.worker)],
      ["Tags", Array.isArray(task.tags) ? task.tags.join(", ") : ""], ["Attempt", String(task.attempt ?? 1)],
      ["Weight", Number.isFinite(task.weight) ? amount(task.weight) : ""], ["Last heard", time(updated)],
      [hasEnded(task) ? "Took" : "Running for", Number.isFinite(lasted) && lasted >= 0 ? span(lasted) : ""],
    ];
    const nodes = known.filter(([, value]) => value !== "").flatMap(([name, value]) => this.#term(name, make("span"), value));
    if (group && group !== task.task_id) {
      const part = this.#term("Part of", make("a"), group);
      mark(part[1].firstChild, "href", addressOf({ task: group }));
      nodes.push(...part);
    }
    place(byId("details"), nodes);
  }

  /** A name and its value stay where they are: one of them may be selected, or have the focus. */
  #term(name, holder, value) {
    let term = this.#terms.get(name);
    if (!term) this.#terms.set(name, (term = [make("dt", "", name), make("dd", "", holder)]));
    write(term[1].firstChild, value);
    return term;
  }

  /** @type {Map<string, HTMLElement[]>} */
  #terms = new Map();

  /** Only where it says something else: what somebody is about to follow or to copy stays. */
  #putAnew(parent, nodes) {
    const words = nodes.map(({ textContent }) => textContent).join("\n");
    if (this.#words.get(parent) === words) return;
    this.#words.set(parent, words);
    parent.replaceChildren(...nodes);
  }

  #words = new Map();

  #drawJson(id, value) {
    const isThere = value !== undefined && value !== null;
    byId(id).closest("section").hidden = !isThere;
    if (isThere) write(byId(id), typeof value === "string" ? value : JSON.stringify(value, null, 2));
  }

  #drawError({ error }) {
    const isThere = error !== undefined && error !== null;
    byId("error").closest("section").hidden = !isThere;
    if (!isThere) return;
    write(byId("error"), text(error.message) || "No message was given.");
    const more = [text(error.type), text(error.code), error.retryable === undefined ? "" : error.retryable ? "may be tried again" : "not to be tried again"];
    write(byId("error-more"), more.filter(Boolean).join(" · "));
  }

  #drawGroup(task) {
    const group = this.#model.groups.get(this.id);
    const children = group ? [...group.children].filter((row) => row.id !== this.id) : [];
    byId("children").closest("section").hidden = children.length === 0;
    if (children.length === 0) return;
    const mean = group.mean === null ? "" : `; ${whole(group.mean)} % on average`;
    write(byId("children-tally"), `${wordsOf(group)}${mean}.`);
    children.sort((a, b) => (a.begun < b.begun ? -1 : a.begun > b.begun ? 1 : a.id < b.id ? -1 : 1));
    place(byId("children"), children.slice(0, CHILDREN_MAX).map((row) => this.#childNode(row)));
    const beyond = children.length - CHILDREN_MAX;
    write(byId("children-beyond"), beyond > 0 ? `${amount(beyond)} more are in the list.` : "");
    mark(byId("children").closest("section"), "data-of", task ? null : "unknown");
  }

  #childNode(row) {
    const child = this.#nodeOf(row, () => {
      const [link, bar, percent, status] = [make("a"), new BarView(), make("span", "numbers"), make("span", "status-name")];
      link.href = addressOf({ task: row.id });
      const item = make("li", "child", link, bar.item, percent, make("span", "status", make("span", "dot"), status));
      return Object.assign(item, { show: () => {
        item.dataset.status = row.task.status;
        write(link, titleOf(row.task));
        bar.show({ percent: row.bar.percent, status: row.task.status, label: titleOf(row.task) });
        write(percent, row.bar.percent === null ? "" : `${whole(row.bar.percent)} %`);
        write(status, statusName(row.task.status));
      } });
    });
    child.show();
    return child;
  }

  #drawFrames() {
    const list = byId("frames");
    if (!list.closest("details").open) return list.replaceChildren();
    place(list, this.#frames.map((frame) => this.#nodeOf(frame, frameNode)));
  }

  #nodeOf(thing, make) {
    let node = this.#nodes.get(thing);
    if (!node) this.#nodes.set(thing, (node = make(thing)));
    return node;
  }
}

/** A frame without what it says beside the state of its task. */
function taskOf({ type, timestamp, cursor, ...task }) {
  return task;
}

/** The same for the same state, in whichever order it was told. */
const fieldsOf = (task) => JSON.stringify(Object.keys(task).sort().map((name) => [name, task[name]]));

function messageNode({ at, step, text: words, isFailure }) {
  const item = make("li", isFailure ? "bad" : "", make("time", "", time(at)));
  const said = make("span", "words", words);
  if (step) said.prepend(make("span", "step", step), " ");
  item.append(said);
  return item;
}

function frameNode({ at, task }) {
  const item = make("li", "", make("time", "", time(at)), make("pre", "", JSON.stringify(task, null, 2)));
  item.querySelector("pre").tabIndex = 0;
  return item;
}
