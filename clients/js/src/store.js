// The tasks as the service told them. Knows nothing of how they came.

import { reportError } from "./observable.js";
import { hasEnded } from "./progress.js";

/** Tasks that are kept. Beyond that those go first that ended, in the order in which they were last heard of. */
const TASKS_MAX = 20_000;

/** What a frame says beside the state of its task. */
const ENVELOPE = new Set(["type", "timestamp", "cursor"]);

/** @typedef {import("../types/index.js").Task} Task */

export class Store {
  /** @type {Map<string, Task>} */
  tasks = new Map();
  /** Of these the service said that it knows none, or shows none. */
  #absent = new Set();
  /** What a snapshot under way has not mentioned yet; null when none is. @type {Set<string> | null} */
  #former = null;
  #listeners = new Set();
  #max;
  /** Grows with each change. */
  version = 0;

  constructor(max = TASKS_MAX) {
    this.#max = max;
  }

  /**
   * Undefined: not known yet. Null: the service knows no such task, or does not show it.
   * @param {string} id
   */
  get(id) {
    return this.tasks.get(id) ?? (this.#absent.has(id) ? null : undefined);
  }

  /**
   * @param {(id: string, now: Task | undefined, before: Task | undefined) => void} listener
   * @returns {() => void} stops it
   */
  watch(listener) {
    const entry = { listener };
    this.#listeners.add(entry);
    return () => void this.#listeners.delete(entry);
  }

  #tell(id, now, before) {
    this.version += 1;
    for (const { listener } of this.#listeners) {
      try {
        listener(id, now, before);
      } catch (error) {
        // What one listener gets wrong must not keep the next frame from anybody.
        reportError(error);
      }
    }
  }

  /** @param {Record<string, unknown>} state a frame, or a task of a page */
  apply(state) {
    const id = state?.task_id;
    if (typeof id !== "string" || typeof state.status !== "string") return;
    this.#former?.delete(id);
    const before = this.tasks.get(id);
    const task = taskOf(state);
    // What a client is told twice, after a reconnect or by two subscriptions, is no news.
    if (before && isSame(before, task)) return;
    this.#absent.delete(id);
    // The order of the map is the order of the last word; who was silent longest goes first.
    this.tasks.delete(id);
    this.tasks.set(id, task);
    if (this.tasks.size > this.#max) this.#evict();
    this.#tell(id, task, before);
  }

  #evict() {
    let victim;
    for (const [id, task] of this.tasks) {
      victim ??= id;
      if (hasEnded(task)) {
        victim = id;
        break;
      }
    }
    if (victim !== undefined) this.forget(victim);
  }

  /**
   * The service said so; or what it knows of it is nothing.
   * @param {string} id
   */
  remove(id) {
    const was = this.tasks.get(id);
    if (!was && this.#absent.has(id)) return;
    this.tasks.delete(id);
    this.#former?.delete(id);
    this.#absent.add(id);
    if (this.#absent.size > this.#max) this.#absent.delete(this.#absent.values().next().value);
    this.#tell(id, undefined, was);
  }

  /**
   * Nobody keeps it up to date any more.
   * @param {string} id
   */
  forget(id) {
    const was = this.tasks.get(id);
    this.#absent.delete(id);
    if (this.tasks.delete(id)) this.#tell(id, undefined, was);
  }

  /** A snapshot follows that replaces everything. What is shown stays until the snapshot is whole: nothing flashes. */
  supersede(former = this.tasks.keys()) {
    this.#former = new Set(former);
  }

  /** What a snapshot under way has not mentioned yet; null when none is. */
  get former() {
    return this.#former && [...this.#former];
  }

  /**
   * The snapshot is whole: what it has not mentioned is gone. Or (`forget`) whether it is, nobody knows.
   * @param {(task: Task) => boolean} [isSpared] what will be told by itself
   * @param {"remove" | "forget"} [verb]
   */
  settle(isSpared = () => false, verb = "remove") {
    const former = this.#former;
    if (former === null) return;
    const spared = new Set();
    for (const id of former) {
      const task = this.tasks.get(id);
      if (task && isSpared(task)) spared.add(id);
      else this[verb](id);
    }
    this.#former = spared.size > 0 ? spared : null;
  }

  /** Somebody else's from now on. */
  clear() {
    this.#former = null;
    this.#absent.clear();
    for (const id of [...this.tasks.keys()]) this.forget(id);
  }
}

function taskOf(state) {
  const task = {};
  for (const key of Object.keys(state)) if (!ENVELOPE.has(key)) task[key] = state[key];
  return /** @type {Task} */ (Object.freeze(task));
}

/** Both come from JSON. */
function isSame(a, b) {
  if (a === b) return true;
  if (typeof a !== "object" || typeof b !== "object" || a === null || b === null) return false;
  const keys = Object.keys(a);
  return Array.isArray(a) === Array.isArray(b) && keys.length === Object.keys(b).length &&
    keys.every((key) => Object.hasOwn(b, key) && isSame(a[key], b[key]));
}
