// Somebody to tell, in the shapes that front ends ask for: a store, an event, an iteration.

/**
 * Counts those who listen, and tells when the first one comes and when the last one has gone.
 * @template T
 */
export class Observable {
  #listeners = new Set();

  /** @protected */
  onUsed() {}
  /** @protected */
  onUnused() {}

  /** For external stores (React's `useSyncExternalStore`, Svelte, Vue): called after each change. */
  subscribe = (/** @type {() => void} */ listener) => {
    // A box of its own: the same function may be here twice.
    const entry = { listener };
    this.#listeners.add(entry);
    if (this.#listeners.size === 1) this.onUsed();
    return () => {
      if (this.#listeners.delete(entry) && this.#listeners.size === 0) this.onUnused();
    };
  };

  /**
   * What holds now; the same object until it changes.
   * @returns {T}
   */
  getSnapshot = () => this.current;

  /** @returns {T} */
  get current() {
    throw new Error("not implemented");
  }

  get isUsed() {
    return this.#listeners.size > 0;
  }

  /**
   * @param {string} event
   * @param {(current: T) => void} listener
   */
  on(event, listener) {
    if (event !== "update") throw new TypeError(`there is no event '${event}'`);
    return this.subscribe(() => listener(this.current));
  }

  notify() {
    for (const { listener } of [...this.#listeners]) {
      try {
        listener();
      } catch (error) {
        // One listener's fault is nobody else's, and is not swallowed either.
        reportError(error);
      }
    }
  }
}

/** @param {unknown} error */
export function reportError(error) {
  if (typeof globalThis.reportError === "function") globalThis.reportError(error);
  else queueMicrotask(() => { throw error; });
}
