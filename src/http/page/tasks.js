// The tasks as this page knows them, and what follows from that. Knows nothing of sockets or of the page.

/** How long an ended task stays on the page. */
const ENDED_STAYS_MS = 5 * 60_000;
const ENDED = new Set(["succeeded", "failed", "cancelled", "timed_out", "expired", "lost"]);

/** task_id → {task, shown, seen, since}: the newest state, the bar's place, when it was last heard of, the pace. */
export const tasks = new Map();

/** What a snapshot is replacing, until its last page is here. */
const former = new Map();

/** A snapshot follows that replaces everything, but the bars of tasks that are still the same do not start over. */
export function supersede() {
  for (const [id, entry] of tasks) former.set(id, entry);
  tasks.clear();
}

/** The snapshot is whole. */
export const settle = () => former.clear();

/** Nothing of before means anything any more. */
export function forget() {
  tasks.clear();
  former.clear();
}

/** An id may come back for another task, which then was made at another time. */
function formerOf(task) {
  const entry = former.get(task.task_id);
  return entry?.task.created_at === task.created_at ? entry : undefined;
}

export function apply(task) {
  if (typeof task?.task_id !== "string") return;
  const now = Date.now();
  const before = tasks.get(task.task_id) ?? formerOf(task);
  const sameRun = before && before.task.attempt === task.attempt && before.task.step === task.step;
  const percent = percentOf(task);
  // A bar never goes back within an attempt and a step, whatever arrives.
  const floor = sameRun && before.shown !== null && percent !== null ? before.shown : 0;
  const shown = percent === null ? null : Math.max(percent, floor);
  const since = sameRun && before.since ? before.since : shown === null ? null : { at: now, percent: shown };
  tasks.set(task.task_id, { task, shown, seen: now, since });
}

/** 0 to 100, or null when nobody knows. Full only when it succeeded. */
function percentOf(task) {
  if (task.status === "succeeded") return 100;
  if (typeof task.progress !== "number" || !Number.isFinite(task.progress)) return null;
  return Math.min(Math.max(task.progress, 0), 99.9);
}

export const hasEnded = (task) => ENDED.has(task.status);

/** When a task ended, by the service's clock if it says, so that a reload does not bring it back for longer. */
function endedAt({ task, seen }) {
  return Math.min(moment(task.completed_at) || seen, seen);
}

/** Milliseconds since 1970, or 0 when there is no telling. */
const moment = (value) => (typeof value === "number" ? value : Date.parse(value) || 0);

/** Lets go of what ended a while ago. */
export function sweep() {
  const limit = Date.now() - ENDED_STAYS_MS;
  for (const [id, entry] of tasks) {
    if (hasEnded(entry.task) && endedAt(entry) < limit) tasks.delete(id);
  }
}

/** Seconds that are left at the pace seen so far, or null when that says nothing. */
export function secondsLeft({ task, shown, since }) {
  if (hasEnded(task) || task.status !== "running" || shown === null || since === null) return null;
  const elapsed = (Date.now() - since.at) / 1000;
  const gained = shown - since.percent;
  return elapsed < 3 || gained < 1 ? null : ((100 - shown) / gained) * elapsed;
}

/** The group that a task belongs to: its root, else its parent, else itself. */
export const groupOf = (task) => task.root_id ?? task.parent_id ?? task.task_id;
export const text = (value) => (typeof value === "string" ? value : "");

/** Groups in the order of their beginning, newest first, each with its root before its children. */
export function groups() {
  const found = new Map();
  for (const entry of tasks.values()) {
    const key = groupOf(entry.task);
    const group = found.get(key) ?? { key, root: null, children: [], begun: 0 };
    if (entry.task.task_id === key) group.root = entry;
    else group.children.push(entry);
    found.set(key, group);
  }
  const begun = (entry) => moment(entry.task.created_at);
  const oldestFirst = (a, b) => begun(a) - begun(b) || a.task.task_id.localeCompare(b.task.task_id);
  for (const group of found.values()) {
    group.children.sort(oldestFirst);
    group.begun = begun(group.root ?? group.children[0]);
  }
  return [...found.values()].sort((a, b) => b.begun - a.begun || a.key.localeCompare(b.key));
}
