// What the service still keeps of one task's way before this page came, and what to say of it. Refuses to know: what is drawn of it.

import { amount, moment, time } from "./format.js";
import { token } from "./token.js";

const PATIENCE_MS = 15_000;

/**
 * @param {string} id
 * @returns {Promise<{frames: any[], from_start: boolean, frames_max: number}>} frames ascend; rejects when there is no answer
 */
export async function askHistory(id) {
  const held = token.get();
  const answer = await fetch(`api/v1/tasks/${encodeURIComponent(id)}/frames`, {
    headers: held === null ? {} : { authorization: `Bearer ${held}` }, cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS),
  });
  if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
  return answer.json();
}

/** How far back it goes, and what may be missing in it. @param {import("./trail.js").Trail} trail @param {any} history null: not told yet */
export function wordsOfHistory({ begins }, history) {
  const here = `Shown from ${time(begins)} on`;
  if (history === null) return `${here}.`;
  if (history.error) return `${here}; what the service kept of the time before could not be asked for (${history.error}).`;
  const { frames: { length, 0: first }, from_start: isFromStart, frames_max: max } = history;
  // Few are no proof that these were all: a service that is short of memory lets go of steps early.
  if (isFromStart && length < max) return "Shown from its first event on. Of what came before this page, steps in between may be missing.";
  const since = Math.min(begins, moment(first.updated_at));
  return `Shown from ${time(since)} on. Of what came before this page, the service keeps the newest ${amount(max)} states of a task, changes of status longest: steps in between may be missing.`;
}
