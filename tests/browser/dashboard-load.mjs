// The dashboard with 10,000 tasks and 1,000 events a second: nothing keeps the page's main thread busy for long, memory does not grow,
// and what is shown at the end is what was published last.
//
// How long a piece of work took is its processor time, as the browser's own trace has it: on a machine with other work the time on
// the wall says nothing about the page.
//
// Usage and environment: as page.mjs, and TESTS_LOAD_SECONDS (15), TESTS_LOAD_TASKS (10000). Prints PASS or FAIL and why; exit 0 or 1.

import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";

import { freePorts, judge, kill, screenshots, start } from "./support.mjs";
import { LIVE, PATIENCE, publish, SECRET, tokenFor, watch } from "./watched.mjs";

const SECONDS = Number(process.env.TESTS_LOAD_SECONDS ?? 15);
const TASKS = Number(process.env.TESTS_LOAD_TASKS ?? 10_000);
const EVENTS_PER_SECOND = 1_000;
const BATCH = 50;
const LONG_TASK_MS = 100;
/** What histories may take of each event, until they are full of each task. */
const GROWTH_BYTES_PER_EVENT = 250;
const GROWTH_BYTES_PER_TASK = 600;

const idOf = (at) => `task-${String(at).padStart(5, "0")}`;
const STATUSES = ["running", "running", "running", "running", "running", "waiting", "queued", "succeeded", "failed"];

/** Every tenth task has nine children. */
const first = (at) => ({
  task_id: idOf(at), user_id: `u${at % 7}`, name: ["export", "import", "scan"][at % 3], title: `Task number ${at}`,
  status: STATUSES[at % STATUSES.length], progress: at % 50, tags: [`tag-${at % 20}`], message: "Began", current: at % 50, total: 1_000,
  ...(at % 100 < 10 && at % 10 > 0 ? { root_id: idOf(at - (at % 10)), parent_id: idOf(at - (at % 10)) } : {}),
});

async function publishAll(port, token) {
  for (let at = 0; at < TASKS; at += 500) await publish(port, token, Array.from({ length: Math.min(500, TASKS - at) }, (_, index) => first(at + index)));
}

/** At an even pace; late turns are made up for. */
async function publishEvents(port, token, seconds) {
  const began = performance.now();
  const total = seconds * EVENTS_PER_SECOND;
  for (let sent = 0; sent < total; sent += BATCH) {
    const ahead = began + (sent / EVENTS_PER_SECOND) * 1_000 - performance.now();
    if (ahead > 0) await pause(ahead);
    await publish(port, token, Array.from({ length: BATCH }, (_, index) => {
      const at = (sent + index) * 7 % TASKS;
      const turn = Math.floor(((sent + index) * 7) / TASKS);
      return { task_id: idOf(at), user_id: `u${at % 7}`, current: 50 + turn, total: 1_000, message: `Row ${turn} of ${at}`, ...(at % 9 < 5 ? { status: "running" } : {}) };
    }));
  }
  return (performance.now() - began) / 1_000;
}

/** The processor time of each piece of work on the page's main thread, in milliseconds, the longest first. */
function pieces(trace) {
  const { traceEvents } = JSON.parse(trace.toString());
  const mains = new Set(traceEvents.filter(({ name, args }) => name === "thread_name" && args?.name === "CrRendererMain").map(({ pid, tid }) => `${pid} ${tid}`));
  const work = traceEvents.filter(({ name, ph, pid, tid }) => ph === "X" && /RunTask$/.test(name) && mains.has(`${pid} ${tid}`));
  assert.ok(work.length > 100 && work.some(({ tdur }) => tdur > 0), `${work.length} pieces of work were traced`);
  return work.map(({ dur, tdur }) => ({ wall: dur / 1_000, cpu: (tdur ?? dur) / 1_000 })).sort((a, b) => b.cpu - a.cpu);
}

async function heapOf(debug) {
  // Twice: what is freed only when the first is over.
  for (let turn = 0; turn < 2; turn += 1) await debug.send("HeapProfiler.collectGarbage");
  return (await debug.send("Runtime.getHeapUsage")).usedSize;
}

const MB = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;

async function walk(browser, step) {
  const [port, operationsPort] = await freePorts(2);
  const own = `http://127.0.0.1:${port}`;
  const service = await start(["serve"], port, operationsPort, SECRET);
  const [worker, all] = [tokenFor("--user", "worker", "--publish"), tokenFor("--user", "u1", "--watch", "all")];
  await publishAll(port, worker);
  const { page, seen } = await watch(browser, own);
  const debug = await page.context().newCDPSession(page);

  step(`${TASKS} tasks are there at once`);
  await browser.startTracing(page, { categories: ["toplevel", "devtools.timeline", "-*"] });
  await page.goto(`${own}/#token=${all}`);
  await page.waitForSelector(LIVE, { state: "attached", ...PATIENCE });
  await page.waitForFunction((count) => document.querySelector("#summary").textContent.replace(/\D/g, "").startsWith(`${count}`), TASKS, PATIENCE);
  const opening = pieces(await browser.stopTracing());
  const rows = await page.$$eval("#tasks .row", (nodes) => nodes.length);
  assert.ok(rows < 60, `${rows} rows are on the page`);
  await page.screenshot({ path: join(screenshots, "dashboard-10000.png") });

  step(`${EVENTS_PER_SECOND} events a second for ${SECONDS} s, while somebody scrolls, filters and looks`);
  await publishEvents(port, worker, 2);
  const before = await heapOf(debug);
  const heaps = [before];
  await browser.startTracing(page, { categories: ["toplevel", "devtools.timeline", "-*"] });
  let isOver = false;
  const somebody = (async () => {
    for (let turn = 0; !isOver; turn += 1) {
      await page.mouse.wheel(0, [4_000, 20_000, -50_000][turn % 3]);
      if (turn % 8 === 3) await page.fill("#words", ["number 12", ""][(turn >> 3) % 2]);
      if (turn % 8 === 6) await page.selectOption("#order", ["status", "newest"][(turn >> 3) % 2]);
      if (turn % 8 === 7) {
        await page.evaluate(() => scrollTo(0, 0));
        await page.click("#tasks .row[data-task-id] .task-title");
        await page.waitForSelector("#task:not([hidden]) #details dt", PATIENCE);
        await pause(800);
        await page.keyboard.press("Escape");
      }
      await pause(400);
    }
    await page.fill("#words", "");
    await page.selectOption("#order", "newest");
  })();
  // The browser keeps a trace in a buffer of its own, which ends some day.
  const traced = Math.min(SECONDS, 30);
  let took = await publishEvents(port, worker, traced);
  const busy = pieces(await browser.stopTracing());
  for (let left = SECONDS - traced; left > 0; left -= 30) {
    took += await publishEvents(port, worker, Math.min(left, 30));
    heaps.push(await heapOf(debug));
    console.log(`browser: ${MB(heaps.at(-1))}`);
  }
  isOver = true;
  await somebody;

  step("what comes above does not push away what somebody reads");
  await page.evaluate(() => scrollTo(0, 30_000));
  const read = () => page.evaluate(() => {
    const rows = [...document.querySelectorAll("#tasks .row")].map((row) => [row.dataset.taskId, Math.round(row.getBoundingClientRect().top)]);
    return rows.find(([, top]) => top > 200);
  });
  await page.waitForFunction(() => [...document.querySelectorAll("#tasks .row")].some((row) => row.getBoundingClientRect().top > 200 && row.getBoundingClientRect().top < 400), null, PATIENCE);
  const [reading, top] = await read();
  await publish(port, worker, ["above-1", "above-2", "above-3"].map((task_id) => ({ task_id, user_id: "u1", progress: 1 })));
  await page.waitForFunction((count) => document.querySelector("#summary").textContent.replace(/\D/g, "").startsWith(`${count}`), TASKS + 3, PATIENCE);
  assert.deepEqual(await read(), [reading, top]);

  step("what is shown is what was published last");
  const done = { task_id: "done", user_id: "u1", title: "The last one", status: "succeeded" };
  await publish(port, worker, [done]);
  await page.evaluate(() => scrollTo(0, 0));
  await page.waitForFunction(() => document.querySelector('#tasks .row[data-task-id="done"][data-status="succeeded"]'), null, PATIENCE);
  const shown = await page.$$eval("#tasks .row[data-task-id]:not([data-group])", (nodes) => nodes.map((node) => [node.dataset.taskId, node.querySelector(".message").textContent]));
  assert.ok(shown.length > 10, `${shown.length} rows are shown`);
  for (const [id, message] of shown) {
    const asked = await fetch(`${own}/api/v1/tasks/${id}`, { headers: { authorization: `Bearer ${all}` } });
    assert.equal(message, (await asked.json()).message ?? "", id);
  }
  assert.deepEqual(seen.complaints, []);

  heaps.push(await heapOf(debug));
  const rate = Math.round((SECONDS * EVENTS_PER_SECOND) / took);
  const [longest, longestOpening] = [busy[0], opening[0]];
  const share = busy.reduce((sum, { cpu }) => sum + cpu, 0) / (traced * 10);
  console.log(`browser: opening: the longest piece of work ${longestOpening.cpu.toFixed(1)} ms of CPU (${longestOpening.wall.toFixed(1)} ms on the wall)`);
  console.log(`browser: ${rate} events/s: the longest piece of work ${longest.cpu.toFixed(1)} ms of CPU (${longest.wall.toFixed(1)} ms on the wall), the next ${busy.slice(1, 5).map(({ cpu }) => cpu.toFixed(1)).join(", ")}; ${share.toFixed(0)} % of a core`);
  console.log(`browser: heap ${heaps.map(MB).join(", ")}`);
  assert.ok(longest.cpu < LONG_TASK_MS, `a piece of work took ${longest.cpu} ms`);
  assert.ok(longestOpening.cpu < LONG_TASK_MS, `while opening, a piece of work took ${longestOpening.cpu} ms`);
  const growth = heaps.at(-1) - before;
  const allowed = Math.min(TASKS * GROWTH_BYTES_PER_TASK, SECONDS * EVENTS_PER_SECOND * GROWTH_BYTES_PER_EVENT);
  assert.ok(growth < allowed, `the heap grew by ${MB(growth)}, which is more than ${MB(allowed)}`);
  await kill(service);
}

mkdirSync(screenshots, { recursive: true });
await judge(`the dashboard under load, ${SECONDS} s`, walk);
