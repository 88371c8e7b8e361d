// The front ends that the field has, unchanged but for the address, against a real service with a real Redis, in a real browser:
// with `?dialect=celery` bars move and end, results and errors are shown, restarts are survived; and what their own reconnecting
// does to others when it runs wild is bounded by the service.
//
// Usage and environment: as page.mjs. Screenshot: old.png. Prints PASS or FAIL and why; exit 0 or 1.

import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";

import { bundle } from "./bundle.mjs";
import { startCelery } from "./old/celery.mjs";
import { judge, kill, screenshots, stop } from "./support.mjs";
import { PATIENCE, jwt, newWorld, until } from "./world.mjs";

/** Small enough that a page which runs wild gets there while somebody looks. */
const HANDSHAKES_PER_MINUTE = 60;
const WILD_MS = 5_000;
/** Somebody who looks at a task would feel more than this. */
const FELT_MS = 10_000;
/** Handshakes that end before their first frame are counted as neither. */
const AS_ASKED = 30;

async function walk(browser, step) {
  const scripts = {
    "/hook.js": await bundle('import "./tests/browser/old/app.jsx";'),
    "/platform.js": await bundle('import { PlatformSocket } from "./tests/browser/old/platform.js"; window.PlatformSocket = PlatformSocket;'),
  };
  const pageOf = (path, token, port) => `<!doctype html><meta charset="utf-8"><title>old</title><main id="app"></main><script>
    localStorage.setItem("token", ${JSON.stringify(token)});
    window.url = "ws://127.0.0.1:${port}/ws/tasks/?dialect=celery"; window.inline = ${path === "/wild"};</script>
    <script type="module" src="${path === "/platform" ? "/platform.js" : "/hook.js"}"></script>`;
  const tokens = { "/hook": jwt("u1", 3600), "/platform": jwt("u1", 3600), "/wild": jwt("u2", 3600), "/expired": jwt("u3", -10) };
  const world = await newWorld({
    site: (path, { port }) => scripts[path] ?? (tokens[path] && pageOf(path, tokens[path], port)),
    settings: { TASKCAST_LIMITS_HANDSHAKES_PER_MINUTE_PER_USER: `${HANDSHAKES_PER_MINUTE}` },
  });
  const { append } = world;
  // The token is in the site's storage, so who has another one has another browser.
  const open = async (path) => world.open(await browser.newContext({ viewport: { width: 640, height: 300 } }), path);
  // As a Celery worker calls things.
  const tell = (task_id, status, more = {}) => append([{ task_id, user_id: "u1", status, ...more }]);

  step("the old hook: bars move and end, results and errors are shown");
  await tell("export", "STARTED", { name: "export_data", current: 5, total: 20, step: "Reading rows" });
  const { page, seen } = await open("/hook");
  const holds = (look, about) => page.waitForFunction(look, about, PATIENCE);
  /** The hook learns of new tasks from a list alone, and asks again until the event has come through. */
  const appears = (id) => page.waitForFunction((id) => document.getElementById(id) || void window.hook.refresh(), id, { ...PATIENCE, polling: 200 });
  const bar = (id, status, value) => holds(([id, status, value]) => {
    const label = document.getElementById(id);
    return label?.dataset.status === status && label.querySelector("progress").value === value;
  }, [id, status, value]);
  await bar("export", "PROGRESS", 25);
  await tell("export", "PROGRESS", { current: 15, total: 20, step: "Writing" });
  await bar("export", "PROGRESS", 75);
  await holds(() => /export_data\s+Writing 15\/20/.test(document.getElementById("export").textContent));
  await page.screenshot({ path: join(screenshots, "old.png") });
  await tell("export", "SUCCESS", { result: { rows: 20 } });
  await bar("export", "SUCCESS", 100);
  await holds(() => [...document.querySelectorAll(".toast")].some(({ textContent }) => textContent === 'export SUCCESS {"rows":20}'));
  await tell("import", "STARTED", { name: "import_data" });
  await appears("import");
  await bar("import", "STARTED", 0);
  await tell("import", "FAILURE", { error: { message: "the disk is full" } });
  await holds(() => [...document.querySelectorAll(".toast")].some(({ textContent }) => textContent === "import FAILURE the disk is full"));
  await page.evaluate(() => { window.hook.askFor("export"); window.hook.cancel("export"); window.hook.sendRaw("{no JSON"); });
  await holds(() => document.querySelector("[role=alert]")?.textContent.length > 0);
  assert.equal(await page.getAttribute("#app main", "data-connected"), "true");

  step("a Celery worker whose tasks know nothing of taskcast: its progress moves the bar to the end, its failures are told");
  const worker = await startCelery(world);
  await worker.call('worker.export_data.apply_async((20,), {"user_id": "u1"}, task_id="celery-1")');
  await appears("celery-1");
  await bar("celery-1", "STARTED", 0);
  for (const rows of [0, 5, 10, 15]) {
    await worker.go();
    await holds((rows) => document.getElementById("celery-1").textContent.includes(`export_data  Reading rows ${rows}/20`), rows);
  }
  await bar("celery-1", "PROGRESS", 75);
  await page.screenshot({ path: join(screenshots, "old-celery.png") });
  await worker.go();
  await bar("celery-1", "SUCCESS", 100);
  await holds(() => [...document.querySelectorAll(".toast")].some(({ textContent }) => textContent === 'celery-1 SUCCESS {"rows":20}'));
  await worker.call('worker.import_data.apply_async((), {"user_id": "u1"}, task_id="celery-2")');
  await holds(() => [...document.querySelectorAll(".toast")].some(({ textContent }) => textContent === "celery-2 FAILURE the disk is full"));
  const failed = (await world.tasks(jwt("u1", 3600))).find(({ task_id }) => task_id === "celery-2");
  assert.deepEqual([failed.attempt, failed.error.type], [2, "OSError"]);

  step("a Celery worker tells what it can, and its tasks end as they would without it");
  // Another user's: the page need not show them.
  for (const kind of ["huge", "not a number"]) await worker.call(`worker.awkward.apply_async(("${kind}",), {"user_id": "u3"}, task_id="${kind}")`);
  await worker.call('worker.again.apply_async((), {"user_id": "u3"}, task_id="again")');
  const told = async () => (await world.tasks(jwt("u3", 3600))).map(({ task_id, status }) => `${task_id}: ${status}`).sort().join();
  await until(async () => (await told()) === "again: retrying,huge: succeeded,not a number: succeeded");
  const left = (await world.tasks(jwt("u3", 3600))).map(({ message = null, result = null }) => [message, result]);
  assert.deepEqual(left, [[null, null], ["Working", null], ["Working", null]]);
  assert.deepEqual(await worker.withoutRedis(), ["SUCCESS", "FAILURE", "the disk is full"]);
  await worker.end();

  step("restarts and drops: it comes back by itself, and is told of what ended meanwhile");
  for (const [turn, end] of [kill, stop, null].entries()) {
    const id = `during${turn}`;
    await tell(id, "STARTED", { name: id });
    await appears(id);
    if (end) await end(world.service);
    else world.net.cut();
    await tell(id, "SUCCESS", { result: { turn } });
    if (end) await world.startService();
    await holds(([id, turn]) => [...document.querySelectorAll(".toast")].some(({ textContent }) => textContent === `${id} SUCCESS {"turn":${turn}}`), [id, turn]);
  }
  // It tries five times at most, and here each time it got in at the first or second.
  const { mostOpen, madeAt } = await page.evaluate(() => ({ mostOpen, madeAt }));
  assert.ok(mostOpen === 1 && madeAt.length <= 1 + 3 * 5, `${mostOpen} open, ${madeAt.length} made`);
  const complaints = seen.complaints.filter((text) => !text.startsWith("Unknown message type:"));
  assert.deepEqual(complaints, []);

  step("the platform's socket: what it sends is understood, and no restart strands it");
  const platform = await open("/platform");
  await platform.page.evaluate(() => {
    window.heard = [];
    window.platform = new window.PlatformSocket(window.url, { heartbeatMs: 200 });
    window.platform.subscribe("task_progress", (message) => window.heard.push(message));
    window.platform.connect();
  });
  // Two for what it subscribes to and its heartbeats.
  await platform.page.waitForFunction(() => window.platform.pongs >= 3, null, PATIENCE);
  for (const end of [stop, kill]) {
    const pongs = await platform.page.evaluate(() => window.platform.pongs);
    await world.restart(end);
    await platform.page.waitForFunction((pongs) => window.platform.isOpen && window.platform.pongs > pongs, pongs, PATIENCE);
  }
  const { closes, unheard } = await platform.page.evaluate(() => window.platform);
  assert.deepEqual(closes.slice(0, 1), [1012], `${closes}`);
  assert.ok(!unheard.includes("error"), `${unheard}`);
  await platform.page.close();

  step("a token that has expired: once a second, as it counts anew with each connection that opens, and not faster");
  const expired = await open("/expired");
  await pause(5_000);
  const asked = await expired.page.evaluate(() => ({ made: window.madeAt.length, elapsed: performance.now() }));
  assert.ok(asked.made >= 2 && asked.made <= 2 + asked.elapsed / 1_000, `${asked.made} in ${asked.elapsed} ms`);
  await expired.page.close();

  step("callbacks that are others with each render: it runs wild, the service bounds it, and nobody else feels it");
  const counted = () => Promise.all(['taskcast_handshakes_total{outcome="accepted"}', 'taskcast_limit_refusals_total{limit="handshakes_per_minute_per_user"}'].map(world.metric));
  const before = await counted();
  const wild = await open("/wild");
  await append(Array.from({ length: 10 }, (_, at) => ({ task_id: `wild${at}`, user_id: "u2", status: "PROGRESS", progress: at })));
  const since = Date.now();
  let worst = 0;
  // Until it has met the limit, however slowly it gets there.
  const isWild = async () => Date.now() - since < WILD_MS || ((await counted())[1] === before[1] && Date.now() - since < PATIENCE.timeout);
  for (let turn = 0; await isWild(); turn += 1) {
    const told = Date.now();
    await tell("beside", "PROGRESS", { name: "beside", current: turn + 1, total: 10_000 });
    if (turn === 0) await appears("beside");
    await holds((items) => document.getElementById("beside")?.textContent.includes(` ${items}/`), turn + 1);
    worst = Math.max(worst, Date.now() - told);
    await pause(50);
  }
  const tries = await wild.page.evaluate(() => window.madeAt.length);
  const opened = (await counted()).map((now, at) => now - before[at]);
  await wild.page.close();
  const [handshakes, refused] = opened;
  const allowed = HANDSHAKES_PER_MINUTE * (1 + (Date.now() - since) / 60_000);
  assert.ok(refused > 0 && handshakes - refused <= allowed + AS_ASKED, `${handshakes} handshakes, ${refused} of them refused`);
  assert.ok(worst < FELT_MS, `another page heard of its task within ${worst} ms`);
  console.log(`browser: ${tries} attempts in ${Math.round((Date.now() - since) / 1_000)} s, ${handshakes} handshakes, ${refused} of them refused; another page heard of its task within ${worst} ms`);
  await until(async () => (await world.connections()) === 1);

  for (const context of browser.contexts()) await context.close();
  await world.close();
}

mkdirSync(screenshots, { recursive: true });
await judge("the old front ends in a browser", walk);
