// What the page does with what strangers wrote, and with the token: hostile events are shown as the text that they are,
// nothing of them runs, the token stands in no address, and no other site shows the page or gets anything out of it.
//
// Usage and environment: as page.mjs. Prints PASS or FAIL and why; exit 0 or 1.

import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { freePorts, judge, kill, run, screenshots, start } from "./support.mjs";

const SECRET = { TASKCAST_AUTH_SECRET: "a-secret-of-the-tests-32-bytes-long-or-more" };
const LIVE = '[data-connection-state="live"]';
const PATIENCE = { timeout: 20_000 };

/** Each would run if it were put anywhere as markup, as an attribute or as an address. */
const PAYLOADS = [
  '<img src=x onerror="window.ran=1">',
  "<script>window.ran=2</script>",
  '"><svg/onload=window.ran=3>',
  "'-window.ran++-'",
  "javascript:window.ran=4",
  "</title><script>window.ran=5</script>",
  "${window.ran=6}{{constructor.constructor('window.ran=7')()}}",
  "<style>*{display:none}</style><base href=//evil.test><meta http-equiv=refresh content=0>",
  "\u202egnp.exe\u2066\u200b",
  "&lt;b&gt;&#60;i&#62;",
];

/** A task with the payload in every field that takes text. */
const hostile = (payload, index) => ({
  task_id: `${index}${payload}`, user_id: "u1", parent_id: `group${payload}`, name: payload, title: payload,
  step: payload, message: payload, unit: payload, worker: payload, current: index, total: 100, tags: [payload],
  metadata: { [payload]: payload }, result: { [payload]: payload },
});

async function publish(port, token, events) {
  const answer = await fetch(`http://127.0.0.1:${port}/api/v1/events`, {
    method: "POST", headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
    body: JSON.stringify(events),
  });
  assert.equal(answer.status, 202, await answer.text());
}

/** A page that remembers whatever must not happen on it. */
async function watched(context) {
  const page = await context.newPage();
  const seen = { complaints: [], requests: [] };
  page.on("dialog", (dialog) => { seen.complaints.push(`a dialog: ${dialog.message()}`); dialog.dismiss(); });
  page.on("pageerror", (error) => seen.complaints.push(error.message));
  page.on("console", (message) => message.type() === "error" && seen.complaints.push(message.text()));
  page.on("request", (request) => seen.requests.push(`${request.url()} ${JSON.stringify(request.headers().referer ?? "")}`));
  page.on("websocket", (socket) => seen.requests.push(socket.url()));
  await page.addInitScript(() => {
    window.violations = [];
    addEventListener("securitypolicyviolation", (event) => window.violations.push(event.effectiveDirective));
  });
  return { page, seen };
}

async function fields(browser, step, port) {
  const worker = run(["token", "--user", "worker", "--publish"], SECRET);
  const token = run(["token", "--user", "u1"], SECRET);
  const context = await browser.newContext({ viewport: { width: 1100, height: 4_000 } });
  const { page, seen } = await watched(context);

  step("hostile events are text, in a snapshot and live");
  await publish(port, worker, PAYLOADS.map(hostile));
  await page.goto(`http://127.0.0.1:${port}/?groups=open#token=${token}`);
  await page.waitForSelector(LIVE, { state: "attached", ...PATIENCE });
  const live = PAYLOADS.map((payload, index) => hostile(payload, index + 100));
  await publish(port, worker, live);
  // As ends, where the error is shown.
  await publish(port, worker, live.map((event) => ({ ...event, status: "failed", error: { code: event.title, message: event.title } })));
  await page.waitForFunction(
    (count) => document.querySelectorAll('[data-kind="child"][data-status="failed"]').length === count, PAYLOADS.length, PATIENCE);
  const shown = await page.evaluate(() => [...document.querySelectorAll('[data-kind="child"]')].map((row) => ({
    id: row.dataset.taskId,
    title: row.querySelector(".task-title").textContent,
    message: row.querySelector(".message").textContent,
    label: row.querySelector("[role=progressbar]").getAttribute("aria-label"),
  })));
  assert.equal(shown.length, 2 * PAYLOADS.length);
  for (const [index, payload] of PAYLOADS.entries()) {
    const running = shown.find((row) => row.id === `${index}${payload}`);
    assert.deepEqual(running, { id: `${index}${payload}`, title: payload, message: `${payload} · ${payload}`, label: payload });
    const failed = shown.find((row) => row.id === `${index + 100}${payload}`);
    assert.equal(failed.message, payload);
  }
  const elements = await page.evaluate(() => [...new Set([...document.querySelectorAll("#tasks *")].map((node) => node.tagName))].sort());
  assert.deepEqual(elements, ["A", "BUTTON", "DIV", "H2", "LI", "SPAN"]);
  const chosen = await page.$$eval("#tag option, #type option", (options) => options.map(({ textContent }) => textContent));
  for (const payload of PAYLOADS) assert.equal(chosen.filter((name) => name === payload).length, 2, payload);

  step("so are they on a task's own page, found by its address");
  for (const [index, payload] of PAYLOADS.entries()) {
    await page.evaluate((id) => { location.hash = `task=${encodeURIComponent(id)}`; }, `${index + 100}${payload}`);
    await page.waitForFunction((title) => document.querySelector("#task-title").textContent === title, payload, PATIENCE);
    await page.waitForFunction((message) => document.querySelector("#error").textContent === message, payload, PATIENCE);
    const told = await page.evaluate(() => ["#metadata", "#result"].map((name) => JSON.parse(document.querySelector(name).textContent)));
    assert.deepEqual(told, [{ [payload]: payload }, { [payload]: payload }]);
    assert.match(await page.textContent("#details"), /Part of/);
    assert.equal(await page.evaluate(() => document.querySelectorAll("#task script, #task img, #task style, #task iframe").length), 0);
  }
  await page.screenshot({ path: join(screenshots, "hostile-task.png") });
  await page.goBack();
  await page.evaluate(() => { location.hash = ""; });
  await page.waitForSelector("#list-page:not([hidden])", PATIENCE);
  assert.equal(await page.evaluate(() => window.ran), undefined);
  assert.deepEqual(await page.evaluate(() => window.violations), []);
  assert.deepEqual(seen.complaints, []);
  await page.screenshot({ path: join(screenshots, "hostile.png") });

  step("the token is in no address, no cookie and nothing that stays");
  const kept = await page.evaluate(() => ({
    address: location.href, cookie: document.cookie, local: localStorage.length, history: history.length,
    session: sessionStorage.getItem("taskcast.token"), markup: document.documentElement.outerHTML,
  }));
  assert.equal(kept.session, token);
  assert.equal(kept.address.replace(/#$/, ""), `http://127.0.0.1:${port}/?groups=open`);
  assert.deepEqual([kept.cookie, kept.local], ["", 0]);
  assert.ok(!kept.markup.includes(token));
  assert.deepEqual(seen.requests.filter((request) => request.includes(token)), []);
  assert.ok(seen.requests.some((request) => request.startsWith("ws://")), "the WebSocket was seen");
  await page.reload();
  await page.waitForSelector(LIVE, { state: "attached", ...PATIENCE });
  const { page: other } = await watched(context);
  await other.goto(`http://127.0.0.1:${port}/`);
  await other.waitForSelector("#sign-in:not([hidden])", PATIENCE);

  step("what a stranger got to run could make no markup and reach nobody");
  const refused = await page.evaluate(() => {
    try {
      document.body.insertAdjacentHTML("beforeend", "<b>markup</b>");
      return "taken";
    } catch (error) {
      return error.name;
    }
  });
  assert.equal(refused, "TypeError");
  const elsewhere = (await freePorts(1))[0];
  await page.evaluate((port) => {
    try { new WebSocket(`ws://127.0.0.1:${port}/`); } catch { /* some throw, all report */ }
    return fetch(`http://127.0.0.1:${port}/`).catch(() => {});
  }, elsewhere);
  const violations = await page.evaluate(() => window.violations);
  assert.equal(violations.filter((directive) => directive === "connect-src").length, 2, `${violations}`);
  await context.close();
}

async function otherSites(browser, step, port) {
  step("another site neither frames the page nor reads the API");
  const frame = `<!doctype html><iframe src="http://127.0.0.1:${port}/"></iframe>`;
  const site = createServer((_, answer) => answer.setHeader("content-type", "text/html").end(frame));
  await new Promise((resolve) => site.listen(0, "127.0.0.1", resolve));
  const context = await browser.newContext();
  const page = await context.newPage();
  const told = [];
  page.on("console", (message) => told.push(message.text()));
  await page.goto(`http://localhost:${site.address().port}/`);
  const inside = page.frames()[1];
  assert.equal(await inside.evaluate(() => document.querySelector("#tasks")).catch(() => null), null);
  assert.ok(told.some((text) => text.includes("frame-ancestors")), told.join(" | "));
  const token = run(["token", "--user", "u1"], SECRET);
  const read = await page.evaluate(async ([port, token]) => {
    const asked = fetch(`http://127.0.0.1:${port}/api/v1/tasks`, { headers: { authorization: `Bearer ${token}` } });
    return asked.then((answer) => answer.status, (error) => error.name);
  }, [port, token]);
  assert.equal(read, "TypeError");
  const connected = await page.evaluate(([port, token]) => new Promise((resolve) => {
    const socket = new WebSocket(`ws://127.0.0.1:${port}/ws/tasks/`, ["taskcast.v1.json", `bearer.${token}`]);
    socket.onopen = () => resolve("open");
    socket.onclose = ({ code }) => resolve(code);
  }), [port, token]);
  assert.equal(connected, 1006);
  await context.close();
  await new Promise((resolve) => { site.closeAllConnections(); site.close(resolve); });
}

async function overTls(browser, step) {
  step("over TLS the page is live on wss://");
  const folder = mkdtempSync(join(tmpdir(), "taskcast-browser-"));
  const [certificate, key] = ["tls.crt", "tls.key"].map((name) => join(folder, name));
  run(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-keyout", key,
    "-out", certificate, "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"], {}, "openssl");
  const [port, operationsPort] = await freePorts(2);
  const service = await start(["serve"], port, operationsPort, {
    ...SECRET, TASKCAST_HTTP_TLS_CERTIFICATE_FILE: certificate, TASKCAST_HTTP_TLS_KEY_FILE: key,
    TASKCAST_OPERATIONS_TLS_CERTIFICATE_FILE: certificate, TASKCAST_OPERATIONS_TLS_KEY_FILE: key,
  });
  const context = await browser.newContext({ ignoreHTTPSErrors: true });
  const { page, seen } = await watched(context);
  await page.goto(`https://localhost:${port}/#token=${run(["token", "--user", "u1"], SECRET)}`);
  await page.waitForSelector(LIVE, { state: "attached", ...PATIENCE });
  assert.ok(seen.requests.some((request) => request.startsWith(`wss://localhost:${port}/`)), `${seen.requests}`);
  assert.deepEqual(seen.complaints, []);
  await context.close();
  await kill(service);
  rmSync(folder, { recursive: true });
}

async function walk(browser, step) {
  const [port, operationsPort] = await freePorts(2);
  const service = await start(["serve"], port, operationsPort, SECRET);
  await fields(browser, step, port);
  await otherSites(browser, step, port);
  await kill(service);
  await overTls(browser, step);
}

mkdirSync(screenshots, { recursive: true });
await judge("hostile events and the token in a browser", walk);
