// The page at `/` in a real browser: opens the demo, sees bars move over one WebSocket, kills the service, sees that the
// page says so, starts the service again on the same port and sees the page come back by itself.
//
// Usage: node tests/browser/page.mjs [BINARY]            default: target/debug/taskcast
// Environment: TESTS_NODE_MODULES (where npm put playwright-core), CHROMIUM (default: /usr/bin/chromium).
// Screenshots go to target/screenshots/. Prints PASS or FAIL and why; exit 0 or 1.
//
// What it asks of the page: one element with data-connection-state ("live" while connected and up to date); for each
// task an element with data-task-id and data-status, and in it role="progressbar", which has aria-valuenow while the
// progress is known.

import { mkdirSync } from "node:fs";
import { join } from "node:path";

import { freePorts, judge, kill, screenshots, start } from "./support.mjs";

const BARS_MIN = 5;
/** What may come over the line, heads included, before the page is live. */
const TRANSFER_MAX_BYTES = 100_000;
const LIVE_MS = 30_000; // longer than the longest pause between two attempts to reconnect

// The demo has its own settings, and takes none from the environment.
const startDemo = (port, operationsPort) =>
  start(["demo", "--listen", `127.0.0.1:${port}`, "--operations-listen", `127.0.0.1:${operationsPort}`], port, operationsPort);

function progressOf(page) {
  return page.$$eval("[data-task-id] [role=progressbar]", (bars) =>
    bars.map((bar) => `${bar.closest("[data-task-id]").dataset.taskId} ${bar.getAttribute("aria-valuenow")}`));
}

const LIVE = '[data-connection-state="live"]';
const NOT_LIVE = '[data-connection-state]:not([data-connection-state="live"])';

async function walk(browser, step) {
  const [port, operationsPort] = await freePorts(2);
  let demo = await startDemo(port, operationsPort);
  const page = await browser.newPage({ viewport: { width: 1000, height: 800 } });
  const complaints = [];
  const sockets = [];
  page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
  page.on("pageerror", (error) => complaints.push(error.message));
  page.on("websocket", (socket) => sockets.push(socket));

  step("the plain address shows a live page, for less than 100 KB over the line");
  const debug = await page.context().newCDPSession(page);
  await debug.send("Network.enable");
  await debug.send("Network.setCacheDisabled", { cacheDisabled: true });
  const loaded = [];
  debug.on("Network.loadingFinished", ({ encodedDataLength }) => loaded.push(encodedDataLength));
  await page.goto(`http://127.0.0.1:${port}/`, { waitUntil: "networkidle" });
  await page.waitForSelector(LIVE, { state: "attached", timeout: LIVE_MS });
  const painted = await page.evaluate(() => performance.getEntriesByName("first-contentful-paint").length);
  const bytes = loaded.reduce((sum, length) => sum + length, 0);
  // All files that the page names; until it is live, which is later than its first paint.
  if (painted !== 1 || loaded.length < 20 || bytes >= TRANSFER_MAX_BYTES) throw new Error(`${bytes} bytes in ${loaded.length} files, ${painted} first paints`);
  console.log(`browser: ${loaded.length} files, ${bytes} bytes over the line`);
  await debug.detach();

  step("a page of which a part did not come loads itself anew, and says so meanwhile");
  for (const part of ["page/trail.js", "list.css", "client.js"]) {
    const other = await browser.newPage();
    let failed = 0;
    const lose = (route) => (failed++ < 2 ? route.abort("connectionreset") : route.continue());
    await other.route(`**/${part}`, lose);
    await other.goto(`http://127.0.0.1:${port}/`);
    if (part.endsWith(".js")) await other.waitForFunction(() => /did not load/.test(document.querySelector("#connection-text").textContent), null, { timeout: LIVE_MS });
    await other.waitForSelector(LIVE, { state: "attached", timeout: LIVE_MS });
    await other.waitForFunction(() => sessionStorage.getItem("taskcast.loads") === null, null, { timeout: LIVE_MS });
    if (failed < 3) throw new Error(`${part} was asked for ${failed} times`);
    await other.close();
  }

  step("a page that works is left alone when a stylesheet never comes");
  const bare = await browser.newPage();
  let asked = 0;
  await bare.addInitScript(() => sessionStorage.setItem("taskcast.loads", "5"));
  await bare.route("**/list.css", (route) => (asked += 1, route.abort("connectionreset")));
  await bare.goto(`http://127.0.0.1:${port}/`);
  await bare.waitForSelector(LIVE, { state: "attached", timeout: LIVE_MS });
  // Each load that is to come is counted before it does: the wait for this one is a minute.
  const counted = await bare.evaluate(() => sessionStorage.getItem("taskcast.loads"));
  if (counted !== "5" || asked !== 1) throw new Error(`list.css was asked for ${asked} times, and ${counted} loads are counted`);
  await bare.close();

  step(`at least ${BARS_MIN} bars are there, each task with a status`);
  await page.waitForFunction(
    (count) => document.querySelectorAll("[data-task-id] [role=progressbar]").length >= count, BARS_MIN, { timeout: LIVE_MS });
  const without = await page.$$eval("[data-task-id]", (tasks) => tasks.filter((task) => !task.dataset.status).length);
  if (without > 0) throw new Error(`${without} tasks have no data-status`);

  step("a bar moves");
  const before = await progressOf(page);
  await page.waitForFunction(
    (known) => [...document.querySelectorAll("[data-task-id] [role=progressbar]")].some((bar) => {
      const now = bar.getAttribute("aria-valuenow");
      const task = bar.closest("[data-task-id]").dataset.taskId;
      return now !== null && known.some((line) => line.startsWith(`${task} `) && line !== `${task} ${now}`);
    }), before, { timeout: LIVE_MS });
  await page.screenshot({ path: join(screenshots, "live.png") });

  step("one WebSocket is open, and nobody complained");
  const open = sockets.filter((socket) => !socket.isClosed());
  if (open.length !== 1) throw new Error(`${open.length} WebSockets are open, of ${sockets.length}`);
  if (complaints.length > 0) throw new Error(`the console has errors: ${complaints.join(" | ")}`);

  step("the page notices that the service was killed");
  await kill(demo);
  await page.waitForSelector(NOT_LIVE, { state: "attached", timeout: LIVE_MS });
  await page.screenshot({ path: join(screenshots, "killed.png") });

  step("the page is live again after a restart, by itself");
  demo = await startDemo(port, operationsPort);
  await page.waitForSelector(LIVE, { state: "attached", timeout: LIVE_MS });
  const after = await progressOf(page);
  await page.waitForFunction(
    (count) => document.querySelectorAll("[data-task-id] [role=progressbar]").length >= count, BARS_MIN, { timeout: LIVE_MS });
  await page.screenshot({ path: join(screenshots, "restarted.png") });

  step(`again one WebSocket is open (${after.length} bars at once)`);
  const reopened = sockets.filter((socket) => !socket.isClosed());
  if (reopened.length !== 1) throw new Error(`${reopened.length} WebSockets are open, of ${sockets.length}`);
  await kill(demo);
}

mkdirSync(screenshots, { recursive: true });
await judge("the page in a browser", walk);
