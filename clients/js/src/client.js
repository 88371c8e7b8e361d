// The client: its settings, its store, and who keeps the connection open.

import { Connection } from "./connection.js";
import { TaskcastError } from "./errors.js";
import { TaskHandle, TasksHandle, isUnder } from "./handles.js";
import { Observable } from "./observable.js";
import { followPage } from "./page.js";
import { hasEnded } from "./progress.js";
import { openServerSentEvents } from "./sse.js";
import { Store } from "./store.js";
import { SharedConnection, canShare } from "./tabs.js";
import { openWebSocket } from "./websocket.js";

/** How long what nobody listens to any more is kept: a page that renders again, or goes to another view, finds it there. */
export const LINGER_MS = 5_000;
/** How long after a snapshot the states of groups and tags may take, before what they did not tell of is not shown any more. */
const SETTLE_MS = 2_000;
/** How long somebody waits for an answer, connecting included. */
const REQUEST_TIMEOUT_MS = 30_000;

const TRANSPORTS = { websocket: openWebSocket, sse: openServerSentEvents };

/** @extends {Observable<import("../types/index.js").ConnectionStatus>} */
class ConnectionView extends Observable {
  /** @type {import("../types/index.js").ConnectionStatus} */
  status = Object.freeze({ state: "closed", reason: "nobody is listening yet" });

  get current() {
    return this.status;
  }
}

export class TaskcastClient {
  store = new Store();
  connection = new ConnectionView();
  isClosed = false;
  #link;
  /** What `task` and `tasks` give out again, by key; for a while also when nobody listens. @type {Map<string, any>} */
  #handles = new Map();
  /** Those that are listened to, by key. @type {Map<string, Set<any>>} */
  #used = new Map();
  /** Lists that follow the store. @type {Set<TasksHandle>} */
  #lists = new Set();
  /** What ends unless it is used again before, by key. @type {Map<string, any>} */
  #lingering = new Map();
  /** Those who want a connection, whatever is listened to. */
  #holds = 0;
  #filters = 0;
  #watch;
  #scope;
  #settling;
  /** @type {(() => void) | null} */
  #unfollow = null;

  /** @param {import("../types/index.js").ClientOptions} [options] */
  constructor(options = {}) {
    const { getToken, transports = ["websocket", "sse"], shareAcrossTabs = false, scope, watch = "own", deliver, throttleMs } = options;
    const names = transports.filter((name) => Object.hasOwn(TRANSPORTS, name));
    if (names.length === 0 || names.length < transports.length) throw new TypeError("transports are 'websocket' and 'sse', one or both");
    /** @type {Record<string, string>} */
    const query = {};
    if (watch === "all") query.watch = "all";
    if (deliver !== undefined) query.deliver = deliver;
    if (throttleMs !== undefined) query.throttle_ms = String(throttleMs);
    this.#watch = watch;
    this.#scope = scope ?? {};
    const settings = {
      base: baseOf(options.url), path: pathOf(this.#scope), query, names, transports: names.map((name) => TRANSPORTS[name]),
      getToken: typeof getToken === "function" ? getToken : null,
    };
    const link = (sink) => new Connection(settings, sink);
    const name = `taskcast ${settings.base.href}${settings.path}?${new URLSearchParams(query)} ${shareAcrossTabs}`;
    this.#link = shareAcrossTabs && canShare() ? new SharedConnection(name, link, this.store, this.#sink()) : link(this.#sink());
    this.store.watch((id, now, before) => {
      for (const handle of this.#used.get(`task:${id}`) ?? []) handle.notify();
      for (const list of this.#lists) list.onChange(now, before);
    });
  }

  #sink() {
    const { store } = this;
    return {
      apply: (task) => store.apply(task),
      remove: (id) => store.remove(id),
      unknown: (id) => {
        const task = store.get(id);
        if (!task || !hasEnded(task)) store.remove(id);
      },
      supersede: () => {
        clearTimeout(this.#settling);
        store.supersede();
      },
      settle: () => store.settle((task) => this.#isSubscribedTo(task) && (this.#canAsk || !this.#isCovered(task.task_id))),
      clear: () => this.#clear(),
      cursor: () => {},
      keep: (selectors) => this.#keep(selectors),
      ready: () => {
        clearTimeout(this.#settling);
        this.#settling = setTimeout(() => this.#lapse(), SETTLE_MS);
      },
      accepted: (key) => this.#note(key, null),
      refused: (key, error) => this.#refused(key, error),
      status: (status) => {
        // What is not told now is told by the next connection.
        if (!["live", "degraded"].includes(status.state)) clearTimeout(this.#settling);
        this.connection.status = status;
        this.connection.notify();
      },
    };
  }

  // ---- what is given out ----

  /** @param {string} id */
  task(id) {
    if (typeof id !== "string" || id === "") throw new TypeError("the id of a task is a text");
    return this.#handle(`task:${id}`, () => new TaskHandle(this, id));
  }

  /** @param {import("../types/index.js").TasksQuery} [query] */
  tasks(query = {}) {
    if (query.root !== undefined && query.tag !== undefined) throw new TypeError("a query has a root or a tag, not both");
    const { filter, ...plain } = query;
    let key = `tasks:${JSON.stringify(Object.entries(plain).filter(([, value]) => value !== undefined).sort())}`;
    // What a function does cannot be compared, so such a list is nobody else's.
    if (filter) key += `#${(this.#filters += 1)}`;
    return this.#handle(key, () => new TasksHandle(this, key, query));
  }

  #handle(key, make) {
    const known = this.#handles.get(key);
    if (known) return known;
    const handle = make();
    this.#handles.set(key, handle);
    this.#linger(key, () => this.#let(handle));
    return handle;
  }

  /**
   * Every change of every task that is known here, one at a time, as it comes. Does not connect by itself.
   * @param {(id: string, now: import("../types/index.js").Task | undefined, before: import("../types/index.js").Task | undefined) => void} listener
   * @returns {() => void} stops it
   */
  watch(listener) {
    return this.store.watch(listener);
  }

  // ---- who uses it ----

  /** @param {any} handle somebody listens to it from now on */
  retain(handle) {
    const { key } = handle;
    clearTimeout(this.#lingering.get(key));
    this.#lingering.delete(key);
    if (!this.#handles.has(key)) this.#handles.set(key, handle);
    const used = this.#used.get(key) ?? new Set();
    this.#used.set(key, used.add(handle));
    if (handle instanceof TasksHandle) {
      handle.attach();
      this.#lists.add(handle);
    }
    this.#want(handle);
    this.#start();
  }

  #want({ key, selector }) {
    if (selector && !(selector.task_id && this.#isCovered(selector.task_id))) this.#link.want(key, selector);
  }

  /** @param {any} handle nobody listens to it any more */
  release(handle) {
    const { key } = handle;
    if (handle instanceof TasksHandle) {
      this.#lists.delete(handle);
      handle.detach();
    }
    const used = this.#used.get(key);
    used?.delete(handle);
    if (used?.size) return this.#let(handle);
    this.#used.delete(key);
    this.#linger(key, () => this.#let(handle));
    this.#stopIfUnused();
  }

  #let(handle) {
    const { key, selector } = handle;
    handle.error = null;
    if (this.#used.has(key)) return;
    this.#handles.delete(key);
    if (!selector) return;
    this.#link.unwant(key);
    // Another tab may want it still.
    if (this.#link instanceof SharedConnection) return;
    const { tasks } = this.store;
    const selected = selector.task_id ? [tasks.get(selector.task_id)] : [...tasks.values()].filter((task) => isSelected(task, selector));
    for (const task of selected) if (task) this.#forgetUncovered(task);
    // Nor is anybody told any more that there is none.
    if (selector.task_id && this.store.get(selector.task_id) === null) this.store.forget(selector.task_id);
  }

  /** Calls it after a while, unless the key is used before. */
  #linger(key, then) {
    clearTimeout(this.#lingering.get(key));
    const timer = setTimeout(() => {
      this.#lingering.delete(key);
      then();
    }, LINGER_MS);
    // A server that renders pages need not wait for it.
    /** @type {any} */ (timer).unref?.();
    this.#lingering.set(key, timer);
  }

  /** The address shows it, so it needs no subscription of its own. */
  #isCovered(id) {
    const task = this.store.get(id);
    if (!task) return this.#scope.task === id;
    const { userId } = this.connection.status;
    if (this.#scope.task !== undefined) return this.#scope.task === id;
    if (this.#scope.root !== undefined) return isUnder(task, this.#scope.root);
    return this.#watch === "all" || (typeof userId === "string" && String(task.user_id) === userId);
  }

  #isSubscribedTo(task) {
    for (const [handle] of this.#used.values()) if (handle.selector && isSelected(task, handle.selector)) return true;
    return false;
  }

  /** What nobody keeps up to date must not look as if somebody did. */
  #forgetUncovered(task) {
    // A token that names nobody, or is not known here, shows what the address shows, whatever that is.
    if (typeof this.connection.status.userId !== "string") return;
    if (!this.#isCovered(task.task_id) && !this.#isSubscribedTo(task)) this.store.forget(task.task_id);
  }

  /** Where tabs share: these are what they want, all together. */
  #keep(selectors) {
    const ids = new Set(selectors.map(({ task_id: id }) => id));
    const others = selectors.filter(({ task_id: id }) => id === undefined);
    for (const task of [...this.store.tasks.values()]) {
      if (!ids.has(task.task_id) && !others.some((selector) => isSelected(task, selector))) this.#forgetUncovered(task);
    }
  }

  #refused(key, error) {
    if (error.code === "LIMIT_REACHED" && this.#relieve()) return this.#rewant(key);
    const [handle] = this.#used.get(key) ?? [];
    const id = handle?.selector?.task_id;
    // The address may show it, once it is there.
    if (error.code === "UNSUPPORTED" && id && (!this.store.get(id) || this.#isCovered(id))) return;
    this.#note(key, error);
  }

  #note(key, error) {
    for (const handle of this.#used.get(key) ?? []) {
      // Of a list, whether it is complete may have changed besides.
      if (handle.error === error && handle instanceof TaskHandle) continue;
      handle.error = error;
      handle.notify();
    }
  }

  /** As somebody else: what was covered, refused or given up may not be. */
  #clear() {
    this.store.clear();
    this.#relieved.clear();
    for (const [key, [handle]] of this.#used) {
      this.#note(key, null);
      this.#want(handle);
    }
  }

  get #canAsk() {
    return this.connection.status.transport !== "sse";
  }

  /** What nothing told of again is not shown any more. Whether it is still there is asked of what somebody holds. */
  #lapse() {
    this.store.settle(({ task_id: id }) => {
      const [handle] = this.#used.get(`task:${id}`) ?? [];
      if (!handle || !(this.#canAsk || handle.error)) return false;
      this.#link.want(handle.key, handle.selector);
      return true;
    }, "forget");
  }

  /** Gives up subscriptions to tasks that turned out to be shown anyway. */
  #relieve() {
    let relieved = 0;
    for (const [key, [handle]] of this.#used) {
      const id = handle.selector?.task_id;
      if (id !== undefined && !this.#relieved.has(key) && this.#isCovered(id)) {
        this.#relieved.add(key);
        this.#link.unwant(key);
        relieved += 1;
      }
    }
    return relieved > 0;
  }

  #relieved = new Set();

  #rewant(key) {
    const [handle] = this.#used.get(key) ?? [];
    if (handle?.selector) this.#link.want(key, handle.selector);
  }

  #start() {
    clearTimeout(this.#lingering.get(CONNECTION));
    this.#lingering.delete(CONNECTION);
    if (this.isClosed) return;
    this.#unfollow ??= followPage({
      wake: () => this.#link.wake(), online: () => this.#link.online(), offline: () => this.#link.offline(),
      suspend: () => this.#link.suspend(), resume: () => this.#link.resume(),
    });
    this.#link.start();
  }

  #stopIfUnused() {
    if (this.isClosed || this.#used.size > 0 || this.#holds > 0) return;
    this.#linger(CONNECTION, () => {
      const { state, isWaiting } = this.connection.status;
      // A refusal stands, whoever comes and goes.
      if (state !== "unauthorised" || isWaiting) this.#stop("nobody is listening");
    });
  }

  #stop(reason) {
    this.#unfollow?.();
    this.#unfollow = null;
    clearTimeout(this.#settling);
    this.#relieved.clear();
    this.#link.stop(reason);
  }

  // ---- what people can do ----

  /** Connects, whether anything is listened to or not, until the function that it returns is called. */
  connect() {
    this.#holds += 1;
    this.#start();
    let isHeld = true;
    return () => {
      if (!isHeld) return;
      isHeld = false;
      this.#holds -= 1;
      this.#stopIfUnused();
    };
  }

  /** Tries at once what would be tried later. */
  retry() {
    this.#link.wake();
  }

  /** Begins anew, as somebody else perhaps: tasks, cursor and token are forgotten, and `getToken` is asked again. */
  restart() {
    this.#link.restart();
    this.#stopIfUnused();
  }

  /** For good: what waits for a task is told so. */
  close() {
    if (this.isClosed) return;
    this.isClosed = true;
    for (const timer of this.#lingering.values()) clearTimeout(timer);
    this.#lingering.clear();
    this.#stop("the client was closed");
    for (const used of this.#used.values()) for (const handle of used) handle.notify();
  }

  /**
   * Connects for it, when nothing else does.
   * @param {{type: string, [field: string]: unknown}} message
   * @returns {Promise<any>}
   */
  request(message) {
    const release = this.connect();
    let stop = () => {}, timer;
    const answer = new Promise((resolve, reject) => {
      timer = setTimeout(() => reject(new TaskcastError("CONNECTION_LOST", "no answer came in time")), REQUEST_TIMEOUT_MS);
      const ask = () => {
        if (this.connection.status.state === "connecting") return;
        stop();
        this.#link.request(message).then(resolve, reject);
      };
      stop = this.connection.subscribe(ask);
      ask();
    });
    return answer.finally(() => {
      clearTimeout(timer);
      stop();
      release();
    });
  }

  /** Whether the service said that it tells of what this key stands for. */
  isAnswered(/** @type {string} */ key) {
    return this.#link.isAnswered(key);
  }
}

/** A key that no handle has. */
const CONNECTION = "";

function isSelected(task, { task_id: id, root_id: root, tag }) {
  return id !== undefined ? task.task_id === id : root !== undefined ? isUnder(task, root) : task.tags?.includes(tag) === true;
}

/** Where the service is when nobody says: set by who knows. @type {string | undefined} */
let home;
export const setHome = (/** @type {string} */ url) => { home = url; };

function baseOf(url) {
  // A server that renders the page has none, and connects to nothing.
  const base = new URL(url ?? home ?? ".", globalThis.location?.href ?? "http://localhost:6161/");
  base.search = base.hash = "";
  if (!base.pathname.endsWith("/")) base.pathname += "/";
  return base;
}

function pathOf({ task, root }) {
  if (task !== undefined) return `tasks/${encodeURIComponent(task)}/`;
  return root !== undefined ? `groups/${encodeURIComponent(root)}/` : "tasks/";
}
