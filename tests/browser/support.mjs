// What the browser tests share: a service on free ports that never outlives the test, and a Chromium.

import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { createRequire } from "node:module";
import { createServer } from "node:net";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { fileURLToPath } from "node:url";

export const root = fileURLToPath(new URL("../..", import.meta.url));
export const modules = process.env.TESTS_NODE_MODULES ?? join(root, "target/tests/node_modules");
const { chromium } = createRequire(join(modules, "taskcast.js"))("playwright-core");

export const binary = process.argv[2] ?? join(root, "target/debug/taskcast");
export const screenshots = join(root, "target/screenshots");

/** What axe-core leaves out unless asked, and Lighthouse asks for: what is touched has room. */
export const AXE_OPTIONS = { rules: { "target-size": { enabled: true } } };

const START_MS = 20_000;

/** Below those that the system gives to whoever connects somewhere, as a browser does all the time. */
export async function freePorts(count) {
  const free = new Set();
  while (free.size < count) {
    const port = 10_000 + Math.floor(Math.random() * 22_000);
    if (await isFree(port)) free.add(port);
  }
  return [...free];
}

async function isFree(port) {
  const server = createServer().listen(port, "127.0.0.1");
  const listens = await once(server, "listening").then(() => true, () => false);
  if (listens) await new Promise((resolve) => server.close(resolve));
  return listens;
}

// Every child is ended however this script ends.
const children = new Set();
process.on("exit", () => children.forEach((child) => child.kill("SIGKILL")));
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => process.exit(1));

// Settings that happen to be in the environment are not the test's.
const cleaned = (settings) => ({
  ...Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("TASKCAST_"))),
  ...settings,
});

/** Starts `taskcast …` and waits until its health check says that it is ready. */
export async function start(command, port, operationsPort, settings = {}) {
  const addresses = { TASKCAST_LISTEN: `127.0.0.1:${port}`, TASKCAST_OPERATIONS_LISTEN: `127.0.0.1:${operationsPort}` };
  const env = cleaned({ ...addresses, ...settings });
  const child = spawn(binary, command, { env, stdio: ["ignore", "pipe", "pipe"] });
  children.add(child);
  let said = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (text) => (said = (said + text).slice(-4000)));
  const ended = new Promise((resolve) => child.once("close", (code, signal) => resolve(signal ?? code)));
  child.on("error", (error) => (said += error.message));
  const deadline = Date.now() + START_MS;
  while (Date.now() < deadline && child.exitCode === null && child.pid !== undefined) {
    const asked = spawn(binary, ["healthcheck"], { env, stdio: "ignore" });
    if ((await new Promise((resolve) => asked.once("close", resolve))) === 0) return { child, ended };
    await pause(50);
  }
  throw new Error(`the service did not become ready; it said:\n${said}`);
}

export async function kill({ child, ended }) {
  child.kill("SIGKILL");
  await ended;
  children.delete(child);
}

/** As an operator does: the service ends its connections in turns. */
export async function stop({ child, ended }) {
  child.kill("SIGTERM");
  await ended;
  children.delete(child);
}

/** A Redis on a port of its own; with a folder it keeps there what it confirmed, else everything in memory. */
export async function startRedis(port, folder) {
  const keeping = folder === undefined ? ["--appendonly", "no"] : ["--dir", folder, "--appendonly", "yes", "--appendfsync", "no"];
  const child = spawn("redis-server", ["--port", `${port}`, "--bind", "127.0.0.1", "--save", "", ...keeping], { stdio: ["ignore", "pipe", "ignore"] });
  children.add(child);
  const ended = new Promise((resolve) => child.once("close", (code, signal) => resolve(signal ?? code)));
  await new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", () => reject(new Error("redis-server ended")));
    let said = "";
    child.stdout.on("data", (text) => { said += text; if (said.includes("Ready to accept connections")) resolve(); });
  });
  return { child, ended };
}

/** Starts a program that lives until it is killed, or this script ends; `said` tells what it printed. */
export function startProgram(program, words, options) {
  const child = spawn(program, words, { stdio: ["ignore", "pipe", "pipe"], ...options });
  children.add(child);
  let said = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (text) => (said = (said + text).slice(-20_000)));
  child.on("error", (error) => (said += error.message));
  return { child, said: () => said, ended: new Promise((resolve) => child.once("close", (code, signal) => resolve(signal ?? code))) };
}

/** What a command prints, without the end of its line. */
export function run(command, settings, program = binary) {
  return execFileSync(program, command, { env: cleaned(settings), stdio: ["ignore", "pipe", "ignore"] }).toString().trim();
}

/** Runs `walk(browser, step)` in a Chromium with these options besides, says PASS or FAIL and why, and ends the process. */
export async function judge(what, walk, options = {}) {
  let browser = null;
  let doing = "start";
  try {
    browser = await chromium.launch({
      executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
      args: [
        "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--no-proxy-server",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", ...(options.args ?? []),
      ],
      ignoreDefaultArgs: options.ignoreDefaultArgs,
    });
    await walk(browser, (step) => console.log(`browser: ${(doing = step)}`));
    console.log(`PASS ${what}`);
  } catch (error) {
    for (const page of browser?.contexts().flatMap((context) => context.pages()) ?? []) {
      await page.screenshot({ path: join(screenshots, "failed.png") }).catch(() => {});
    }
    console.log(`FAIL ${what}: ${doing}: ${error.message.replace(/\x1b\[\d+m/g, "")}`);
    process.exitCode = 1;
  } finally {
    await browser?.close();
  }
  process.exit();
}
