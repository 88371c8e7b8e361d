// What a front end holds: one task, or the tasks of a query. Views into the client's store that keep the connection and
// their subscription while somebody listens.

import { TaskcastError, TaskError } from "./errors.js";
import { Observable, reportError } from "./observable.js";
import { hasEnded } from "./progress.js";

/** How often those who listen to a list are told at most: more than a screen shows helps nobody. */
export const LIST_INTERVAL_MS = 16;

/** @typedef {import("../types/index.js").Task} Task */

/**
 * What keeps the client connected while it is listened to.
 * @template T
 * @extends {Observable<T>}
 */
class Handle extends Observable {
  /** @param {import("./client.js").TaskcastClient} client @param {string} key @param {object | null} selector */
  constructor(client, key, selector) {
    super();
    this.client = client;
    this.key = key;
    this.selector = selector;
    /** Why the service does not tell of it, if it said so. @type {TaskcastError | null} */
    this.error = null;
  }

  onUsed() {
    this.client.retain(this);
  }

  onUnused() {
    this.client.release(this);
  }

  /** Ends an iteration or a promise when the client cannot go on. */
  get obstacle() {
    const { state, code, reason, isWaiting } = this.client.connection.current;
    if (this.error) return this.error;
    if (this.client.isClosed) return new TaskcastError("CLOSED", "the client was closed");
    if (state === "unauthorised" && !isWaiting) return new TaskcastError(String(code ?? "INVALID_TOKEN"), reason ?? "the token was refused");
    // A connection that nobody needed yet is closed as well, but has no code.
    if (state === "closed" && code !== undefined) return new TaskcastError("CLOSED", reason ?? "the connection is closed");
    return null;
  }

  /** Calls back after each change of this or of the connection, until told to stop. */
  follow(listener) {
    const stops = [this.subscribe(listener), this.client.connection.subscribe(listener)];
    return () => stops.forEach((stop) => stop());
  }

  async *[Symbol.asyncIterator]() {
    let wake = () => {};
    let told;
    const stop = this.follow(() => wake());
    try {
      for (;;) {
        const { current } = this;
        if (current !== told && this.isTelling(current)) {
          told = current;
          yield current;
          if (this.isLast(current)) return;
          continue;
        }
        if (this.client.isClosed) return;
        const obstacle = current === null && told ? removed() : this.obstacle;
        if (obstacle) throw obstacle;
        await new Promise((resolve) => (wake = () => resolve(undefined)));
      }
    } finally {
      stop();
    }
  }

  isTelling(_current) {
    return true;
  }
  isLast(_current) {
    return false;
  }
}

/** @extends {Handle<Task | null | undefined>} */
export class TaskHandle extends Handle {
  constructor(client, id) {
    super(client, `task:${id}`, { task_id: id });
    this.id = id;
  }

  /** Undefined: not known yet. Null: the service knows no such task, or not for this user. */
  get current() {
    return this.client.store.get(this.id);
  }

  isTelling(task) {
    return task !== null && task !== undefined;
  }
  isLast(task) {
    return hasEnded(task);
  }

  /**
   * Resolves with the task once it has succeeded; rejects with a TaskError when it ended otherwise, and with a
   * TaskcastError when it is not going to be known.
   * @param {{signal?: AbortSignal}} [options]
   * @returns {Promise<Task>}
   */
  done({ signal } = {}) {
    return new Promise((resolve, reject) => {
      let stop = () => {};
      const finish = (settle, value) => {
        stop();
        signal?.removeEventListener("abort", onAbort);
        settle(value);
      };
      const onAbort = () => finish(reject, signal?.reason);
      let wasKnown = false;
      const look = () => {
        const task = this.current;
        if (task && hasEnded(task)) return finish(...(task.status === "succeeded" ? [resolve, task] : [reject, new TaskError(task)]));
        // Before it exists it may be awaited; once it was there and is taken away, its end will not be told.
        if (task === null && wasKnown) return finish(reject, removed());
        wasKnown ||= task !== null && task !== undefined;
        const { obstacle } = this;
        if (obstacle) finish(reject, obstacle);
      };
      if (signal?.aborted) return reject(signal.reason);
      signal?.addEventListener("abort", onAbort);
      stop = this.follow(look);
      look();
    });
  }

  /** Asks its worker to stop; true when the request was passed on. The end comes as an update. */
  async cancel() {
    const answer = await this.client.request({ type: "cancel_task", task_id: this.id });
    return answer.success === true;
  }
}

const removed = () => new TaskcastError("REMOVED", "the task is no longer kept, or no longer shown");

/** @extends {Handle<readonly Task[]>} */
export class TasksHandle extends Handle {
  #query;
  #statuses;
  /** @type {Task[]} newest first */
  #order = [];
  /** @type {readonly Task[]} */
  #snapshot = Object.freeze([]);
  #isStale = false;
  #isAttached = false;
  #version = -1;
  #timer;

  constructor(client, key, query) {
    const selector = query.root ? { root_id: query.root } : query.tag ? { tag: query.tag } : null;
    super(client, key, selector);
    this.#query = query;
    this.#statuses = query.status === undefined ? null : [query.status].flat();
    this.#build();
  }

  /** From now on the client tells of each change. */
  attach() {
    if (!this.#isAttached) this.#build();
    this.#isAttached = true;
  }

  detach() {
    this.#isAttached = false;
  }

  #build() {
    const { store } = this.client;
    this.#version = store.version;
    this.#order = [...store.tasks.values()].filter((task) => this.#matches(task)).sort(newestFirst);
    this.#isStale = true;
  }

  get current() {
    if (!this.#isAttached && this.#version !== this.client.store.version) this.#build();
    if (this.#isStale) {
      this.#isStale = false;
      const tasks = this.#order.slice(0, this.#query.limit);
      // What changed beyond the limit is no change.
      if (!hasSameItems(tasks, this.#snapshot)) this.#snapshot = Object.freeze(tasks);
    }
    return this.#snapshot;
  }

  /** Whether everything that the query means is here, as of the connection. */
  get isComplete() {
    const isLive = ["live", "degraded"].includes(this.client.connection.current.state);
    return isLive && !this.error && (this.selector === null || this.client.isAnswered(this.key));
  }

  onUnused() {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    super.onUnused();
  }

  #matches(task) {
    const { root, tag, name, filter } = this.#query;
    return (
      (root === undefined || isUnder(task, root)) && (tag === undefined || task.tags?.includes(tag) === true) &&
      (name === undefined || task.name === name) && (this.#statuses === null || this.#statuses.some((status) => hasStatus(task, status))) &&
      (filter === undefined || isLetThrough(filter, task))
    );
  }

  /** Keeps its order by what changed, not by sorting anew: there may be thousands. */
  onChange(now, before) {
    const place = before ? placeOf(this.#order, before) : -1;
    const wasHere = place >= 0 && this.#order[place] === before;
    const isHere = now !== undefined && this.#matches(now);
    if (!wasHere && !isHere) return;
    if (wasHere && isHere && newestFirst(now, before) === 0) this.#order[place] = now;
    else {
      if (wasHere) this.#order.splice(place, 1);
      if (isHere) this.#order.splice(placeOf(this.#order, now), 0, now);
    }
    this.#isStale = true;
    if (this.isUsed) this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      this.notify();
    }, LIST_INTERVAL_MS);
  }
}

/** One filter's fault is nobody else's, and is not swallowed either. */
function isLetThrough(filter, task) {
  try {
    return filter(task);
  } catch (error) {
    reportError(error);
    return false;
  }
}

export const isUnder = (task, root) => task.root_id === root || task.task_id === root || task.parent_id === root;

function hasStatus(task, status) {
  return status === "active" ? !hasEnded(task) : status === "ended" ? hasEnded(task) : task.status === status;
}

/** ISO dates of one length compare as text. */
function newestFirst(a, b) {
  const [one, other] = [a.created_at ?? "", b.created_at ?? ""];
  if (one !== other) return one < other ? 1 : -1;
  return a.task_id < b.task_id ? -1 : a.task_id > b.task_id ? 1 : 0;
}

const hasSameItems = (a, b) => a.length === b.length && a.every((item, index) => item === b[index]);

function placeOf(order, task) {
  let low = 0;
  let high = order.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (newestFirst(order[middle], task) < 0) low = middle + 1;
    else high = middle;
  }
  return low;
}
