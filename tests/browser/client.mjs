// The client in a real browser, against a real service: loaded by a page of another site, which drops and restarts it many
// times; what the page shows at the end is what was published, no bar ever went back, and there never were two sockets.
//
// Usage and environment: as page.mjs, and TESTS_CLIENT_DROPS (12). Prints PASS or FAIL and why; exit 0 or 1.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { mkdirSync } from "node:fs";

import { freePorts, judge, kill, run, screenshots, start } from "./support.mjs";

const SECRET = "a-secret-of-the-tests-32-bytes-long-or-more";
const DROPS = Number(process.env.TESTS_CLIENT_DROPS ?? 12);
const PATIENCE = { timeout: 30_000 };
const RECONNECT_MIN_MS = 200;

/** A page of another site, with nothing of its own but what the service gives it. */
const site = (port) => `<!doctype html><meta charset="utf-8"><title>another site</title>
<task-progress task-id="t0"></task-progress>
<script type="module">
  import { TaskcastClient, TaskProgressElement } from "http://127.0.0.1:${port}/client.js";
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  window.client = new TaskcastClient({ getToken: () => token, shareAcrossTabs: location.search === "?share", transports: location.search === "?sse" ? ["sse"] : undefined });
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
</script>`;

const isLive = () => window.client?.connection.current.state === "live";

async function walk(browser, step) {
  const [port, operationsPort] = await freePorts(2);
  const server = createServer((_, answer) => answer.setHeader("content-type", "text/html").end(site(port)));
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const origin = `http://localhost:${server.address().port}`;
  const settings = {
    TASKCAST_AUTH_SECRET: SECRET, TASKCAST_ORIGINS: origin, TASKCAST_SESSIONS_RECONNECT_MIN_MS: `${RECONNECT_MIN_MS}`,
    TASKCAST_SESSIONS_RECONNECT_MAX_MS: "1000",
  };
  let service = await start(["serve"], port, operationsPort, settings);
  const worker = run(["token", "--user", "worker", "--publish"], settings);
  const token = run(["token", "--user", "u1"], settings);
  const publish = async (events) => {
    const answer = await fetch(`http://127.0.0.1:${port}/api/v1/events`, {
      method: "POST", headers: { authorization: `Bearer ${worker}`, "content-type": "application/json" }, body: JSON.stringify(events),
    });
    assert.equal(answer.status, 202, await answer.text());
  };
  const context = await browser.newContext();
  const open = async (search = "") => {
    const page = await context.newPage();
    const seen = { sockets: [], complaints: [] };
    page.on("websocket", (socket) => seen.sockets.push(socket));
    page.on("pageerror", (error) => seen.complaints.push(error.message));
    await page.goto(`${origin}/${search}#token=${token}`);
    await page.waitForFunction(isLive, null, PATIENCE);
    return { page, seen };
  };

  step("a page of another site loads the client and is live");
  await publish([{ task_id: "t0", user_id: "u1", progress: 10, title: "Export" }]);
  const { page, seen } = await open();
  await page.waitForFunction(() => document.querySelector("task-progress").shadowRoot.querySelector("[role=progressbar]").getAttribute("aria-valuenow") === "10", null, PATIENCE);

  step(`${DROPS} drops: the network goes, the service is killed`);
  let progress = 10;
  for (let turn = 1; turn <= DROPS; turn += 1) {
    progress += 1;
    const isKilled = turn % 3 === 0;
    if (isKilled) {
      await kill(service);
      await page.waitForFunction(() => window.client.connection.current.state !== "live", null, PATIENCE);
      service = await start(["serve"], port, operationsPort, settings);
    } else {
      await context.setOffline(true);
      // The browser says offline; an open WebSocket may well go on.
      await context.setOffline(false);
    }
    // A log in memory began anew when the service did.
    await publish([{ task_id: "t0", user_id: "u1", progress, title: "Export" }, { task_id: `t${turn}`, user_id: "u1", progress: 50 }]);
    await page.waitForFunction(({ progress, turn }) =>
      window.client.connection.current.state === "live" && window.list.current.some((task) => task.task_id === "t0" && task.progress === progress) &&
      window.list.current.some((task) => task.task_id === `t${turn}`), { progress, turn }, PATIENCE);
    const sockets = seen.sockets.filter((socket) => !socket.isClosed());
    assert.equal(sockets.length, 1, `${sockets.length} sockets after drop ${turn}`);
  }
  const asked = await (await fetch(`http://127.0.0.1:${port}/api/v1/tasks`, { headers: { authorization: `Bearer ${token}` } })).json();
  const shown = await page.evaluate(() => window.list.current.map(({ task_id: id, progress }) => `${id} ${progress}`).sort());
  assert.deepEqual(shown, asked.tasks.map(({ task_id: id, progress }) => `${id} ${progress}`).sort());
  assert.deepEqual(await page.evaluate(() => window.back), []);
  assert.deepEqual(seen.complaints, []);

  step("a task's end is awaited, whenever it was asked for");
  const ends = page.evaluate(() => Promise.all(["before", "later", "fails"].map((id) => window.client.task(id).done().then(({ status }) => status, ({ code }) => code))));
  await publish(["before", "later", "fails"].map((task_id) => ({ task_id, user_id: "u1", status: task_id === "fails" ? "failed" : "succeeded" })));
  assert.deepEqual(await ends, ["succeeded", "succeeded", "failed"]);

  step("a page that was put aside comes back as it was");
  await page.goto("about:blank");
  assert.equal(seen.sockets.filter((socket) => !socket.isClosed()).length, 0);
  await page.goBack();
  await page.waitForFunction(isLive, null, PATIENCE);

  step("three tabs share one connection, and the next one carries on when the first is closed");
  const tabs = [];
  for (let count = 0; count < 3; count += 1) tabs.push(await open("?share"));
  const openSockets = () => tabs.flatMap(({ seen: { sockets } }) => sockets).filter((socket) => !socket.isClosed()).length;
  assert.equal(openSockets(), 1);
  await tabs[0].page.close();
  const rest = tabs.slice(1);
  await publish([{ task_id: "shared", user_id: "u1", progress: 33 }]);
  for (const { page: tab } of rest) {
    await tab.waitForFunction(() => window.client.task("shared").current?.progress === 33 && window.client.connection.current.state === "live", null, PATIENCE);
  }
  tabs.shift();
  assert.equal(openSockets(), 1);
  assert.deepEqual(tabs.flatMap(({ seen: { complaints } }) => complaints), []);
  await kill(service);
  await context.close();
  server.close();
}

mkdirSync(screenshots, { recursive: true });
await judge("the client in a browser", walk);
