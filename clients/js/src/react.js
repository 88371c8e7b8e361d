// React's side: hooks over the handles. Render reads, effects listen; so a server renders without a connection, and a
// component that is mounted twice holds one.

import { createContext, createElement, useCallback, useContext, useEffect, useRef, useState, useSyncExternalStore } from "react";

import { TaskcastClient } from "./client.js";
import { hasEnded, isEnd } from "./progress.js";

const Context = createContext(/** @type {TaskcastClient | null} */ (null));

/** @param {{client?: TaskcastClient, options?: import("../types/index.js").ClientOptions, children?: import("react").ReactNode}} props */
export function TaskcastProvider({ client, options, children }) {
  // Made once, whatever the options are later; it connects when somebody listens and ends when nobody does.
  const [own] = useState(() => client ?? new TaskcastClient(options));
  return createElement(Context.Provider, { value: client ?? own }, children);
}

export function useTaskcastClient() {
  const client = useContext(Context);
  if (client === null) throw new Error("there is no <TaskcastProvider> around this component");
  return client;
}

/** @type {readonly any[]} */
const NOTHING = Object.freeze([]);
const NOT_STARTED = Object.freeze({ state: "connecting", reason: "not started" });
const listenToNothing = () => () => {};

/**
 * @param {string | null | undefined} id
 * @param {{select?: (task: any) => any, onComplete?: (task: any) => void, throttleMs?: number, initialTask?: any}} [options]
 */
export function useTask(id, { select, onComplete, throttleMs = 0, initialTask } = {}) {
  const client = useTaskcastClient();
  const handle = id ? client.task(id) : null;
  // A newer state that the throttle holds back is not read either, or another render would show it.
  const shown = useRef(/** @type {{handle: any, task: any}} */ ({ handle: null, task: undefined }));
  const selected = useRef(/** @type {{task: any, select: any, value: any}} */ ({ task: undefined, select: undefined, value: undefined }));

  const subscribe = useCallback(
    (/** @type {() => void} */ onChange) => {
      if (!handle) return listenToNothing();
      shown.current = { handle, task: handle.current };
      return throttled(handle, throttleMs, () => {
        shown.current = { handle, task: handle.current };
        onChange();
      });
    },
    [handle, throttleMs],
  );
  const read = () => {
    if (!handle) return undefined;
    const { current } = shown;
    const task = throttleMs > 0 && current.handle === handle ? current.task : handle.current;
    return pick(task === undefined ? initialTask : task);
  };
  const pick = (task) => {
    if (!select || !task) return task;
    const last = selected.current;
    if (last.task === task && last.select === select) return last.value;
    const value = select(task);
    // A selection that is made anew each time but says the same is the same.
    const kept = last.task !== undefined && isShallowlySame(last.value, value) ? last.value : value;
    selected.current = { task, select, value: kept };
    return kept;
  };
  const value = useSyncExternalStore(subscribe, read, () => (id ? pick(initialTask) : undefined));

  const complete = useRef(onComplete);
  useEffect(() => { complete.current = onComplete; });
  // As of the render: the end may come before the effect.
  const known = useRef(/** @type {{handle: any, task: any}} */ ({ handle: undefined, task: undefined }));
  if (known.current.handle !== handle) known.current = { handle, task: handle?.current ?? initialTask };
  useEffect(() => {
    if (!handle) return undefined;
    const mine = known.current;
    const look = () => {
      const before = mine.task;
      const now = handle.current;
      mine.task = now ?? before;
      if (isEnd(before, now)) complete.current?.(now);
    };
    look();
    return handle.subscribe(look);
  }, [handle]);
  return value;
}

/** Ends, and what is new altogether, wait for nothing. */
function throttled(handle, ms, listener) {
  if (ms <= 0) return handle.subscribe(listener);
  let timer;
  let last = 0;
  const tell = () => {
    clearTimeout(timer);
    timer = undefined;
    last = Date.now();
    listener();
  };
  let wasKnown = Boolean(handle.current);
  const stop = handle.subscribe(() => {
    const task = handle.current;
    const isUrgent = !task || hasEnded(task) || !wasKnown;
    wasKnown = Boolean(task);
    const left = last + ms - Date.now();
    if (isUrgent || left <= 0) tell();
    else timer ??= setTimeout(tell, left);
  });
  return () => {
    clearTimeout(timer);
    stop();
  };
}

function isShallowlySame(a, b) {
  if (Object.is(a, b)) return true;
  if (typeof a !== "object" || typeof b !== "object" || a === null || b === null) return false;
  const keys = Object.keys(a);
  return Array.isArray(a) === Array.isArray(b) && keys.length === Object.keys(b).length && keys.every((key) => Object.is(a[key], b[key]));
}

/** @param {import("../types/index.js").TasksQuery} [query] */
export function useTasks(query = {}) {
  const client = useTaskcastClient();
  const { filter, ...plain } = query;
  const key = JSON.stringify(plain);
  // A handle with a filter is nobody else's, so it has to be kept; without, the client gives out the same one.
  const kept = useRef(/** @type {any} */ ({}));
  if (kept.current.client !== client || kept.current.key !== key || kept.current.filter !== filter) {
    kept.current = { client, key, filter, handle: client.tasks(query) };
  }
  const { handle } = kept.current;
  return useSyncExternalStore(handle.subscribe, handle.getSnapshot, () => NOTHING);
}

export function useConnection() {
  const { connection } = useTaskcastClient();
  return useSyncExternalStore(connection.subscribe, connection.getSnapshot, () => NOT_STARTED);
}
