// Words and numbers for people: statuses, amounts, times. Refuses to know: where they are shown.

/** In the order in which they matter to somebody who looks. */
export const STATUSES = [
  "running", "retrying", "cancelling", "waiting", "queued", "failed", "timed_out", "lost", "cancelled", "expired", "succeeded",
];
const NAMES = new Map([["timed_out", "timed out"]]);
const PLACES = new Map(STATUSES.map((status, place) => [status, place]));

/** A later version of the service may have others. */
export const placeOf = (status) => PLACES.get(status) ?? STATUSES.length;
export const statusName = (status) => NAMES.get(status) ?? status;

export const text = (value) => (typeof value === "string" ? value : "");
export const titleOf = (task) => text(task.title) || text(task.name) || task.task_id;

/** Milliseconds since 1970; NaN when there is no telling. */
export const moment = (value) => (typeof value === "string" ? Date.parse(value) : NaN);

const AMOUNTS = new Intl.NumberFormat(undefined, { maximumFractionDigits: 1 });
const SHORT = new Intl.NumberFormat(undefined, { notation: "compact", maximumFractionDigits: 1 });
const TIMES = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const DATES = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const DAY_MS = 24 * 3_600_000;

export const amount = (value) => AMOUNTS.format(value);
/** Where there is room for a few characters. */
export const shortAmount = (value) => SHORT.format(value);

/** The time, with the date where it is not today's. */
export function time(at) {
  if (!Number.isFinite(at)) return "unknown";
  return (Math.abs(Date.now() - at) < DAY_MS / 2 ? TIMES : DATES).format(at);
}

/** Rounded down: 99.9 is not 100. But what a sum of fractions lost is not a percent. */
export const whole = (percent) => String(Math.floor(percent + 1e-6));

export function span(ms) {
  const seconds = ms / 1000;
  if (seconds < 1) return `${Math.max(0, Math.round(ms))} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${Math.floor(seconds % 60)} s`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

/** How long it may still take: no more exact than anybody can know. */
function left(seconds) {
  if (seconds < 60) return `about ${Math.max(1, Math.round(seconds))} s left`;
  if (seconds < 3600) return `about ${Math.round(seconds / 60)} min left`;
  return `about ${Math.round(seconds / 3600)} h left`;
}

/** How far a task is, in parts: what was counted, and the time that is left. */
export function numbers(task, bar) {
  const parts = [];
  const isBesideThePoint = task.status === "succeeded" && Number.isFinite(task.total) && task.current !== task.total;
  if (Number.isFinite(task.current) && !isBesideThePoint) {
    const unit = text(task.unit);
    const total = Number.isFinite(task.total) ? ` of ${amount(task.total)}` : "";
    parts.push(`${amount(task.current)}${total}${unit ? ` ${unit}` : ""}`);
  }
  if (bar.secondsLeft !== null) parts.push(left(bar.secondsLeft));
  return parts;
}

/** "2 running, 1 failed" */
export function tally(counts) {
  const known = [...counts].filter(([, count]) => count > 0).sort(([a], [b]) => placeOf(a) - placeOf(b));
  return known.map(([status, count]) => `${amount(count)} ${statusName(status)}`).join(", ");
}

export const tasksOf = (count) => `${amount(count)} ${count === 1 ? "task" : "tasks"}`;

/** "3 tasks: 2 running, 1 no longer kept" @param {{children: Set<any>, counts: Map<string, number>, former: number}} group */
export function wordsOf({ children, counts, former }) {
  const parts = [tally(counts), former > 0 ? `${amount(former)} no longer kept` : ""].filter(Boolean);
  return `${tasksOf(children.size + former)}: ${parts.join(", ")}`;
}

/** The service's words begin small and end without a full stop, as its log does. */
export function sentence(words) {
  const begun = words.charAt(0).toUpperCase() + words.slice(1);
  return /[.!?]$/.test(begun) ? begun : `${begun}.`;
}
