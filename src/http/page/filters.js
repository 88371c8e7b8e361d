// What people ask to see, and the address that says the same. Refuses to know: how it is shown, and in which order tasks come.

import { hasEnded } from "../client.js";
import { text } from "./format.js";

export const ORDERS = ["newest", "status"];

/** @typedef {{statuses: Set<string>, type: string, owner: string, tag: string, words: string, order: string, areGroupsOpen: boolean}} Filters */

/** @returns {Filters} as an address says it, from its query */
export function filtersOf(search) {
  const query = new URLSearchParams(search);
  const order = query.get("order") ?? "";
  return {
    statuses: new Set((query.get("status") ?? "").split(",").filter(Boolean)),
    type: query.get("type") ?? "", owner: query.get("owner") ?? "", tag: query.get("tag") ?? "", words: query.get("q") ?? "",
    order: ORDERS.includes(order) ? order : ORDERS[0],
    areGroupsOpen: query.get("groups") === "open",
  };
}

/** The query of an address for these: nothing where nothing is asked. @param {Filters} filters */
export function searchOf({ statuses, type, owner, tag, words, order, areGroupsOpen }) {
  const query = new URLSearchParams();
  if (statuses.size > 0) query.set("status", [...statuses].join(","));
  for (const [name, value] of [["type", type], ["owner", owner], ["tag", tag], ["q", words]]) if (value) query.set(name, value);
  if (order !== ORDERS[0]) query.set("order", order);
  if (areGroupsOpen) query.set("groups", "open");
  const search = query.toString().replaceAll("%2C", ",");
  return search ? `?${search}` : "";
}

/** Whether anything is kept from being shown. @param {Filters} filters */
export const isFiltering = ({ statuses, type, owner, tag, words }) => statuses.size > 0 || [type, owner, tag, words].some((value) => value.trim() !== "");

/**
 * Whether groups show their tasks unless somebody closes one. Where something is looked for, the tasks that it was found in are to be
 * seen. @param {Filters} filters
 */
export const opensGroups = ({ areGroupsOpen, statuses, type, tag, words }) =>
  areGroupsOpen || statuses.size > 0 || [type, tag, words].some((value) => value.trim() !== "");

/**
 * Says of a task whether it is wanted. Each of the words has to be somewhere in it.
 * @param {Filters} filters
 * @returns {(task: import("../client.js").Task) => boolean}
 */
export function matcher({ statuses, type, owner, tag, words }) {
  const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
  const hasStatus = (task) =>
    statuses.has(task.status) || (statuses.has("active") && !hasEnded(task)) || (statuses.has("ended") && hasEnded(task));
  return (task) =>
    (statuses.size === 0 || hasStatus(task)) &&
    (type === "" || task.name === type) &&
    (owner === "" || String(task.user_id) === owner) &&
    (tag === "" || (Array.isArray(task.tags) && task.tags.includes(tag))) &&
    (wanted.length === 0 || holds(task, wanted));
}

function holds(task, words) {
  const tags = Array.isArray(task.tags) ? task.tags.join(" ") : "";
  const parts = [task.task_id, task.title, task.name, task.step, task.message, task.worker, task.error?.message].map(text);
  const all = `${parts.join("\n")}\n${task.user_id ?? ""}\n${tags}`.toLowerCase();
  return words.every((word) => all.includes(word));
}
