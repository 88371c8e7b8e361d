// A page that shows 1,000 tasks of which 200 move a second, and lets go of handles all the time, does not grow: what is left of
// its heap after each collection is the same at the end as at the beginning.
//
// Usage and environment: as page.mjs, and TESTS_CLIENT_MEMORY_SECONDS (20). Prints PASS or FAIL and why; exit 0 or 1.

import assert from "node:assert/strict";
import { setTimeout as pause } from "node:timers/promises";

import { judge } from "./support.mjs";
import { PATIENCE, jwt, newWorld } from "./world.mjs";

const SECONDS = Number(process.env.TESTS_CLIENT_MEMORY_SECONDS ?? 20);
const TASKS = 1_000;
const EVENTS_PER_SECOND = 200;
/** Until what is let go of is forgotten, and the engine has compiled what it will. */
const WARM_UP_MS = 15_000;
const SAMPLES = 10;
/** Of each of these, one a second would be 12 KB in twenty seconds and more than this in five minutes, however small it is. */
const GROWTH_MAX_BYTES = 150_000;

const pageOf = (port) => `<!doctype html><meta charset="utf-8"><title>memory</title><div id="bars"></div><script type="module">
  import { TaskcastClient, TaskProgressElement } from "http://127.0.0.1:${port}/client.js";
  window.client = new TaskcastClient({ getToken: async () => (await fetch("/token")).text() });
  TaskProgressElement.client = client;
  window.told = 0;
  client.tasks().on("update", () => { told += 1; });
  for (let at = 0; at < 50; at += 1) {
    const bar = document.createElement("task-progress");
    bar.taskId = "t" + at;
    document.querySelector("#bars").append(bar);
  }
  // As a page does whose views come and go.
  let turn = 0;
  setInterval(() => {
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
</script>`;

async function walk(browser, step) {
  const world = await newWorld({ site: (path, { port }) => (path === "/token" ? jwt("u1", 36_000) : path === "/" ? pageOf(port) : undefined) });
  const event = (at, progress) => ({ task_id: `t${at}`, user_id: "u1", title: `Export ${at}`, message: `row ${progress}`, current: progress, total: 1_000_000 });
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
  writes = false;
  await writing;
  // The least of several: what a collection finds in the middle of an update is no growth.
  const [first, last] = [Math.min(...samples.slice(0, 4)), Math.min(...samples.slice(-4))];
  const told = await page.evaluate(() => window.told);
  console.log(`browser: ${written} events, the list told ${told} times; heap ${samples.map((bytes) => (bytes / 1e6).toFixed(2)).join(" ")} MB`);
  assert.ok(told > 0 && last - first < GROWTH_MAX_BYTES, `it grew by ${last - first} bytes`);
  const now = await page.evaluate(() => window.client.tasks().current.length);
  assert.deepEqual([now, seen.complaints], [TASKS, []]);
  await context.close();
  await world.close();
}

await judge("a page's memory", walk);
