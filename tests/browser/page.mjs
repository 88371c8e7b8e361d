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

import { spawn } from "node:child_process";
import { mkdirSync } from "node:fs";
import { createRequire } from "node:module";
import { createServer } from "node:net";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../..", import.meta.url));
const binary = process.argv[2] ?? join(root, "target/debug/taskcast");
const modules = process.env.TESTS_NODE_MODULES ?? join(root, "target/tests/node_modules");
const screenshots = join(root, "target/screenshots");
const { chromium } = createRequire(join(modules, "taskcast.js"))("playwright-core");

const BARS_MIN = 5;
const START_MS = 20_000;
const ANSWER_MS = 5_000; // a service that accepts and then says nothing is not ready
const LIVE_MS = 30_000; // longer than the longest pause between two attempts to reconnect

async function freePorts(count) {
  const servers = await Promise.all(
    Array.from({ length: count }, () => new Promise((resolve, reject) => {
      const server = createServer().on("error", reject).listen(0, "127.0.0.1", () => resolve(server));
    })),
  );
  const ports = servers.map((server) => server.address().port);
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}

// Every child is ended however this script ends.
const children = new Set();
process.on("exit", () => children.forEach((child) => child.kill("SIGKILL")));
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => process.exit(1));

async function startDemo(port, operationsPort) {
  // Settings that happen to be in the environment are not the test's.
  const environment = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("TASKCAST_")));
  const child = spawn(
    binary,
    ["demo", "--listen", `127.0.0.1:${port}`, "--operations-listen", `127.0.0.1:${operationsPort}`],
    { env: environment, stdio: ["ignore", "pipe", "pipe"] },
  );
  children.add(child);
  let said = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (text) => (said = (said + text).slice(-4000)));
  const ended = new Promise((resolve) => child.once("close", (code, signal) => resolve(signal ?? code)));
  child.on("error", (error) => (said += error.message));
  const deadline = Date.now() + START_MS;
  while (Date.now() < deadline && child.exitCode === null && child.pid !== undefined) {
    const asked = fetch(`http://127.0.0.1:${operationsPort}/readyz`, { signal: AbortSignal.timeout(ANSWER_MS) });
    const ready = await asked.then((answer) => answer.ok, () => false);
    if (ready) return { child, ended };
    await pause(50);
  }
  throw new Error(`the demo did not become ready; it said:\n${said}`);
}

async function kill({ child, ended }) {
  child.kill("SIGKILL");
  await ended;
  children.delete(child);
}

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

  step("the plain address shows a live page");
  await page.goto(`http://127.0.0.1:${port}/`);
  await page.waitForSelector(LIVE, { state: "attached", timeout: LIVE_MS });

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

async function main() {
  mkdirSync(screenshots, { recursive: true });
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: [
      "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--no-proxy-server",
      "--disable-background-networking", "--disable-component-update", "--disable-sync",
    ],
  });
  let doing = "start";
  try {
    await walk(browser, (what) => console.log(`browser: ${(doing = what)}`));
  } catch (error) {
    for (const page of browser.contexts().flatMap((context) => context.pages())) {
      await page.screenshot({ path: join(screenshots, "failed.png") }).catch(() => {});
    }
    throw new Error(`${doing}: ${error.message}`);
  } finally {
    await browser.close();
  }
}

main().then(
  () => {
    console.log("PASS the page in a browser");
    process.exit(0);
  },
  (error) => {
    console.log(`FAIL the page in a browser: ${error.message.replace(/\x1b\[\d+m/g, "")}`);
    process.exit(1);
  },
);
