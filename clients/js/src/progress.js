// What a task's state means to somebody who looks at it. Knows nothing of connections.

const ENDED = new Set(["succeeded", "failed", "cancelled", "timed_out", "expired", "lost"]);

/** @param {{status: string}} task */
export const hasEnded = (task) => ENDED.has(task.status);

/** Whether it was seen to end: what had ended before anybody looked is no news. */
export const isEnd = (before, now) => Boolean(before && now && !hasEnded(before) && hasEnded(now));

/** Of what has not succeeded. */
const PERCENT_MAX = 99.9;

/**
 * 0 to 100, or null when nobody knows. Full only when it succeeded.
 * @param {import("../types/index.js").Task} task
 */
export function percentOf(task) {
  if (task.status === "succeeded") return 100;
  const { progress } = task;
  if (typeof progress !== "number" || !Number.isFinite(progress)) return null;
  return Math.min(Math.max(progress, 0), PERCENT_MAX);
}

/** How long and how far a task has to be watched before its pace says anything. */
const PACE_MIN_MS = 3_000;
const PACE_MIN_PERCENT = 1;

/** One task's bar: it never goes back within an attempt and a step, and knows how long the rest may take. */
export class Bar {
  /** @type {import("../types/index.js").Task | null} */
  #task = null;
  /** @type {number | null} */
  #percent = null;
  /** @type {{at: number, percent: number} | null} */
  #since = null;

  /** The place of the bar, or null when it is unknown. */
  get percent() {
    return this.#percent;
  }

  /** @param {import("../types/index.js").Task} task */
  show(task) {
    const before = this.#task;
    const isSameRun =
      before !== null && before.task_id === task.task_id && before.created_at === task.created_at &&
      before.attempt === task.attempt && before.step === task.step;
    if (!isSameRun) this.#percent = this.#since = null;
    const percent = percentOf(task);
    // What was known stays known: a bar that turns unknown for a moment would jump. But full is only what has succeeded.
    const kept = task.status === "succeeded" || this.#percent === null ? this.#percent : Math.min(this.#percent, PERCENT_MAX);
    this.#percent = percent === null ? kept : Math.max(percent, kept ?? 0);
    if (this.#since === null && this.#percent !== null) this.#since = { at: Date.now(), percent: this.#percent };
    this.#task = task;
    return this.#percent;
  }

  /** Seconds that are left at the pace seen so far, or null when that says nothing. */
  get secondsLeft() {
    const task = this.#task, since = this.#since, percent = this.#percent;
    if (task?.status !== "running" || since === null || percent === null) return null;
    const elapsed = Date.now() - since.at;
    const gained = percent - since.percent;
    if (elapsed < PACE_MIN_MS || gained < PACE_MIN_PERCENT) return null;
    return ((100 - percent) / gained) * (elapsed / 1000);
  }
}
