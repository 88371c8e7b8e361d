// <task-progress task-id="…">: one task's bar, for eyes, for screen readers, and for whoever styles it by its parts.

import { TaskcastClient } from "./client.js";
import { Bar, hasEnded, isEnd } from "./progress.js";

/** Screen readers are told at these, and at each change of status; every percent would be noise. */
const MILESTONE_PERCENT = 25;
/** Less than this between two announcements is talk. */
const ANNOUNCE_MS = 3_000;

const STYLE = `
:host { display: block; font: inherit; --taskcast-accent: #2463d6; --taskcast-good: #19733b; --taskcast-bad: #b42318; --taskcast-idle: #5b6673; --taskcast-track: #8884; }
:host([hidden]) { display: none; }
.head { display: flex; justify-content: space-between; gap: .5em; }
.label { min-width: 0; overflow-wrap: anywhere; }
.value { flex: none; font-variant-numeric: tabular-nums; }
.track { position: relative; height: .5em; margin: .3em 0; overflow: hidden; border-radius: .25em; background: var(--taskcast-track); }
.fill { position: absolute; inset: 0; background: var(--taskcast-accent); transform: scaleX(0); transform-origin: left; transition: transform .25s linear; }
:host(:dir(rtl)) .fill { transform-origin: right; }
:host([status="succeeded"]) .fill { background: var(--taskcast-good); }
:host([status="failed"]) .fill, :host([status="timed_out"]) .fill, :host([status="lost"]) .fill { background: var(--taskcast-bad); }
:host([status="cancelled"]) .fill, :host([status="expired"]) .fill { background: var(--taskcast-idle); }
.unknown .fill { width: 30%; transform: none; transition: none; animation: sweep 1.6s ease-in-out infinite; }
.still .fill { display: none; }
.stale .fill { opacity: .5; }
.message { font-size: .85em; overflow-wrap: anywhere; opacity: .8; }
.announcement { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
@keyframes sweep { from { transform: translateX(-100%); } to { transform: translateX(340%); } }
@media (prefers-reduced-motion: reduce) {
  .fill { transition: none; }
  .unknown .fill { width: 100%; animation: none; opacity: .35; }
}
@media (forced-colors: active) { .fill { background: Highlight; } .track { border: 1px solid CanvasText; } }
`;

/** One for all of them; a policy that forbids inline styles allows it. @type {CSSStyleSheet | undefined} */
let sheet;

const Base = /** @type {typeof HTMLElement} */ (globalThis.HTMLElement ?? class {});

export class TaskProgressElement extends Base {
  /** @type {TaskcastClient | null} */
  static #shared = null;
  /** @type {Set<TaskProgressElement>} */
  static #connected = new Set();
  /** @type {import("../types/index.js").ClientOptions} */
  static options = {};
  static observedAttributes = ["task-id", "url", "label"];

  /** @type {Map<string, TaskcastClient>} */
  static #clients = new Map();

  /** Of all that have none of their own. */
  static get client() {
    return TaskProgressElement.#shared;
  }
  static set client(client) {
    TaskProgressElement.#shared = client;
    for (const element of TaskProgressElement.#connected) element.#follow();
    // A page's script may come after its elements; what they began with is not needed any more.
    for (const [url, made] of client === null ? [] : TaskProgressElement.#clients) {
      TaskProgressElement.#clients.delete(url);
      made.close();
    }
  }

  /** @type {TaskcastClient | null} */
  #client = null;
  /** @type {any} */
  #handle = null;
  /** @type {() => void} */
  #stop = () => {};
  /** Whose task this is about, which is not forgotten when the element is moved. */
  #followed = /** @type {{client: TaskcastClient | null, id: string | null}} */ ({ client: null, id: null });
  /** What it was told last. */
  #before;
  /** Since when nobody could tell whether it still holds; null while the connection is live. @type {number | null} */
  #asOf = null;
  #bar = new Bar();
  #parts;
  #announcedAt = 0;
  #announced = "";
  #timer;

  get client() {
    return this.#client;
  }
  set client(client) {
    this.#client = client;
    this.#follow();
  }

  get taskId() {
    return this.getAttribute("task-id");
  }
  set taskId(id) {
    if (id === null || id === undefined) this.removeAttribute("task-id");
    else this.setAttribute("task-id", id);
  }

  get task() {
    return this.#handle?.current;
  }

  connectedCallback() {
    TaskProgressElement.#connected.add(this);
    this.#build();
    // What was set before this script came is the element's own, and would hide what belongs here.
    for (const name of ["client", "taskId"]) {
      if (!Object.hasOwn(this, name)) continue;
      const value = this[name];
      delete this[name];
      this[name] = value;
    }
    this.#follow();
  }

  disconnectedCallback() {
    TaskProgressElement.#connected.delete(this);
    this.#stop();
    this.#stop = () => {};
    this.#handle = null;
  }

  attributeChangedCallback(name, before, now) {
    // While a page is parsed attributes come first.
    if (before === now || !this.isConnected || !this.#parts) return;
    if (name === "label") this.#draw();
    else this.#follow();
  }

  /** Its own client, else the one of all, else one for the service's address. */
  #clientToUse() {
    const shared = TaskProgressElement;
    if (this.#client ?? shared.client) return this.#client ?? shared.client;
    const url = this.getAttribute("url") ?? undefined;
    const key = url ?? "";
    const client = shared.#clients.get(key) ?? new TaskcastClient({ ...shared.options, ...(url === undefined ? {} : { url }) });
    shared.#clients.set(key, client);
    return client;
  }

  #follow() {
    this.#stop();
    this.#stop = () => {};
    if (!this.isConnected) return;
    const id = this.taskId;
    const client = id ? this.#clientToUse() : null;
    const handle = (this.#handle = id && client ? client.task(id) : null);
    if (client !== this.#followed.client || id !== this.#followed.id) {
      this.#followed = { client, id };
      this.#bar = new Bar();
      this.#before = handle?.current;
      this.#announced = "";
      this.#asOf = null;
      clearTimeout(this.#timer);
    }
    if (handle && client) {
      const stops = [handle.subscribe(() => this.#tell(handle.current)), client.connection.subscribe(() => this.#draw())];
      this.#stop = () => stops.forEach((stop) => stop());
    }
    this.#draw();
  }

  #tell(task) {
    this.#draw();
    if (!task) return;
    const before = this.#before;
    this.#before = task;
    this.dispatchEvent(new CustomEvent("task-update", { detail: task }));
    if (isEnd(before, task)) this.dispatchEvent(new CustomEvent("task-end", { detail: task, bubbles: true }));
  }

  /** The state of the connection, and since when it tells nothing. */
  #look() {
    const { state, freshUntil } = this.#followed.client?.connection.current ?? { state: "closed" };
    if (state === "live") this.#asOf = null;
    else this.#asOf ??= Date.parse(freshUntil ?? "") || Date.now();
    return state;
  }

  #build() {
    if (this.#parts) return;
    const root = this.attachShadow({ mode: "open" });
    style(root);
    const part = (tag, name, parent) => {
      const node = document.createElement(tag);
      node.className = name;
      node.setAttribute("part", name);
      parent.append(node);
      return node;
    };
    const head = part("div", "head", root);
    const label = part("span", "label", head);
    const value = part("span", "value", head);
    const track = part("div", "track", root);
    const fill = part("div", "fill", track);
    const message = part("div", "message", root);
    const announcement = part("span", "announcement", root);
    track.setAttribute("role", "progressbar");
    track.setAttribute("aria-valuemin", "0");
    track.setAttribute("aria-valuemax", "100");
    announcement.setAttribute("role", "status");
    announcement.setAttribute("aria-live", "polite");
    this.#parts = { label, value, track, fill, message, announcement };
  }

  #draw() {
    const { label, value, track, fill, message } = this.#parts;
    const task = this.task ?? null;
    const connection = this.#look();
    const isOver = task !== null && hasEnded(task);
    const isStale = task !== null && !isOver && connection !== "live";
    const status = task?.status ?? "unknown";
    const percent = task ? this.#bar.show(task) : null;
    const name = this.getAttribute("label") ?? task?.title ?? task?.name ?? this.taskId ?? "";
    const left = this.#bar.secondsLeft;
    const words = task ? statusText(status) : this.task === null ? "not known" : connection === "unauthorised" ? connection : "waiting";
    const number = percent === null ? "" : `${Math.floor(percent)} %`;
    for (const [attribute, now] of [["status", status], ["connection", connection]]) {
      if (this.getAttribute(attribute) !== now) this.setAttribute(attribute, now);
    }
    write(label, name);
    // Colours alone would not tell everybody how it ended.
    write(value, number && isOver && status !== "succeeded" ? `${words} · ${number}` : number || words);
    write(message, (isOver && task.error?.message) || [task?.step, task?.message].filter(Boolean).join(" · "));
    track.classList.toggle("unknown", percent === null);
    track.classList.toggle("still", percent === null && status !== "running");
    fill.style.transform = percent === null ? "" : `scaleX(${percent / 100})`;
    track.classList.toggle("stale", isStale);
    track.setAttribute("aria-label", name || "progress");
    const asOf = isStale && this.#asOf !== null ? `as of ${new Date(this.#asOf).toLocaleTimeString()}` : "";
    track.setAttribute("aria-valuetext", [words, number, left === null || isStale ? "" : `${durationText(left)} left`, asOf].filter(Boolean).join(", "));
    if (percent === null) track.removeAttribute("aria-valuenow");
    else track.setAttribute("aria-valuenow", String(Math.floor(percent)));
    if (task) this.#announce(status, percent, name);
  }

  #announce(status, percent, name) {
    const milestone = percent === null || percent === 100 ? 0 : Math.floor(percent / MILESTONE_PERCENT) * MILESTONE_PERCENT;
    const words = milestone > 0 && status === "running" ? `${name}: ${milestone} %` : `${name}: ${statusText(status)}`;
    if (words === this.#announced) return;
    // What a page found when it came needs no announcement: it can be read.
    const isFirst = this.#announced === "";
    this.#announced = words;
    clearTimeout(this.#timer);
    if (isFirst) return;
    const wait = hasEnded({ status }) ? 0 : Math.max(this.#announcedAt + ANNOUNCE_MS - Date.now(), 0);
    this.#timer = setTimeout(() => {
      this.#announcedAt = Date.now();
      write(this.#parts.announcement, words);
    }, wait);
  }
}

function style(root) {
  try {
    if (!sheet) {
      sheet = new CSSStyleSheet();
      sheet.replaceSync(STYLE);
    }
    root.adoptedStyleSheets = [sheet];
  } catch {
    // Browsers before 2023.
    const node = document.createElement("style");
    node.textContent = STYLE;
    root.append(node);
  }
}

function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

const statusText = (status) => status.replace("_", " ");

function durationText(seconds) {
  const [amount, unit] = seconds < 60 ? [seconds, "second"] : seconds < 3600 ? [seconds / 60, "minute"] : [seconds / 3600, "hour"];
  const whole = Math.max(1, Math.round(amount));
  return `about ${whole} ${unit}${whole === 1 ? "" : "s"}`;
}

if (globalThis.customElements && !customElements.get("task-progress")) customElements.define("task-progress", TaskProgressElement);
