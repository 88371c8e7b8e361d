// A page that shows 1,000 tasks of which 200 move a second, and lets go of handles and elements all the time, does not grow: its heap
// is about the same at the end as at the beginning, and holds no former state of a task and nothing of what was let go of.
//
// Usage and environment: as page.mjs, and TESTS_CLIENT_MEMORY_SECONDS (10). Prints PASS or FAIL and why; exit 0 or 1.

import assert from "node:assert/strict";
import { setTimeout as pause } from "node:timers/promises";

import { judge } from "./support.mjs";
import { PATIENCE, jwt, newWorld } from "./world.mjs";

const SECONDS = Number(process.env.TESTS_CLIENT_MEMORY_SECONDS ?? 10);
const TASKS = 1_000;
const EVENTS_PER_SECOND = 200;
/** Until what is let go of is forgotten, and the engine has compiled what it will. */
const WARM_UP_MS = 8_000;
const FORGOTTEN_MS = 7_000;
const SAMPLES = 10;
/** An engine goes on compiling what it runs; one state of each task would be more. */
const GROWTH_MAX_BYTES = 400_000;
const BARS = 50;

const pageOf = (port) => `<!doctype html><meta charset="utf-8"><title>memory</title><div id="bars"></div><script type="module">
  import { TaskcastClient, TaskProgressElement } from "http://127.0.0.1:${port}/client.js";
  window.client = new TaskcastClient({ getToken: async () => (await fetch("/token")).text() });
  TaskProgressElement.client = client;
  window.told = 0;
  client.tasks().on("update", () => { told += 1; });
  for (let at = 0; at < ${BARS}; at += 1) {
    const bar = document.createElement("task-progress");
    bar.taskId = "t" + at;
    document.querySelector("#bars").append(bar);
  }
  // As a page does whose views come and go.
  let turn = 0;
  window.churn = setInterval(() => {
    turn += 1;
    client.task("t" + (turn % ${TASKS})).on("update", () => {})();
    client.task("unknown" + turn).done({ signal: AbortSignal.timeout(100) }).catch(() => {});
    client.tasks({ filter: ({ progress }) => progress > turn % 100 }).subscribe(() => {})();
    const bar = document.querySelector("task-progress");
    bar.remove();
    const another = document.createElement("task-progress");
    another.taskId = "t" + (turn % ${TASKS});
    document.querySelector("#bars").append(another);
  }, 500);
  window.rest = () => clearInterval(churn);
</script>`;

/** How many are left of what there is to be found. */
async function objects(debug) {
  const pieces = [];
  debug.on("HeapProfiler.addHeapSnapshotChunk", ({ chunk }) => pieces.push(chunk));
  await debug.send("HeapProfiler.takeHeapSnapshot", { reportProgress: false });
  const { snapshot: { meta: { node_fields: fields } }, nodes, strings } = JSON.parse(pieces.join(""));
  let elements = 0;
  for (let at = fields.indexOf("name"); at < nodes.length; at += fields.length) {
    if (strings[nodes[at]].startsWith("<task-progress")) elements += 1;
  }
  const count = (pattern) => strings.filter((text) => pattern.test(text)).length;
  return { states: count(/^row \d+ of t\d+$/), unknown: count(/unknown\d/), elements };
}

async function walk(browser, step) {
  const world = await newWorld({ site: (path, { port }) => (path === "/token" ? jwt("u1", 36_000) : path === "/" ? pageOf(port) : undefined) });
  const event = (at, progress) => ({ task_id: `t${at}`, user_id: "u1", title: `Export ${at}`, message: `row ${progress} of t${at}`, current: progress, total: 1_000_000 });
  await world.append(Array.from({ length: TASKS }, (_, at) => event(at, 0)));
  const context = await browser.newContext();
  const { page, seen } = await world.open(context);
  await page.waitForFunction((count) => window.client?.connection.current.state === "live" && window.client.tasks().current.length === count, TASKS, PATIENCE);
  const debug = await context.newCDPSession(page);
  const heap = async () => {
    await debug.send("HeapProfiler.collectGarbage");
    return (await debug.send("Runtime.getHeapUsage")).usedSize;
  };

  let written = 0, writes = true;
  const began = Date.now();
  const writing = (async () => {
    while (writes) {
      const due = Math.min(Math.floor(((Date.now() - began) / 1_000) * EVENTS_PER_SECOND), written + EVENTS_PER_SECOND);
      await world.append(Array.from({ length: due - written }, (_, at) => event((written + at) % TASKS, 1 + Math.floor((written + at) / TASKS))));
      written = due;
      await pause(50);
    }
  })();

  step(`${SECONDS} s of ${EVENTS_PER_SECOND} events a second to ${TASKS} tasks`);
  await pause(WARM_UP_MS);
  const samples = [await heap()];
  while (samples.length <= SAMPLES) {
    await pause((SECONDS * 1_000) / SAMPLES);
    samples.push(await heap());
  }
  await page.evaluate(() => window.rest());
  await pause(FORGOTTEN_MS);
  writes = false;
  await writing;
  await page.waitForFunction((count) => window.client.tasks().current.every(({ current }) => current >= count), Math.floor(written / TASKS), PATIENCE);
  await heap();
  const left = await objects(debug);
  // The least of several: what a collection finds in the middle of an update is no growth.
  const [first, last] = [Math.min(...samples.slice(0, 4)), Math.min(...samples.slice(-4))];
  const told = await page.evaluate(() => window.told);
  console.log(`browser: ${written} events, the list told ${told} times; heap ${samples.map((bytes) => (bytes / 1e6).toFixed(2)).join(" ")} MB`);
  console.log(`browser: left are ${JSON.stringify(left)}`);
  // Each state has a message of its own, and the one before it may be where an update is just made.
  assert.ok(left.states <= TASKS + BARS && left.states >= TASKS, `${left.states} states of ${TASKS} tasks`);
  assert.deepEqual([left.unknown, left.elements], [0, BARS]);
  assert.ok(told > 0 && last - first < GROWTH_MAX_BYTES, `it grew by ${last - first} bytes`);
  const now = await page.evaluate(() => window.client.tasks().current.length);
  assert.deepEqual([now, seen.complaints], [TASKS, []]);
  await context.close();
  await world.close();
}

await judge("a page's memory", walk);
