// One connection for all tabs of a browser: the tab that holds a lock has it, and tells the others what it hears. When it
// closes, or crashes, the lock goes to the next one, which carries on with the cursor.

import { TaskcastError } from "./errors.js";

/** How often the leader looks which tabs are still there. */
const CENSUS_MS = 60_000;
/** Tasks that go to a new tab in one message. */
const TASKS_PER_MESSAGE = 500;
/** How long a tab waits for the leader's answer to what it asked. */
const REQUEST_TIMEOUT_MS = 30_000;

export const canShare = () =>
  typeof globalThis.BroadcastChannel === "function" && typeof globalThis.navigator?.locks?.request === "function";

const newId = () => Array.from(crypto.getRandomValues(new Uint32Array(4)), (part) => part.toString(36)).join("");

/** The same to its client as a connection. */
export class SharedConnection {
  #name;
  #newConnection;
  #store;
  #sink;
  #id = newId();
  /** @type {BroadcastChannel | null} */
  #channel = null;
  /** @type {import("./connection.js").Connection | null} while this tab leads */
  #connection = null;
  /** @type {AbortController | null} */
  #leaving = null;
  /** Tabs by id, and what they want by key. @type {Map<string, Map<string, object>>} */
  #tabs = new Map();
  /** @type {Map<string, any>} */
  #wanted = new Map();
  #requests = new Map();
  #requestId = 0;
  #cursor = null;
  #userId = undefined;
  #census;
  /** The id of the tab that was heard to lead. @type {string | null} */
  #leader = null;
  #isSuspended = false;
  status = Object.freeze({ state: "closed", reason: "not started" });

  /**
   * @param {string} name what shares a connection
   * @param {(sink: import("./connection.js").Sink) => import("./connection.js").Connection} newConnection
   * @param {import("./store.js").Store} store
   * @param {import("./connection.js").Sink} sink
   */
  constructor(name, newConnection, store, sink) {
    this.#name = name;
    this.#newConnection = newConnection;
    this.#store = store;
    this.#sink = sink;
  }

  start() {
    if (this.#channel || this.#isSuspended) return;
    const channel = (this.#channel = new BroadcastChannel(this.#name));
    channel.onmessage = ({ data }) => this.#hear(data);
    this.#show({ state: "connecting", reason: "waiting for the tab that has the connection" });
    const leaving = (this.#leaving = new AbortController());
    const left = new Promise((resolve) => leaving.signal.addEventListener("abort", () => resolve(undefined)));
    const isLeft = () => leaving.signal.aborted;
    const ignore = () => {};
    // Held for as long as the tab lives: this is how the leader knows that it does.
    navigator.locks.request(`${this.#name} ${this.#id}`, { signal: leaving.signal }, () => left).catch(ignore);
    navigator.locks
      .request(this.#name, { signal: leaving.signal }, () => {
        if (isLeft()) return undefined;
        this.#lead();
        return left;
      })
      .catch(ignore);
    this.#hello();
  }

  stop(reason) {
    this.#leave();
    this.#show({ state: "closed", reason });
  }

  #leave() {
    this.#post({ kind: "bye" });
    clearInterval(this.#census);
    // The connection ends before the lock is let go of, so that there are never two.
    this.#connection?.stop("another tab has it");
    this.#connection = null;
    this.#leaving?.abort();
    this.#channel?.close();
    this.#channel = this.#leaving = this.#leader = null;
    this.#tabs.clear();
    this.#lose();
  }

  suspend() {
    this.#isSuspended = true;
    if (!this.#channel) return;
    this.#leave();
    this.#wasSuspended = true;
    this.#show({ state: "reconnecting", reason: "the page was put aside" });
  }

  #wasSuspended = false;

  resume() {
    this.#isSuspended = false;
    if (this.#wasSuspended) this.start();
    this.#wasSuspended = false;
  }

  wake() {
    if (this.#connection) this.#connection.wake();
    else this.#post({ kind: "wake" });
  }

  online() {
    this.#connection?.online();
  }

  offline() {
    this.#connection?.offline();
  }

  /** In every tab: whoever signs in here signs in everywhere. */
  restart() {
    if (this.#connection) this.#connection.restart();
    else this.#post({ kind: "restart" });
  }

  want(key, selector) {
    this.#wanted.set(key, selector);
    this.#tellWanted();
  }

  unwant(key) {
    if (this.#wanted.delete(key)) this.#tellWanted();
  }

  /** What the leader was answered the others do not hear. */
  isAnswered(key) {
    return this.#connection?.isAnswered(key) ?? true;
  }

  request(message) {
    if (this.#connection) return this.#connection.request(message);
    if (this.#leader === null) return Promise.reject(new TaskcastError("NOT_CONNECTED", "there is no connection at the moment"));
    return new Promise((resolve, reject) => {
      const number = (this.#requestId += 1);
      const timer = setTimeout(() => this.#settle(number, { error: { code: "CONNECTION_LOST", message: "no answer came" } }), REQUEST_TIMEOUT_MS);
      this.#requests.set(number, { resolve, reject, timer });
      this.#post({ kind: "request", number, message });
    });
  }

  /** @param {number} number @param {{answer?: any, error?: {code: string, message: string}}} outcome */
  #settle(number, { answer, error }) {
    const request = this.#requests.get(number);
    if (!request) return;
    clearTimeout(request.timer);
    this.#requests.delete(number);
    if (error) request.reject(new TaskcastError(error.code, error.message));
    else request.resolve(answer);
  }

  #lose() {
    const error = { code: "CONNECTION_LOST", message: "the tab that had the connection was closed" };
    for (const number of [...this.#requests.keys()]) this.#settle(number, { error });
  }

  #show(status) {
    this.#userId = status.userId;
    this.status = status;
    this.#sink.status(status);
  }

  #post(message) {
    this.#channel?.postMessage({ ...message, from: this.#id });
  }

  // ---- as one of the others ----

  #hello() {
    this.#post({ kind: "hello", wanted: [...this.#wanted] });
  }

  #tellWanted() {
    if (this.#connection) this.#gather();
    else this.#post({ kind: "wanted", wanted: [...this.#wanted] });
  }

  #hear(message) {
    if (message.to !== undefined && message.to !== this.#id) return;
    if (this.#connection) this.#hearAsLeader(message);
    else this.#hearAsFollower(message);
  }

  #hearAsFollower(message) {
    if (message.kind === "leads") {
      this.#leader = message.from;
      this.#lose();
      return this.#hello();
    }
    if (message.from !== this.#leader && message.kind !== "welcome") return;
    switch (message.kind) {
      case "welcome":
        this.#leader = message.from;
        this.#sink.supersede();
        break;
      case "tasks":
        for (const task of message.tasks) this.#sink.apply(task);
        break;
      case "welcomed":
        this.#store.settle();
        this.#keepCursor(message.cursor);
        this.#show(message.status);
        break;
      case "call":
        this.#repeat(message);
        break;
      case "answer":
        this.#settle(message.number, message);
        break;
      case "bye":
        this.#leader = null;
        this.#lose();
        this.#show({ state: "reconnecting", reason: "another tab takes over", userId: this.#userId });
        break;
    }
  }

  /** What the leader's connection did to its sink, done to this one's. */
  #repeat({ verb, value }) {
    if (verb === "apply" && typeof value.cursor === "string") this.#keepCursor(value.cursor);
    if (verb === "cursor") this.#keepCursor(value);
    else if (verb === "status") this.#show(value);
    else if (verb === "refused") this.#sink.refused(value.key, new TaskcastError(value.code, value.message));
    else this.#sink[verb]?.(value);
  }

  #keepCursor(cursor) {
    this.#cursor = cursor;
  }

  // ---- as the leader ----

  #lead() {
    const sink = this.#sink;
    const told = (verb) => (value) => {
      sink[verb](value);
      this.#tell(verb, value);
    };
    this.#leader = this.#id;
    this.#gathered = new Map();
    const connection = this.#newConnection({
      apply: (task) => {
        // A frame brings its cursor, which then needs no message of its own.
        if (typeof task?.cursor === "string") this.#keepCursor(task.cursor);
        told("apply")(task);
      },
      remove: told("remove"), supersede: told("supersede"), settle: told("settle"),
      ready: told("ready"), clear: told("clear"), accepted: told("accepted"), unknown: told("unknown"),
      cursor: (cursor) => {
        if (cursor === this.#cursor) return;
        this.#keepCursor(cursor);
        this.#tell("cursor", cursor);
      },
      refused: (key, error) => {
        // Whoever wants it again may have it again.
        this.#gathered.delete(key);
        sink.refused(key, error);
        this.#tell("refused", { key, code: error.code, message: error.message });
      },
      status: (status) => {
        this.#show(status);
        this.#tell("status", status);
      },
    });
    this.#connection = connection;
    connection.adopt(this.#cursor);
    this.#gather();
    this.#post({ kind: "leads" });
    this.#census = setInterval(() => this.#count(), CENSUS_MS);
    connection.start();
  }

  /** One tab alone has nobody to tell. */
  #tell(verb, value) {
    if (this.#tabs.size > 0) this.#post({ kind: "call", verb, value });
  }

  #hearAsLeader({ kind, from, wanted, number, message }) {
    switch (kind) {
      case "hello":
        this.#tabs.set(from, new Map(wanted));
        this.#gather();
        return this.#welcome(from);
      case "wanted":
        this.#tabs.set(from, new Map(wanted));
        return this.#gather();
      case "bye":
        if (this.#tabs.delete(from)) this.#gather();
        return undefined;
      case "wake":
        return this.#connection?.wake();
      case "restart":
        return this.#connection?.restart();
      case "request":
        return void this.#connection?.request(message).then(
          (answer) => this.#post({ kind: "answer", to: from, number, answer }),
          (error) => this.#post({ kind: "answer", to: from, number, error: { code: error.code, message: error.message } }),
        );
    }
  }

  #welcome(to) {
    this.#post({ kind: "welcome", to });
    const tasks = [...this.#store.tasks.values()];
    for (let at = 0; at < tasks.length; at += TASKS_PER_MESSAGE) {
      this.#post({ kind: "tasks", to, tasks: tasks.slice(at, at + TASKS_PER_MESSAGE) });
    }
    this.#post({ kind: "welcomed", to, cursor: this.#cursor, status: this.status });
  }

  /** Subscribes to what any tab wants, and to nothing else. */
  #gather() {
    const connection = this.#connection;
    if (!connection) return;
    const all = new Map(this.#wanted);
    for (const wanted of this.#tabs.values()) for (const [key, selector] of wanted) all.set(key, selector);
    for (const key of this.#gathered.keys()) if (!all.has(key)) connection.unwant(key);
    for (const [key, selector] of all) if (!this.#gathered.has(key)) connection.want(key, selector);
    this.#gathered = all;
  }

  #gathered = new Map();

  /** Tabs that crashed say no goodbye, but hold no lock. */
  async #count() {
    const { held } = await navigator.locks.query();
    const alive = new Set(held?.map(({ name }) => name));
    for (const id of this.#tabs.keys()) if (!alive.has(`${this.#name} ${id}`)) this.#tabs.delete(id);
    this.#gather();
  }
}
