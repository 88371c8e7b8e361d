// The client in a real browser, against a real service with a real Redis: loaded by a page of another site, which loses its
// network, its service and its service's broker many times. At the end the page shows what was published and was told of every
// end, no bar ever went back, there never were two sockets, none came sooner than the bounds, and nothing stands in the console.
//
// Usage and environment: as page.mjs, and TESTS_CLIENT_DROPS (12). Prints PASS or FAIL and why; exit 0 or 1.

import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { setTimeout as pause } from "node:timers/promises";

import { judge, kill, screenshots, stop } from "./support.mjs";
import { PATIENCE, jwt, newWorld, until } from "./world.mjs";

const DROPS = Number(process.env.TESTS_CLIENT_DROPS ?? 12);
const RECONNECT_MIN_MS = 200;
/** Timers of a browser and its clock are of different make. */
const CLOCKS_DIFFER_MS = 5;
/** More than one page holds. */
const MEMBERS = 1_500;
const GROUPS = { taskcast: { watch: ["own", "root:many", "root:none"] } };
/** How often the tab with the connection is closed, while so many tasks move so often. */
const HAND_OVERS = 6;
const LOADED = 200;
const WRITE_INTERVAL_MS = 100;
const ENDS = 1_000;
const ENDS_PER_DROP = 100;

/** A page of another site, with nothing of its own but what the service gives it. */
const pageOf = (port) => `<!doctype html><meta charset="utf-8"><title>another site</title>
<task-progress task-id="t0"></task-progress>
<script type="module">
  import { TaskcastClient, TaskProgressElement } from "http://127.0.0.1:${port}/client.js";
  window.tokens = [];
  const getToken = async ({ reason }) => {
    tokens.push(reason);
    return (await fetch("/token" + location.hash.slice(1))).text();
  };
  window.client = new TaskcastClient({ getToken, shareAcrossTabs: location.search === "?share" });
  TaskProgressElement.client = client;
  window.back = [];
  const before = new Map();
  window.list = client.tasks();
  list.on("update", (tasks) => {
    for (const { task_id: id, current = 0, progress = current } of tasks) {
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

const isLive = () => window.client?.connection.current.state === "live";

/** How a page loses what it is told by; each ends with what was wrong mended, and has `tell` called while it is wrong, if it can be. */
const FAULTS = {
  async cut({ net }, _page, tell) {
    net.cut();
    await tell();
  },
  async silence({ net }, page, tell) {
    net.silence();
    await tell();
    await isIn(page, ["reconnecting", "connecting"]);
    net.heal();
  },
  async "killed service"(world, page, tell) {
    await kill(world.service);
    await tell();
    await isIn(page, ["reconnecting", "connecting"]);
    await world.startService();
  },
  async "stopped service"(world, page, tell) {
    await stop(world.service);
    await tell();
    await isIn(page, ["reconnecting", "connecting"]);
    await world.startService();
  },
  async "killed broker"(world, page, tell) {
    await world.killBroker();
    await isIn(page, ["degraded"]);
    await world.startBroker();
    await tell();
  },
  async offline({ net }, page, tell) {
    await page.context().setOffline(true);
    net.cut();
    await tell();
    await isIn(page, ["offline"]);
    await page.context().setOffline(false);
  },
};

const isIn = (page, states) =>
  page.waitForFunction((states) => states.includes(window.client.connection.current.state), states, { ...PATIENCE, polling: 20 });

async function walk(browser, step) {
  let token;
  const world = await newWorld({
    site: (path, { port }) => (path === "/token" ? token : path === "/tokengroups" ? jwt("u1", 3600, GROUPS) : path.length > 1 && !path.startsWith("/?") ? undefined : pageOf(port)),
  });
  token = world.token("--user", "u1");
  const { net, publish } = world;
  const context = await browser.newContext();
  const open = async (search = "") => {
    const opened = await world.open(context, `/${search}`);
    await opened.page.waitForFunction(isLive, null, PATIENCE);
    return opened;
  };

  step("a page of another site loads the client and is live");
  await publish([{ task_id: "t0", user_id: "u1", progress: 10, title: "Export" }]);
  const { page, seen } = await open();
  await page.waitForFunction(() => document.querySelector("task-progress").shadowRoot.querySelector("[role=progressbar]").getAttribute("aria-valuenow") === "10", null, PATIENCE);

  const faults = Object.entries(FAULTS);
  step(`${DROPS} drops: ${Object.keys(FAULTS).join(", ")}`);
  const published = new Map();
  for (let turn = 1; turn <= DROPS; turn += 1) {
    // What was begun in the drop before ends in this one.
    const events = [
      { task_id: "t0", user_id: "u1", progress: 10 + (80 * turn) / DROPS }, { task_id: `t${turn}`, user_id: "u1", progress: 50 },
      ...(turn > 1 ? [{ task_id: `t${turn - 1}`, user_id: "u1", status: "succeeded", progress: 100 }] : []),
    ];
    for (const { task_id: id, status = "running", progress } of events) published.set(id, [status, progress]);
    const [name, fault] = faults[turn % faults.length];
    await fault(world, page, () => world.append(events));
    const shows = page.waitForFunction((published) => {
      const shown = new Map(window.list.current.map((task) => [task.task_id, task]));
      return window.client.connection.current.state === "live" &&
        published.every(([id, [status, progress]]) => shown.get(id)?.status === status && shown.get(id).progress === progress);
    }, [...published], PATIENCE);
    await shows.catch((error) => { throw new Error(`after drop ${turn} (${name}): ${error.message}`); });
    assert.equal(await page.evaluate(() => window.mostOpen), 1, `after drop ${turn} (${name})`);
  }
  const bare = ({ type, cursor, timestamp, ...task }) => task;
  const byId = (a, b) => (a.task_id < b.task_id ? -1 : 1);
  const shown = (await page.evaluate(() => window.list.current)).map(bare).sort(byId);
  assert.deepEqual(shown, (await world.tasks(token)).map(bare).sort(byId));
  assert.equal(shown.length, published.size);
  const madeAt = await page.evaluate(() => window.madeAt);
  const soonest = Math.min(...madeAt.slice(1).map((at, index) => at - madeAt[index]));
  assert.ok(soonest >= RECONNECT_MIN_MS - CLOCKS_DIFFER_MS, `an attempt came ${soonest} ms after the one before`);
  assert.deepEqual(await page.evaluate(() => [window.tokens, window.back]), [["initial"], []]);
  assert.deepEqual(seen.complaints, []);
  console.log(`browser: ${DROPS} drops: ${madeAt.length} attempts to connect, none sooner than ${Math.round(soonest)} ms after the one before`);

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
      await world.restart();
    } else net.cut();
    await publish(part.map((task_id) => ({ task_id, user_id: "u1", status: outcomeOf(task_id) })));
  }
  assert.deepEqual(await outcomes, ids.map(outcomeOf));
  assert.deepEqual([await page.evaluate(() => window.back), await page.evaluate(() => window.mostOpen), seen.complaints], [[], 1, []]);

  step("a list of a group says that it is whole when it is, and not before");
  const members = Array.from({ length: MEMBERS }, (_, at) => ({ task_id: `member${at}`, user_id: "u2", root_id: "many", progress: 1, message: "x".repeat(2_000) }));
  for (let at = 0; at < MEMBERS; at += 500) await publish(members.slice(at, at + 500));
  const { page: outsider } = await open("#groups");
  const whole = await outsider.evaluate(() => Promise.all(["many", "none"].map((root) => new Promise((resolve) => {
    const list = window.client.tasks({ root });
    const look = () => list.isComplete && resolve(list.current.length);
    list.subscribe(look);
    window.client.connection.subscribe(look);
  }))));
  assert.deepEqual(whole, [MEMBERS, 0]);
  await outsider.close();

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

  step(`the connection changes hands ${HAND_OVERS} times while ${LOADED} tasks move`);
  let writes = true, moved = 0;
  const writing = (async () => {
    for (; writes; moved += 1) {
      await world.append(Array.from({ length: LOADED }, (_, at) => ({ task_id: `loaded${at}`, user_id: "u1", current: moved + 1, total: 1_000_000 })));
      await pause(WRITE_INTERVAL_MS);
    }
  })();
  for (let turn = 0; turn < HAND_OVERS; turn += 1) {
    await until(() => openSockets() === 1);
    const leader = tabs.findIndex(({ seen: { sockets } }) => sockets.some((socket) => !socket.isClosed()));
    const [{ page: left, seen: { complaints } }] = tabs.splice(leader, 1);
    // All of them moved since the last time, so that none is quiet for having heard nothing.
    const enough = moved + 3;
    await Promise.all(tabs.map(({ page: tab }) => tab.waitForFunction((enough) => window.client.task("loaded0").current?.current >= enough, enough, PATIENCE)));
    assert.deepEqual([await left.evaluate(() => window.back), complaints], [[], []]);
    // One that crashes says no goodbye.
    if (turn % 2 === 0) await left.close();
    else {
      const debug = await context.newCDPSession(left);
      // Nobody is left to answer.
      debug.send("Page.crash").catch(() => {});
      await left.waitForEvent("crash", PATIENCE);
    }
    tabs.push(await open("?share"));
  }
  writes = false;
  await writing;
  for (const { page: tab, seen: { complaints } } of tabs) {
    await tab.waitForFunction(([count, moved]) => {
      const shown = window.list.current.filter((task) => task.task_id.startsWith("loaded"));
      return window.client.connection.current.state === "live" && shown.length === count && shown.every(({ current }) => current === moved);
    }, [LOADED, moved], PATIENCE);
    assert.deepEqual([await tab.evaluate(() => window.back), complaints], [[], []]);
  }
  console.log(`browser: ${moved * LOADED} events in ${HAND_OVERS} hand-overs`);

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
  await world.restart(stop);
  await publish([{ task_id: "streamed", user_id: "u1", progress: 2 }]);
  await shows(2);
  net.cut();
  await publish([{ task_id: "streamed", user_id: "u1", progress: 3 }]);
  await shows(3);
  step("a WebSocket takes over again once one opens");
  net.refuseWebSockets(false);
  await tab.waitForFunction(() => window.client.connection.current.transport === "websocket", null, PATIENCE);
  await publish([{ task_id: "streamed", user_id: "u1", progress: 4 }]);
  await tab.waitForFunction(() => window.client.task("streamed").current?.progress === 4, null, PATIENCE);
  assert.equal(await tab.evaluate(() => window.mostOpen), 1);
  assert.deepEqual([await tab.evaluate(() => window.tokens), await tab.evaluate(() => window.back), complaints], [["initial"], [], []]);

  step("where a WebSocket opens and nothing comes of it, server-sent events take over within seconds");
  await tab.close();
  net.swallowWebSockets();
  const { page: behind, seen: { complaints: said } } = await open();
  await behind.waitForFunction(() => window.client.connection.current.transport === "sse" && window.client.task("streamed").current?.progress === 4, null, PATIENCE);
  // Of two patiences of a minute there is no trace: the one WebSocket is still the first.
  assert.deepEqual([await behind.evaluate(() => window.madeAt.length), said], [1, []]);
  await context.close();
  await world.close();
}

mkdirSync(screenshots, { recursive: true });
await judge("the client in a browser", walk);
