// The documentation at `/docs/` in a real browser: rendered without a complaint, complete, with links that lead somewhere,
// readable on a phone and in the dark, and without a request to anybody else.
//
// Usage, environment and result: as page.mjs.

import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

import { AXE_OPTIONS, freePorts, judge, modules, screenshots, start } from "./support.mjs";

const axe = readFileSync(createRequire(join(modules, "taskcast.js")).resolve("axe-core/axe.min.js"), "utf8");
const RENDERED = "[data-rendered]";

async function walk(browser, step) {
  const [port, operationsPort] = await freePorts(2);
  await start(["demo", "--listen", `127.0.0.1:${port}`, "--operations-listen", `127.0.0.1:${operationsPort}`], port, operationsPort);
  const own = `http://127.0.0.1:${port}`;
  const page = await browser.newPage({ viewport: { width: 1200, height: 900 }, colorScheme: "light" });
  const complaints = [];
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && complaints.push(message.text()));
  page.on("pageerror", (error) => complaints.push(error.message));
  page.on("request", (request) => new URL(request.url()).origin === own || complaints.push(`asked ${request.url()}`));

  step("/docs leads to the page, which renders");
  await page.goto(`${own}/docs`);
  await page.waitForSelector(RENDERED, { state: "attached" });
  if (new URL(page.url()).pathname !== "/docs/") throw new Error(`it is at ${page.url()}`);
  await page.screenshot({ path: join(screenshots, "docs-light.png") });

  step("every operation, message, code, problem and metric of the documents is on it");
  const [http, socket] = await Promise.all(["openapi", "asyncapi"].map(async (name) => (await fetch(`${own}/docs/${name}.json`)).json()));
  const wanted = [
    ...Object.values(http.paths).flatMap((methods) => Object.values(methods)).map(({ operationId }) => operationId),
    ...Object.keys(socket.components.messages).map((name) => `message-${name}`),
    ...Object.keys(socket.channels).map((name) => `channel-${name}`),
    ...Object.keys({ ...http.components.schemas, ...socket.components.schemas }).map((name) => `schema-${name}`),
    ...http.paths["/metrics"].get["x-metrics"].values.map(({ name }) => `metric-${name}`),
    ...http["x-problem-types"].map(({ name }) => `problem-${name}`),
  ];
  const missing = await page.evaluate((ids) => ids.filter((id) => document.getElementById(id) === null), wanted);
  if (wanted.length < 150 || missing.length > 0) throw new Error(`of ${wanted.length}, these are missing: ${missing}`);
  const text = await page.textContent("main");
  const codes = ["x-close-codes", "x-error-codes", "x-authentication-error-codes", "x-resume-failures"].flatMap((table) => socket[table].values);
  for (const { code, meaning } of codes) {
    if (!text.includes(String(code)) || !text.includes(meaning.split("`")[0])) throw new Error(`${code} is not explained`);
  }
  if (/undefined|\[object|NaN/.test(text)) throw new Error(`something was not rendered: ${/.{40}(undefined|\[object|NaN).{40}/s.exec(text)?.[0]}`);

  step("every id is unique and every link leads somewhere");
  const loose = await page.evaluate(() => {
    const ids = [...document.querySelectorAll("[id]")].map(({ id }) => id);
    const twice = ids.filter((id, index) => ids.indexOf(id) !== index);
    const links = [...document.querySelectorAll('a[href^="#"]')].map((link) => decodeURIComponent(link.hash.slice(1)));
    return { twice, dead: links.filter((id) => document.getElementById(id) === null), links: links.length };
  });
  if (loose.twice.length > 0 || loose.dead.length > 0 || loose.links < 100) throw new Error(JSON.stringify(loose));

  step("a link into it leads there on opening");
  await page.goto("about:blank");
  await page.goto(`${own}/docs/#message-task_progress`);
  await page.waitForSelector(RENDERED, { state: "attached" });
  await page.waitForFunction(() => {
    const { top } = document.getElementById("message-task_progress").getBoundingClientRect();
    return top >= 0 && top < innerHeight / 2 && document.querySelector("article:target")?.id === "message-task_progress";
  }, null, { timeout: 30_000 });

  step("nothing keeps anybody out (axe-core), in light and in the dark");
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme });
    await page.evaluate(`${axe}; undefined`);
    const { violations } = await page.evaluate((options) => axe.run(options), AXE_OPTIONS);
    const told = violations.map(({ id, nodes }) => `${id}: ${nodes.length}, first ${nodes[0].html.slice(0, 200)}`);
    if (told.length > 0) throw new Error(`${colorScheme}: ${told.join(" | ")}`);
  }
  await page.screenshot({ path: join(screenshots, "docs-dark.png") });

  step("on a phone nothing has to be scrolled sideways");
  await page.setViewportSize({ width: 360, height: 740 });
  await page.reload();
  await page.waitForSelector(RENDERED, { state: "attached" });
  const wide = await page.evaluate(() => document.documentElement.scrollWidth);
  if (wide > 360) throw new Error(`it is ${wide} pixels wide`);
  await page.screenshot({ path: join(screenshots, "docs-phone.png") });

  if (complaints.length > 0) throw new Error(`complaints: ${complaints.join(" | ")}`);
}

mkdirSync(screenshots, { recursive: true });
await judge("the documentation", walk);
