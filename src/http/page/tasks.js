// What follows from a list of tasks: which are shown, in which groups. Knows nothing of connections or of the page.

import { hasEnded } from "./client.js";

/** How long a task stays on the page once it was seen to have ended. */
const ENDED_STAYS_MS = 5 * 60_000;

/** The group that a task belongs to: its root, else its parent, else itself. */
export const groupOf = (task) => task.root_id ?? task.parent_id ?? task.task_id;
export const text = (value) => (typeof value === "string" ? value : "");

/** Milliseconds since 1970, or 0 when there is no telling. */
const moment = (value) => Date.parse(value) || 0;

/** When tasks were first seen to have ended: the browser's clock need not be the service's. */
let ends = new Map();

/** Without what ended a while ago. */
export function recent(tasks) {
  const now = performance.now();
  ends = new Map(tasks.filter(hasEnded).map(({ task_id: id }) => [id, ends.get(id) ?? now]));
  return tasks.filter(({ task_id: id }) => now - (ends.get(id) ?? now) < ENDED_STAYS_MS);
}

/** Groups in the order of their beginning, newest first, each with its root before its children. */
export function groups(tasks) {
  const found = new Map();
  for (const task of tasks) {
    const key = groupOf(task);
    const group = found.get(key) ?? { key, root: null, children: [], begun: 0 };
    if (task.task_id === key) group.root = task;
    else group.children.push(task);
    found.set(key, group);
  }
  const oldestFirst = (a, b) => moment(a.created_at) - moment(b.created_at) || a.task_id.localeCompare(b.task_id);
  for (const group of found.values()) {
    group.children.sort(oldestFirst);
    group.begun = moment((group.root ?? group.children[0]).created_at);
  }
  return [...found.values()].sort((a, b) => b.begun - a.begun || a.key.localeCompare(b.key));
}
