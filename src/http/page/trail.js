// What was seen of one task on its way: points of its progress, stages, messages. Never more than fits. Refuses to know: who
// shows it.

import { Bar, hasEnded } from "../client.js";
import { now } from "./clock.js";
import { moment, text } from "./format.js";

/**
 * Of each task; and of the one that somebody looks at. Points take two numbers each: of each task as many as the first room of an array
 * holds, so that a page with thousands of tasks does not grow for minutes. What came last the service tells.
 */
const GLANCE = { points: 8, stages: 12, messages: 5 };
const STUDY = { points: 600, stages: 100, messages: 200 };

function pairsOf(points) {
  return Array.from({ length: points.length / 2 }, (_, index) => [points[2 * index], points[2 * index + 1]]);
}

/**
 * In the order of time. What both know is there once, and where one order is known within a moment it stays: dates may be whole seconds.
 * @template T
 * @param {T[]} past @param {T[]} own both ascending
 * @param {(entry: T) => number} at @param {(one: T, other: T) => boolean} isSame
 */
function interleaved(past, own, at, isSame) {
  const isMet = (i, j) => at(past[i]) === at(own[j]) && isSame(past[i], own[j]);
  // How many of those from here on are met in both.
  const met = Array.from({ length: past.length + 1 }, () => new Uint16Array(own.length + 1));
  for (let i = past.length - 1; i >= 0; i -= 1) {
    for (let j = own.length - 1; j >= 0; j -= 1) met[i][j] = isMet(i, j) ? met[i + 1][j + 1] + 1 : Math.max(met[i + 1][j], met[i][j + 1]);
  }
  const all = [];
  let [i, j] = [0, 0];
  while (i < past.length && j < own.length) {
    if (isMet(i, j)) {
      i += 1;
      all.push(own[j++]);
    } else if (at(past[i]) < at(own[j]) || (at(past[i]) === at(own[j]) && met[i + 1][j] >= met[i][j + 1])) all.push(past[i++]);
    else all.push(own[j++]);
  }
  return [...all, ...past.slice(i), ...own.slice(j)];
}

/** And of neighbours that say the same the first. */
function merged(past, own, isSame) {
  const all = interleaved(past, own, (entry) => entry.at, isSame);
  return all.filter((entry, index) => index === 0 || !isSame(entry, all[index - 1]));
}

/**
 * The line without those points of the past that would make it dip: a bar that was seen on its way stays where it was.
 * @param {number[][]} line @param {Set<number[]>} seen
 */
function steady(line, seen) {
  const kept = [];
  let between = [];
  let before = null;
  for (const point of line) {
    const isBreak = Number.isNaN(point[1]);
    if (!isBreak && !seen.has(point)) {
      between.push(point);
      continue;
    }
    // A line that falls does so with a new step, and says nothing of what was between.
    const isSteady = !isBreak && before !== null && before[1] <= point[1];
    kept.push(...between.filter(([, value]) => !isSteady || (value >= before[1] && value <= point[1])), point);
    between = [];
    before = isBreak ? null : point;
  }
  return [...kept, ...between];
}

export class Trail {
  /** Time and value in turns; a value that is no number is a break, between attempts. */
  points = [];
  /** What the values are: percent, or what was counted where percent is unknown. */
  isCount = false;
  /** @type {{at: number, status: string, attempt: number, step: string}[]} */
  stages = [];
  /** @type {{at: number, step: string, text: string, isFailure: boolean}[]} */
  messages = [];
  /** What was dropped of the messages, so that the page can say so. */
  dropped = 0;
  /** Since when all that was told is here: the date of the first that was. */
  begins = NaN;
  #limits = GLANCE;
  /** Points lie this far apart at least: it doubles each time that there is no more room. */
  #apartMs = 0;
  #at = 0;

  /** From now on as much as a page of its own can show; or no longer. */
  study(isStudied) {
    this.#limits = isStudied ? STUDY : GLANCE;
    if (isStudied) this.#apartMs = 0;
    else this.#trim();
  }

  /** @param {import("../client.js").Task} task @param {number | null} percent where its bar is */
  note(task, percent) {
    // A worker's clock may go back; a line that does would say nothing.
    const told = moment(task.updated_at);
    this.#at = Math.max(this.#at, Number.isFinite(told) ? told : now());
    if (Number.isNaN(this.begins)) this.begins = this.#at;
    const last = this.stages.at(-1);
    const attempt = task.attempt ?? 1;
    if (last === undefined || last.status !== task.status || last.attempt !== attempt) {
      if (last !== undefined && last.attempt !== attempt && this.points.length > 0) this.points.push(this.#at, NaN);
      this.stages.push({ at: this.#at, status: task.status, attempt, step: text(task.step) });
    }
    this.#noteMessage(task);
    this.#notePoint(task, percent);
    this.#trim();
  }

  /** Puts where they belong frames that were told before anybody looked, or while nobody heard. @param {any[]} frames ascending */
  recall(frames) {
    const past = new Trail();
    past.study(true);
    const bar = new Bar();
    // What is newer is on its way here by itself.
    for (const frame of frames) if (!(moment(frame.updated_at) > this.#at)) past.note(frame, bar.show(frame));
    if (past.stages.length === 0) return;
    this.#recallPoints(past);
    this.stages = merged(past.stages, this.stages, (one, other) => one.status === other.status && one.attempt === other.attempt);
    const known = this.messages.length;
    this.messages = merged(past.messages, this.messages, (one, other) => one.text === other.text && one.step === other.step);
    this.dropped = Math.max(0, this.dropped - (this.messages.length - known));
    this.#trim();
  }

  #recallPoints(past) {
    // A line of percents stays one here, too.
    if (past.points.length === 0 || (past.isCount && !this.isCount && this.points.length > 0)) return;
    const own = past.isCount === this.isCount ? pairsOf(this.points) : [];
    // Where an attempt began is known better by who saw all of it.
    const seen = own.filter(([at, value]) => !(Number.isNaN(value) && at >= past.begins));
    const line = interleaved(pairsOf(past.points), seen, ([at]) => at, ([, one], [, other]) => Object.is(one, other));
    this.isCount = past.isCount;
    this.points = steady(line, new Set(seen)).flat();
  }

  #noteMessage(task) {
    const failure = hasEnded(task) ? text(task.error?.message) || text(task.error?.code) : "";
    const [words, step] = [failure || text(task.message), text(task.step)];
    const last = this.messages.at(-1);
    if ((words || step) && (last?.text !== words || last.step !== step)) this.messages.push({ at: this.#at, step, text: words, isFailure: failure !== "" });
  }

  #notePoint(task, percent) {
    // With its end each is at 100 %, which says nothing of how far a count came.
    const isCount = Number.isFinite(task.current) && (percent === null || (this.isCount && hasEnded(task)));
    const value = isCount ? task.current : percent;
    if (value === null) return;
    // A line of percents stays one, whatever a later step counts.
    if (isCount && !this.isCount && this.points.length > 0) return;
    if (isCount !== this.isCount) {
      this.points.length = 0;
      this.isCount = isCount;
    }
    const { points } = this;
    const size = points.length;
    // The last one moves on until it is far enough from the one before it.
    const isClose = size >= 4 && !Number.isNaN(points[size - 1]) && points[size - 2] - points[size - 4] < this.#apartMs;
    if (isClose) points.length -= 2;
    points.push(this.#at, value);
  }

  #trim() {
    const { points, stages, messages } = this.#limits;
    while (this.points.length > 2 * points) this.#thin();
    if (this.stages.length > stages) this.stages.splice(1, this.stages.length - stages);
    if (this.messages.length > messages) {
      this.dropped += this.messages.length - messages;
      this.messages.splice(0, this.messages.length - messages);
    }
  }

  /** Every other point, but for the first, the last and the breaks. */
  #thin() {
    const { points } = this;
    let kept = 2;
    for (let at = 2; at < points.length; at += 2) {
      const isBreak = Number.isNaN(points[at + 1]);
      if (at % 4 === 0 || at >= points.length - 2 || (isBreak && kept < points.length / 2)) {
        points[kept] = points[at];
        points[kept + 1] = points[at + 1];
        kept += 2;
      }
    }
    points.length = kept;
    const whole = points[kept - 2] - points[0];
    this.#apartMs = Math.max(this.#apartMs * 2, whole / this.#limits.points);
  }
}
