// The stations of one task: its dates, and each status and attempt that was seen. Refuses to know: anything that nobody told.

import { hasEnded } from "../client.js";
import { make } from "./dom.js";
import { moment, span, statusName, time } from "./format.js";

/** Two dates that lie closer than this tell of the same. */
const SAME_MS = 1_000;

/**
 * @param {import("../client.js").Task} task
 * @param {import("./trail.js").Trail} trail
 * @returns {{at: number, status: string, words: string}[]} in order
 */
export function stations(task, trail) {
  const [created, started, ended] = [task.created_at, task.started_at, task.completed_at].map(moment);
  const isOneMoment = Math.abs(started - created) < SAME_MS;
  const found = [
    { at: created, status: isOneMoment ? "running" : "", words: isOneMoment ? "created and started" : "created" },
    ...(isOneMoment ? [] : [{ at: started, status: "running", words: "started" }]),
    ...trail.stages.map((stage, index) => seen(stage, index, trail.stages[index - 1])),
  ];
  if (hasEnded(task)) found.push({ at: ended, status: task.status, words: statusName(task.status) });
  const known = found.filter(({ at }) => Number.isFinite(at)).sort((a, b) => a.at - b.at);
  // What was so when this page came is told by the date since when it is so.
  const dated = known.filter((station) => !station.isFirstSight || !known.some((other) => !other.isFirstSight && other.status === station.status && other.at <= station.at));
  // A date and what was seen then are one station.
  return dated.filter(({ at, status }, index) => !dated.slice(0, index).some((other) => other.status === status && at - other.at < SAME_MS));
}

function seen({ at, status, attempt, step }, index, before) {
  const isFirstSight = index === 0 && attempt === 1;
  const words = attempt > 1 && attempt !== before?.attempt ? `${statusName(status)}, attempt ${attempt}` : statusName(status);
  return { at, status, words: step && index > 0 && status === "running" ? `${words}: ${step}` : words, isFirstSight };
}

export function timeline(list) {
  return list.map(({ at, status, words }, index) => {
    const item = make("li", "station", make("span", "dot"), make("span", "station-name", words));
    item.dataset.status = status;
    const since = index > 0 ? `after ${span(at - list[index - 1].at)}` : "";
    item.append(make("span", "station-since", since), make("time", "", time(at)));
    return item;
  });
}
