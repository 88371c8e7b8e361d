// The progress of one task over time, drawn. Refuses to know: where the points come from.

import { draw } from "./dom.js";
import { amount, shortAmount, statusName, time, whole } from "./format.js";

const HEIGHT = 220;
const LEFT = 44;
const RIGHT = 12;
const TOP = 12;
const FLOOR = 176;
const STRIP = 186;
const STRIP_HEIGHT = 8;

/**
 * @param {import("./trail.js").Trail} trail
 * @param {number} until where time stands: now, or the end of the task
 * @param {number} width in pixels, so that what is written in it is as large as other texts
 * @returns {SVGElement | null} null when there is nothing to draw
 */
export function plot(trail, until, width) {
  const { points, stages, isCount } = trail;
  if (points.length < 4) return null;
  const from = points[0];
  const to = Math.max(until, points[points.length - 2], from + 1_000);
  const highest = isCount ? Math.max(1, ...values(points)) : 100;
  const room = width - LEFT - RIGHT;
  const x = (at) => (LEFT + ((Math.max(at, from) - from) / (to - from)) * room).toFixed(1);
  const y = (value) => (FLOOR - (value / highest) * (FLOOR - TOP)).toFixed(1);
  const image = draw("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": wordsOf(trail, from, to) });
  for (const share of [0, 0.5, 1]) {
    const height = y(share * highest);
    const label = isCount ? shortAmount(share * highest) : `${share * 100} %`;
    image.append(
      draw("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: height, y2: height }),
      draw("text", { class: "tick", x: LEFT - 6, y: Number(height) + 4, "text-anchor": "end" }, label),
    );
  }
  strip(image, stages, to, x);
  attempts(image, stages, from, x);
  const [lastAt, last] = points.slice(-2);
  const isKnown = !Number.isNaN(last);
  image.append(
    ...runs(points).flatMap((run) => [
      draw("path", { class: "area", d: `M${x(run[0])} ${FLOOR}L${path(run, x, y)}V${FLOOR}Z` }),
      draw("path", { class: "line", d: `M${path(run, x, y)}` }),
    ]),
    ...(isKnown && to > lastAt ? [draw("line", { class: "rest", x1: x(lastAt), x2: x(to), y1: y(last), y2: y(last) })] : []),
    ...(isKnown ? [draw("circle", { class: "tip", cx: x(lastAt), cy: y(last), r: 3.5 })] : []),
    draw("text", { class: "tick", x: LEFT, y: HEIGHT - 6 }, time(from)),
    draw("text", { class: "tick", x: width - RIGHT, y: HEIGHT - 6, "text-anchor": "end" }, time(to)),
  );
  return image;
}

/** Pieces without a break. */
function runs(points) {
  const pieces = [[]];
  for (let at = 0; at < points.length; at += 2) {
    if (Number.isNaN(points[at + 1])) pieces.push([]);
    else pieces.at(-1).push(points[at], points[at + 1]);
  }
  return pieces.filter((piece) => piece.length > 0);
}

function path(run, x, y) {
  let words = `${x(run[0])} ${y(run[1])}`;
  for (let at = 2; at < run.length; at += 2) words += `L${x(run[at])} ${y(run[at + 1])}`;
  return words;
}

/** Below the line, which status it had when. */
function strip(image, stages, to, x) {
  for (const [at, stage] of stages.entries()) {
    const [from, until] = [Number(x(stage.at)), Number(x(stages[at + 1]?.at ?? to))];
    if (until - from < 0.1) continue;
    const piece = draw("rect", { class: "stage", "data-status": stage.status, x: from, y: STRIP, width: Math.max(until - from - 1, 0.5), height: STRIP_HEIGHT, rx: 2 });
    piece.append(draw("title", {}, statusName(stage.status)));
    image.append(piece);
  }
}

function attempts(image, stages, from, x) {
  for (const [at, { attempt, at: moment }] of stages.entries()) {
    if (at === 0 || attempt === stages[at - 1].attempt || moment < from) continue;
    const place = x(moment);
    image.append(
      draw("line", { class: "attempt", x1: place, x2: place, y1: TOP, y2: FLOOR }),
      draw("text", { class: "tick", x: Number(place) + 4, y: TOP + 10 }, `attempt ${attempt}`),
    );
  }
}

function* values(points) {
  for (let at = 1; at < points.length; at += 2) if (!Number.isNaN(points[at])) yield points[at];
}

function wordsOf({ points, stages, isCount }, from, to) {
  const known = [...values(points)];
  const say = (value) => (isCount ? amount(value) : `${whole(value)} %`);
  const attempts = new Set(stages.map(({ attempt }) => attempt)).size;
  const tries = attempts > 1 ? `, in ${attempts} attempts` : "";
  return `Progress from ${say(known[0] ?? 0)} at ${time(from)} to ${say(known.at(-1) ?? 0)} at ${time(to)}${tries}`;
}
