// The client in a real browser, against a real service with a real Redis: loaded by a page of another site, which loses its
// network and its service many times. At the end the page shows what was published and was told of every end, no bar ever went
// back, there never were two sockets, and tokens were fetched when they were needed and only then.
//
// Usage and environment: as page.mjs, and TESTS_CLIENT_DROPS (12). Prints PASS or FAIL and why; exit 0 or 1.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { createConnection, createServer as createProxy } from "node:net";
import { mkdirSync } from "node:fs";
import { setTimeout as pause } from "node:timers/promises";

import { freePorts, judge, kill, run, screenshots, start, startRedis, stop } from "./support.mjs";

const SECRET = "a-secret-of-the-tests-32-bytes-long-or-more";
const DROPS = Number(process.env.TESTS_CLIENT_DROPS ?? 12);
const PATIENCE = { timeout: 30_000 };
const RECONNECT_MIN_MS = 200;
const ENDS = 1_000;
const ENDS_PER_DROP = 100;
/** Of tokens, by the page's fragment; the service announces the end of one this long before. */
const LIFETIMES = { "": "1h", "#brief": "4s", "#briefest": "2s" };
const EXPIRING_LEAD_MS = 2_000;

/** A page of another site, with nothing of its own but what the service gives it. */
const site = (port) => `<!doctype html><meta charset="utf-8"><title>another site</title>
<task-progress task-id="t0"></task-progress>
<script type="module">
  import { TaskcastClient, TaskProgressElement } from "http://127.0.0.1:${port}/client.js";
  window.tokens = [];
  const getToken = async ({ reason }) => {
    tokens.push(reason);
    return (await fetch("/token" + location.hash.replace("#", "/"))).text();
  };
  window.client = new TaskcastClient({ getToken, shareAcrossTabs: location.search === "?share" });
  TaskProgressElement.client = client;
  window.back = [];
  const before = new Map();
  window.list = client.tasks();
  list.on("update", (tasks) => {
    for (const { task_id: id, progress = 0 } of tasks) {
      if (progress < (before.get(id) ?? 0)) back.push(id + ": " + before.get(id) + " to " + progress);
      before.set(id, progress);
    }
  });
  // What is drawn: the bar of t0, which never starts over.
  const bar = document.querySelector("task-progress").shadowRoot.querySelector("[role=progressbar]");
  let drawn = null;
  new MutationObserver(() => {
    const now = bar.getAttribute("aria-valuenow");
    if (drawn !== null && (now === null || Number(now) < Number(drawn))) back.push("drawn: " + drawn + " to " + now);
    drawn = now;
  }).observe(bar, { attributeFilter: ["aria-valuenow"] });
</script>`;

/** Stands between the browser and the service, and can be a bad network. */
async function network(port, target) {
  const pairs = new Set();
  let isSilent = false;
  let lacksWebSockets = false;
  const proxy = createProxy((inside) => {
    const outside = createConnection(target, "127.0.0.1");
    const pair = [inside, outside];
    pairs.add(pair);
    for (const [from, to] of [pair, [...pair].reverse()]) {
      from.on("data", (bytes) => {
        if (lacksWebSockets && bytes.toString("latin1").startsWith("GET /ws/")) return inside.destroy();
        return isSilent || to.write(bytes);
      });
      from.on("error", () => {});
      from.on("close", () => { to.destroy(); pairs.delete(pair); });
    }
  });
  await new Promise((resolve) => proxy.listen(port, "127.0.0.1", resolve));
  const cut = () => pairs.forEach(([inside, outside]) => { inside.destroy(); outside.destroy(); });
  return {
    cut,
    /** What is on its way is lost, and nobody hears of it. */
    silence() { isSilent = true; },
    heal() { cut(); isSilent = false; },
    /** As behind a proxy that knows nothing of them. */
    refuseWebSockets() { lacksWebSockets = true; },
    close: () => { cut(); proxy.close(); },
  };
}

/**
 * Runs in the page before all else: how many sockets there were at the same time, those that were being opened included. For
 * one that is being closed the browser waits until the other side agrees, which a silent network never does.
 */
function countSockets() {
  const made = [];
  window.mostOpen = 0;
  window.WebSocket = class extends WebSocket {
    constructor(...words) {
      super(...words);
      made.push(this);
      window.mostOpen = Math.max(window.mostOpen, made.filter(({ readyState }) => readyState <= WebSocket.OPEN).length);
    }
  };
}

const isLive = () => window.client?.connection.current.state === "live";

/** What the browser tells comes a moment after it happened. */
async function until(holds) {
  const deadline = Date.now() + PATIENCE.timeout;
  while (!holds()) {
    assert.ok(Date.now() < deadline, `never: ${holds}`);
    await pause(20);
  }
}

async function walk(browser, step) {
  const [port, servicePort, operationsPort, redisPort] = await freePorts(4);
  const redis = await startRedis(redisPort);
  const net = await network(port, servicePort);
  const server = createServer((request, answer) => {
    const lasts = LIFETIMES[request.url.replace("/token", "").replace("/", "#")];
    if (request.url.startsWith("/token")) return answer.end(run(["token", "--user", "u1", "--expires", lasts], settings));
    return answer.setHeader("content-type", "text/html").end(site(port));
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const origin = `http://localhost:${server.address().port}`;
  const settings = {
    TASKCAST_LOG: `redis://127.0.0.1:${redisPort}`, TASKCAST_AUTH_SECRET: SECRET, TASKCAST_ORIGINS: origin,
    TASKCAST_SESSIONS_RECONNECT_MIN_MS: `${RECONNECT_MIN_MS}`, TASKCAST_SESSIONS_RECONNECT_MAX_MS: "1000",
    TASKCAST_SESSIONS_HEARTBEAT_INTERVAL_MS: "1000", TASKCAST_SESSIONS_TOKEN_EXPIRING_LEAD_MS: `${EXPIRING_LEAD_MS}`, TASKCAST_AUTH_LEEWAY_SECONDS: "0",
  };
  let service = await start(["serve"], servicePort, operationsPort, settings);
  const worker = run(["token", "--user", "worker", "--publish"], settings);
  const token = run(["token", "--user", "u1"], settings);
  const publish = async (events) => {
    const answer = await fetch(`http://127.0.0.1:${servicePort}/api/v1/events`, {
      method: "POST", headers: { authorization: `Bearer ${worker}`, "content-type": "application/json" }, body: JSON.stringify(events),
    });
    assert.equal(answer.status, 202, await answer.text());
  };
  const context = await browser.newContext();
  const open = async (search = "") => {
    const page = await context.newPage();
    await page.addInitScript(countSockets);
    const seen = { sockets: [], complaints: [] };
    page.on("websocket", (socket) => seen.sockets.push(socket));
    page.on("pageerror", (error) => seen.complaints.push(error.message));
    await page.goto(`${origin}/${search}`);
    await page.waitForFunction(isLive, null, PATIENCE);
    return { page, seen };
  };

  step("a page of another site loads the client and is live");
  await publish([{ task_id: "t0", user_id: "u1", progress: 10, title: "Export" }]);
  const { page, seen } = await open();
  await page.waitForFunction(() => document.querySelector("task-progress").shadowRoot.querySelector("[role=progressbar]").getAttribute("aria-valuenow") === "10", null, PATIENCE);

  step(`${DROPS} drops: the network is cut, goes silent, the service is killed, stopped`);
  let progress = 10;
  for (let turn = 1; turn <= DROPS; turn += 1) {
    progress += 1;
    const events = [{ task_id: "t0", user_id: "u1", progress }, { task_id: `t${turn}`, user_id: "u1", progress: 50 }];
    const way = turn % 4;
    if (way === 0) net.cut();
    if (way === 1) net.silence();
    if (way >= 2) {
      if (way === 2) await kill(service);
      else await stop(service);
      await page.waitForFunction(() => window.client.connection.current.state !== "live", null, PATIENCE);
      service = await start(["serve"], servicePort, operationsPort, settings);
    }
    await publish(events);
    if (way === 1) {
      await page.waitForFunction(() => window.client.connection.current.state !== "live", null, PATIENCE);
      net.heal();
    }
    await page.waitForFunction(({ progress, turn }) =>
      window.client.connection.current.state === "live" && window.list.current.some((task) => task.task_id === "t0" && task.progress === progress) &&
      window.list.current.some((task) => task.task_id === `t${turn}`), { progress, turn }, PATIENCE);
    assert.equal(await page.evaluate(() => window.mostOpen), 1, `after drop ${turn}`);
  }
  assert.deepEqual(await page.evaluate(() => window.tokens), ["initial"]);
  const asked = await (await fetch(`http://127.0.0.1:${servicePort}/api/v1/tasks?limit=500`, { headers: { authorization: `Bearer ${token}` } })).json();
  const shown = await page.evaluate(() => window.list.current.map(({ task_id: id, progress }) => `${id} ${progress}`).sort());
  assert.deepEqual(shown, asked.tasks.map(({ task_id: id, progress }) => `${id} ${progress}`).sort());
  assert.deepEqual(await page.evaluate(() => window.back), []);
  assert.deepEqual(seen.complaints, []);

  step("a task's end is awaited, whenever it was asked for");
  const ends = page.evaluate(() => Promise.all(["before", "later", "fails"].map((id) => window.client.task(id).done().then(({ status }) => status, ({ code }) => code))));
  await publish(["before", "later", "fails"].map((task_id) => ({ task_id, user_id: "u1", status: task_id === "fails" ? "failed" : "succeeded" })));
  assert.deepEqual(await ends, ["succeeded", "succeeded", "failed"]);

  step(`${ENDS} ends of ${ENDS} are told to who awaits them, while the network is cut and the service killed`);
  const ids = Array.from({ length: ENDS }, (_, at) => `end${at}`);
  const parts = Array.from({ length: ENDS / ENDS_PER_DROP }, (_, at) => ids.slice(at * ENDS_PER_DROP, (at + 1) * ENDS_PER_DROP));
  const outcomeOf = (id) => (id.endsWith("7") ? "failed" : "succeeded");
  for (const part of parts) await publish(part.map((task_id) => ({ task_id, user_id: "u1", progress: 1 })));
  await page.waitForFunction((ids) => ids.every((id) => window.client.task(id).current), ids, PATIENCE);
  const outcomes = page.evaluate((ids) => Promise.all(ids.map((id) => window.client.task(id).done().then(({ status }) => status, ({ code }) => code))), ids);
  for (const [turn, part] of parts.entries()) {
    if (turn % 4 === 3) {
      await kill(service);
      service = await start(["serve"], servicePort, operationsPort, settings);
    } else net.cut();
    await publish(part.map((task_id) => ({ task_id, user_id: "u1", status: outcomeOf(task_id) })));
  }
  assert.deepEqual(await outcomes, ids.map(outcomeOf));
  assert.deepEqual([await page.evaluate(() => window.back), await page.evaluate(() => window.mostOpen), seen.complaints], [[], 1, []]);

  step("a page that was put aside comes back as it was");
  await page.goto("about:blank");
  await until(() => seen.sockets.every((socket) => socket.isClosed()));
  await page.goBack();
  await page.waitForFunction(isLive, null, PATIENCE);

  step("a token that ends is refreshed on the open connection");
  const brief = await open("#brief");
  await brief.page.waitForFunction(() => window.tokens.length >= 3, null, PATIENCE);
  const asked4s = await brief.page.evaluate(() => ({ tokens: window.tokens, elapsed: performance.now() }));
  assert.deepEqual([...new Set(asked4s.tokens)], ["initial", "expiring"]);
  assert.ok(asked4s.tokens.length <= 2 + asked4s.elapsed / (4_000 - EXPIRING_LEAD_MS), `${asked4s.tokens.length} in ${asked4s.elapsed} ms`);
  assert.equal(brief.seen.sockets.length, 1);
  await publish([{ task_id: "t0", user_id: "u1", progress: 98 }]);
  await brief.page.waitForFunction(() => window.client.task("t0").current.progress === 98, null, PATIENCE);
  await brief.page.close();

  step("a token that is about to end from the start is not fetched without end");
  const briefest = await open("#briefest");
  await briefest.page.waitForFunction(() => window.tokens.length >= 3, null, PATIENCE);
  // Time itself is what is measured here: what is fetched too often is fetched more often in more of it.
  await pause(5_000);
  const asked2s = await briefest.page.evaluate(() => ({ tokens: window.tokens, elapsed: performance.now() }));
  assert.ok(asked2s.tokens.length <= 10 + asked2s.elapsed / RECONNECT_MIN_MS, `${asked2s.tokens.length} in ${asked2s.elapsed} ms`);
  assert.equal(await briefest.page.evaluate(() => window.mostOpen), 1);
  await briefest.page.close();

  step("three tabs share one connection, and the next one carries on when the first is closed");
  const tabs = [];
  for (let count = 0; count < 3; count += 1) tabs.push(await open("?share"));
  const openSockets = () => tabs.flatMap(({ seen: { sockets } }) => sockets).filter((socket) => !socket.isClosed()).length;
  await until(() => openSockets() === 1);
  await tabs[0].page.close();
  const rest = tabs.slice(1);
  await publish([{ task_id: "shared", user_id: "u1", progress: 33 }]);
  for (const { page: tab } of rest) {
    await tab.waitForFunction(() => window.client.task("shared").current?.progress === 33 && window.client.connection.current.state === "live", null, PATIENCE);
  }
  tabs.shift();
  await until(() => openSockets() === 1);

  step("a tab that stands still loses the connection to another, and follows when it moves again");
  const leads = tabs.findIndex(({ seen: { sockets } }) => sockets.some((socket) => !socket.isClosed()));
  const [{ page: still }, { page: other, seen: { sockets: others } }] = [tabs[leads], tabs[1 - leads]];
  const debug = await context.newCDPSession(still);
  await debug.send("Debugger.enable");
  await debug.send("Debugger.pause");
  await other.evaluate(() => window.client.retry());
  await until(() => others.some((socket) => !socket.isClosed()));
  await publish([{ task_id: "shared", user_id: "u1", progress: 66 }]);
  const showsShared = (tab) => tab.waitForFunction(() => window.client.task("shared").current?.progress === 66 && window.client.connection.current.state === "live", null, PATIENCE);
  await showsShared(other);
  await debug.send("Debugger.disable");
  await showsShared(still);
  await until(() => openSockets() === 1 && others.some((socket) => !socket.isClosed()));
  assert.deepEqual(tabs.flatMap(({ seen: { complaints } }) => complaints), []);
  step("where no WebSocket opens server-sent events take over, and come back after a restart");
  net.refuseWebSockets();
  for (const { page: tab } of tabs) await tab.close();
  const { page: tab, seen: { complaints } } = await open();
  const shows = (progress) => tab.waitForFunction((progress) => {
    const { state, transport } = window.client.connection.current;
    return state === "live" && transport === "sse" && window.client.task("streamed").current?.progress === progress;
  }, progress, PATIENCE);
  await publish([{ task_id: "streamed", user_id: "u1", progress: 1 }]);
  await shows(1);
  await stop(service);
  service = await start(["serve"], servicePort, operationsPort, settings);
  await publish([{ task_id: "streamed", user_id: "u1", progress: 2 }]);
  await shows(2);
  net.cut();
  await publish([{ task_id: "streamed", user_id: "u1", progress: 3 }]);
  await shows(3);
  assert.deepEqual([await tab.evaluate(() => window.tokens), await tab.evaluate(() => window.back), complaints], [["initial"], [], []]);
  await context.close();
  await kill(service);
  await kill(redis);
  net.close();
  server.close();
}

mkdirSync(screenshots, { recursive: true });
await judge("the client in a browser", walk);
