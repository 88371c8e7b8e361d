// One connection for all tabs of a browser: the tab that holds a lock has it, and tells the others what it hears. When it
// closes, or crashes, the lock goes to the next one, which carries on with the cursor; when it stands still, another takes it.

import { TaskcastError } from "./errors.js";

/** How often the leader looks which tabs are still there. */
const CENSUS_MS = 60_000;
/** Tasks that go to a new tab in one message. */
const TASKS_PER_MESSAGE = 500;
/** How long a tab waits for the leader's answer to what it asked. */
const REQUEST_TIMEOUT_MS = 30_000;
/** The least time that a leader may take to say that it is there, before another tab takes its place. */
const SILENCE_MS = 10_000;
/** A timer that is later than this was held up itself. */
const LATE_MS = 2_000;
/** How long after a subscription ended its tasks are forgotten: many end at once when a page goes to another view. */
const SWEEP_MS = 1_000;

export const canShare = () =>
  typeof globalThis.BroadcastChannel === "function" && typeof globalThis.navigator?.locks?.request === "function";

const newId = () => Array.from(crypto.getRandomValues(new Uint32Array(4)), (part) => part.toString(36)).join("");

/** @param {AbortSignal} signal @returns {Promise<void>} */
const gone = (signal) => new Promise((resolve) => signal.addEventListener("abort", () => resolve()));

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
  /** Whose the tasks and the cursor are. @type {string | null | undefined} */
  #userId = undefined;
  /** @type {string | undefined} */
  #rights = undefined;
  #census;
  #sweep;
  #silence;
  /** Somebody signed in while there was no leader to tell. */
  #isToRestart = false;
  /** This tab has heard all that the last leader told. */
  #isCurrent = false;
  /** Keys of what this tab wants that the leader's connection was answered. @type {Set<string>} */
  #answered = new Set();
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
    this.#leaving = new AbortController();
    const { signal } = this.#leaving;
    // Held for as long as the tab lives: this is how the leader knows that it does.
    navigator.locks.request(`${this.#name} ${this.#id}`, { signal }, () => gone(signal)).catch(() => {});
    this.#queue({ signal });
    this.#census = setInterval(() => (this.#connection ? this.#count() : this.#ask("ask")), CENSUS_MS);
    this.#hello();
    this.#ask("ask");
  }

  /** Leads once the lock is its own. @param {LockOptions} options */
  #queue(options) {
    const leaving = /** @type {AbortController} */ (this.#leaving);
    const lead = () => {
      if (leaving.signal.aborted || this.#connection) return undefined;
      this.#lead();
      return gone(leaving.signal);
    };
    navigator.locks.request(this.#name, options, lead).catch(() => {
      // Another tab took it, because this one's page stood still.
      if (leaving.signal.aborted || !this.#connection) return;
      this.#leave(false);
      this.start();
    });
  }

  stop(reason) {
    this.#isSuspended = this.#wasSuspended = false;
    this.#leave();
    this.#show({ state: "closed", reason });
  }

  /** @param {boolean} [isCurrent] whether what it told was all up to now */
  #leave(isCurrent = true) {
    this.#post({ kind: "bye", isCurrent });
    clearInterval(this.#census);
    clearTimeout(this.#sweep);
    clearTimeout(this.#silence);
    this.#sweep = this.#silence = undefined;
    // The connection ends before the lock is let go of, so that there are never two.
    this.#connection?.stop("another tab has it");
    this.#connection = null;
    this.#leaving?.abort();
    this.#channel?.close();
    this.#channel = this.#leaving = this.#leader = null;
    this.#isCurrent = false;
    this.#answered.clear();
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
    else this.#ask("wake");
  }

  online() {
    this.#connection?.online();
  }

  offline() {
    this.#connection?.offline();
  }

  /** In every tab: whoever signs in here signs in everywhere. */
  restart() {
    if (this.#connection) return this.#connection.restart();
    if (this.#leader !== null) return this.#post({ kind: "restart" });
    this.#isToRestart = true;
    this.#forgetPerson();
    return this.#sink.clear();
  }

  #forgetPerson() {
    this.#cursor = null;
    this.#userId = this.#rights = undefined;
  }

  want(key, selector) {
    this.#wanted.set(key, selector);
    this.#tellWanted();
  }

  unwant(key) {
    this.#answered.delete(key);
    if (this.#wanted.delete(key)) this.#tellWanted();
  }

  isAnswered(key) {
    return this.#connection?.isAnswered(key) ?? this.#answered.has(key);
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
    if (status.userId !== undefined) this.#userId = status.userId;
    this.status = Object.freeze(this.#userId === undefined ? status : { ...status, userId: this.#userId });
    this.#sink.status(this.status);
  }

  #post(message) {
    this.#channel?.postMessage({ ...message, from: this.#id });
  }

  // ---- as one of the others ----

  #hello() {
    this.#post({ kind: "hello", wanted: [...this.#wanted], isCurrent: this.#isCurrent });
  }

  /** Of a leader; one whose page stands still keeps its lock, and what it told last would look live for ever. */
  #ask(kind) {
    if (!this.#channel || this.#connection) return;
    this.#post({ kind });
    if (this.#silence !== undefined) return;
    // Not all of them at once.
    const wait = SILENCE_MS * (1 + Math.random());
    const due = Date.now() + wait;
    this.#silence = setTimeout(() => {
      this.#silence = undefined;
      if (Date.now() - due > LATE_MS) this.#ask("ask");
      else if (!this.#connection) {
        this.#show({ state: "reconnecting", reason: "the tab that has the connection does not answer" });
        this.#queue({ steal: true });
      }
    }, wait);
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
    if (message.kind === "leads" || (message.kind === "here" && this.#leader === null)) {
      // Whoever heard the last one say goodbye has heard all that it told, perhaps more than the next one.
      if (this.#leader !== null) this.#isCurrent = false;
      this.#follow(message.from);
      return this.#hello();
    }
    if (message.kind === "welcome" && this.#leader === null) this.#follow(message.from);
    if (message.from !== this.#leader) return;
    clearTimeout(this.#silence);
    this.#silence = undefined;
    switch (message.kind) {
      case "welcome":
        this.#sink.supersede();
        break;
      case "tasks":
        for (const task of message.tasks) this.#sink.apply(task);
        break;
      case "welcomed":
        this.#store.settle();
        // The leader is in the middle of a snapshot itself.
        if (message.former) this.#store.supersede(message.former);
        this.#isCurrent = true;
        this.#keepCursor(message.cursor);
        this.#rights = message.rights;
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
        this.#isCurrent &&= message.isCurrent;
        this.#lose();
        this.#show({ state: "reconnecting", reason: "another tab takes over" });
        this.#ask("ask");
        break;
    }
  }

  #follow(leader) {
    this.#leader = leader;
    this.#answered.clear();
    this.#lose();
    if (this.#isToRestart) this.#post({ kind: "restart" });
    this.#isToRestart = false;
  }

  /** What the leader's connection did to its sink, done to this one's. */
  #repeat({ verb, value, rights }) {
    if (verb === "apply" && typeof value.cursor === "string") this.#keepCursor(value.cursor);
    if (verb === "clear") this.#forgetPerson();
    if (verb === "accepted" && this.#wanted.has(value)) this.#answered.add(value);
    if (verb === "refused") this.#answered.delete(value.key);
    if (verb === "cursor") this.#keepCursor(value);
    else if (verb === "status") {
      this.#rights = rights;
      // The next connection is answered anew.
      if (value.state !== "live" && value.state !== "degraded") this.#answered.clear();
      this.#show(value);
    }
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
    this.#isCurrent = true;
    clearTimeout(this.#silence);
    this.#silence = undefined;
    this.#gathered = new Map();
    const all = Object.fromEntries(Object.keys(sink).map((verb) => [verb, told(verb)]));
    const connection = this.#newConnection({
      .../** @type {any} */ (all),
      apply: (task) => {
        // A frame brings its cursor, which then needs no message of its own.
        if (typeof task?.cursor === "string") this.#keepCursor(task.cursor);
        all.apply(task);
      },
      clear: () => {
        this.#forgetPerson();
        all.clear();
      },
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
        this.#rights = connection.rights;
        this.#show(status);
        this.#tell("status", this.status);
      },
    });
    this.#connection = connection;
    connection.adopt(this.#cursor, this.#userId, this.#rights);
    this.#isToRestart = false;
    this.#gather();
    this.#post({ kind: "leads" });
    connection.start();
  }

  /** One tab alone has nobody to tell. */
  #tell(verb, value) {
    if (this.#tabs.size > 0) this.#post({ kind: "call", verb, value, rights: this.#rights });
  }

  #hearAsLeader({ kind, from, wanted, isCurrent, number, message }) {
    switch (kind) {
      case "hello":
        this.#tabs.set(from, new Map(wanted));
        this.#gather();
        if (!isCurrent) return this.#welcome(from);
        this.#post({ kind: "call", to: from, verb: "status", value: this.status, rights: this.#rights });
        return this.#tellAnswers(from);
      case "wanted":
        this.#tabs.set(from, new Map(wanted));
        this.#gather();
        return this.#tellAnswers(from);
      case "bye":
        if (this.#tabs.delete(from)) this.#gather();
        return undefined;
      case "ask":
        return this.#post({ kind: "here", to: from });
      case "wake":
        this.#post({ kind: "here", to: from });
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
    this.#post({ kind: "welcomed", to, cursor: this.#cursor, status: this.status, rights: this.#rights, former: this.#store.former });
    this.#tellAnswers(to);
  }

  /** Of what another tab wants too, nobody asks again. */
  #tellAnswers(to) {
    for (const key of this.#tabs.get(to)?.keys() ?? []) {
      const id = this.#gathered.get(key)?.task_id;
      if (id !== undefined && this.#store.get(id) === null) this.#post({ kind: "call", to, verb: "remove", value: id });
      if (this.#connection?.isAnswered(key)) this.#post({ kind: "call", to, verb: "accepted", value: key });
    }
  }

  /** Subscribes to what any tab wants, and to nothing else. */
  #gather() {
    const connection = this.#connection;
    if (!connection) return;
    const all = new Map(this.#wanted);
    for (const wanted of this.#tabs.values()) for (const [key, selector] of wanted) all.set(key, selector);
    for (const key of this.#gathered.keys()) {
      if (all.has(key)) continue;
      connection.unwant(key);
      this.#sweep ??= setTimeout(() => this.#keep(), SWEEP_MS);
    }
    for (const [key, selector] of all) if (!this.#gathered.has(key)) connection.want(key, selector);
    this.#gathered = all;
  }

  /** What no tab wants any more is forgotten in all of them, and not before. */
  #keep() {
    clearTimeout(this.#sweep);
    this.#sweep = undefined;
    const selectors = [...this.#gathered.values()];
    this.#sink.keep(selectors);
    this.#tell("keep", selectors);
  }

  /** @type {Map<string, import("./connection.js").Selector>} */
  #gathered = new Map();

  /** Tabs that crashed say no goodbye, but hold no lock. */
  async #count() {
    const { held } = await navigator.locks.query();
    if (!this.#connection) return;
    const alive = new Set(held?.map(({ name }) => name));
    for (const id of this.#tabs.keys()) if (!alive.has(`${this.#name} ${id}`)) this.#tabs.delete(id);
    this.#gather();
    // What the last leader alone wanted went with it.
    this.#keep();
  }
}
