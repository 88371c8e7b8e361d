// The dashboard at `/` in a real browser, state by state: sign-in, nothing yet, the list, filters in the address, groups, a task's own
// page, the keyboard alone, no connection, nothing allowed. axe-core looks at each, in light and in the dark, and each is photographed.
//
// Usage and environment: as page.mjs. Prints PASS or FAIL and why; exit 0 or 1.

import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";

import { before, leaving, lent, listed, many, otherTime, rowOf, unseen } from "./dashboard-ways.mjs";
import { freePorts, judge, kill, screenshots, start, startRedis } from "./support.mjs";
import { DESK, LIVE, PATIENCE, PHONE, publish, SECRET, show, signed, tokenFor, watch } from "./watched.mjs";

/** One after the other, so that their order is known: the newest stands first. */
const TASKS = [
  { task_id: "report", user_id: "u1", name: "report", title: "Monthly report", status: "running", tags: ["finance"] },
  { task_id: "report-sales", user_id: "u1", name: "chart", title: "Sales", parent_id: "report", root_id: "report", status: "running", progress: 40 },
  { task_id: "report-stock", user_id: "u1", name: "chart", title: "Stock", parent_id: "report", root_id: "report", status: "succeeded" },
  { task_id: "report-staff", user_id: "u1", name: "chart", title: "Staff", parent_id: "report", root_id: "report", status: "queued" },
  { task_id: "export-1", user_id: "u1", name: "export", title: "Export invoices", status: "running", current: 30, total: 120, unit: "rows", tags: ["finance", "nightly"], step: "read", message: "Row 30 of 120", worker: "w1", metadata: { file: "invoices.csv", pages: 3 } },
  { task_id: "import-1", user_id: "u1", name: "import", title: "Import customers", status: "failed", progress: 72, error: { code: "E550", type: "MailError", message: "550 The mailbox is full", retryable: true } },
  { task_id: "scan-1", user_id: "u2", name: "scan", title: "Scan the mailbox", status: "running", current: 7, unit: "pages" },
];

async function signIn(page, own, token, step) {
  step("without a token the page says why and asks for one");
  await page.goto(`${own}/`);
  await page.waitForSelector("#sign-in:not([hidden])", PATIENCE);
  assert.equal(await page.evaluate(() => document.activeElement.id), "token");
  assert.match(await page.textContent("#connection-text"), /Not signed in/);
  await show(page, "sign-in");

  step("a bad one is refused with the reason, and what was pasted as a link is taken");
  await page.fill("#token", "not.a.token");
  await page.click("#sign-in button");
  await page.waitForFunction(() => /refused/.test(document.querySelector("#sign-in-reason").textContent), null, PATIENCE);
  await page.fill("#token", `${own}/#token=${token}`);
  await page.click("#sign-in button");
  await page.waitForSelector(LIVE, { state: "attached", ...PATIENCE });

  step("nothing is there yet, and the page says how to change that");
  await page.waitForSelector("#empty:not([hidden])", PATIENCE);
  assert.match(await page.textContent("#example-curl"), /"task_id":"hello"/);
  await show(page, "empty");
}

async function filters(page, step) {
  const all = ["scan-1", "import-1", "export-1", "report"];
  step("the list is newest first, with a bar and a status each");
  await listed(page, all);
  assert.equal(await page.$eval(rowOf("export-1"), (row) => row.querySelector("[role=progressbar]").getAttribute("aria-valuenow")), "25");
  assert.equal(await page.$eval(rowOf("scan-1"), (row) => row.querySelector("[role=progressbar]").hasAttribute("aria-valuenow")), false);
  assert.match(await page.textContent(`${rowOf("import-1")} .message`), /mailbox is full/);
  await show(page, "list");

  step("filters are in the address and hold through a reload");
  await page.click('.chip[data-status="running"]');
  // Groups are open then: what was found in them is to be seen.
  await listed(page, ["scan-1", "export-1", "report", "report-sales"]);
  await page.selectOption("#tag", "finance");
  await listed(page, ["export-1", "report"]);
  await page.fill("#words", "invoices ROW");
  await listed(page, ["export-1"]);
  await page.waitForFunction(() => location.search === "?status=running&tag=finance&q=invoices+ROW", null, PATIENCE);
  await page.reload();
  await listed(page, ["export-1"]);
  const asked = () => page.evaluate(() => [
    document.querySelector('.chip[data-status="running"]').getAttribute("aria-pressed"), document.querySelector("#tag").value, document.querySelector("#words").value,
  ]);
  assert.deepEqual(await asked(), ["true", "finance", "invoices ROW"]);
  assert.match(await page.textContent("#summary"), /^1 of 7 tasks/);

  step("where nothing fits the page says so, and clears the filters again");
  await page.fill("#words", "no such words");
  await page.waitForSelector("#nothing-fits:not([hidden])", PATIENCE);
  await show(page, "nothing-fits");
  await page.click("#nothing-fits button");
  await listed(page, all);
  await page.waitForFunction(() => location.search === "", null, PATIENCE);

  step("a type and an owner are filters too; owners where there are several");
  await page.selectOption("#type", "import");
  await listed(page, ["import-1"]);
  await page.selectOption("#type", "");
  await page.selectOption("#owner", "u2");
  await listed(page, ["scan-1"]);
  await page.selectOption("#owner", "");
  await listed(page, all);

  step("in the order of their status they stand below headings");
  await page.selectOption("#order", "status");
  await listed(page, ["scan-1", "export-1", "report", "import-1"]);
  assert.deepEqual(await page.$$eval(".row-heading", (nodes) => nodes.map(({ textContent }) => textContent).filter(Boolean)), ["running", "failed"]);
  await show(page, "by-status");
  await page.selectOption("#order", "newest");
}

async function groups(page, port, worker, step) {
  step("a group rolls up: the mean of its tasks, and how many of them are where");
  const shown = () => page.$eval('#tasks .row[data-group="report"]', (row) => [
    row.querySelector("[role=progressbar]").getAttribute("aria-valuenow"), row.querySelector(".message").textContent,
  ]);
  const until = (now, words) => page.waitForFunction(([now, words]) => {
    const row = document.querySelector('#tasks .row[data-group="report"]');
    return row?.querySelector("[role=progressbar]").getAttribute("aria-valuenow") === now && row.querySelector(".message").textContent === words;
  }, [now, words], PATIENCE).catch(async () => assert.deepEqual(await shown(), [now, words]));
  await until("46", "3 tasks: 1 running, 1 queued, 1 succeeded");
  await publish(port, worker, [{ task_id: "report-staff", user_id: "u1", status: "running", progress: 10 }]);
  await until("50", "3 tasks: 2 running, 1 succeeded");

  step("it opens and closes, and the address can have all of them open");
  await page.click('#tasks .row[data-group="report"] .expander');
  await listed(page, ["scan-1", "import-1", "export-1", "report", "report-sales", "report-stock", "report-staff"]);
  await show(page, "group");
  await page.click('#tasks .row[data-group="report"] .expander');
  await listed(page, ["scan-1", "import-1", "export-1", "report"]);
  await page.click("#open-groups");
  await page.waitForFunction(() => location.search === "?groups=open", null, PATIENCE);
  await page.reload();
  await listed(page, ["scan-1", "import-1", "export-1", "report", "report-sales", "report-stock", "report-staff"]);
  await page.click("#open-groups");

  step("a task of a group that is not known itself stands alone, two of them stand below its name");
  await publish(port, worker, [{ task_id: "night-1", user_id: "u1", title: "First", root_id: "night", progress: 20 }]);
  await page.waitForSelector(rowOf("night-1"), PATIENCE);
  await publish(port, worker, [{ task_id: "night-2", user_id: "u1", title: "Second", root_id: "night", progress: 60 }]);
  await page.waitForFunction(() => document.querySelector('#tasks .row[data-group="night"] .task-title')?.textContent === "night", null, PATIENCE);
  await page.click('#tasks .row[data-group="night"] .task-title');
  await page.waitForFunction(() => /2 tasks: 2 running; 40 % on average/.test(document.querySelector("#children-tally").textContent), null, PATIENCE);
  await page.click("#back");
  await page.waitForSelector('#tasks .row[data-group="night"]', PATIENCE);
}

async function taskPage(page, port, worker, step) {
  step("a task's own page shows its way: statuses, attempts, messages, a plot");
  await page.click(`${rowOf("export-1")} .task-title`);
  await page.waitForSelector("#task:not([hidden])", PATIENCE);
  assert.equal(await page.evaluate(() => location.hash), "#task=export-1");
  assert.equal(await page.evaluate(() => document.activeElement.id), "task-title");
  const say = (fields) => publish(port, worker, [{ task_id: "export-1", user_id: "u1", ...fields }]);
  const reads = (selector, words) => page.waitForFunction(
    ([selector, words]) => document.querySelector(selector).textContent.includes(words), [selector, words], PATIENCE);
  // Each is waited for: what comes in one moment may be folded into one.
  for (const current of [40, 60, 90]) {
    await say({ current, total: 120, message: `Row ${current} of 120` });
    await reads("#messages", `Row ${current} of 120`);
  }
  await say({ status: "failed", error: { message: "The disk is full" } });
  await reads("#task-status", "failed");
  await say({ status: "retrying", attempt: 2, message: "Once more" });
  await reads("#timeline", "retrying, attempt 2");
  await say({ status: "running", attempt: 2, current: 20, total: 120, message: "Row 20 of 120" });
  await reads("#messages", "Row 20 of 120");
  await reads("#task-numbers", "20 of 120 rows · 16 %");
  await page.waitForSelector("#plot svg .line", { state: "attached", ...PATIENCE });
  await page.waitForFunction(() => document.querySelectorAll("#plot svg .line").length === 2, null, PATIENCE);
  assert.match(await page.getAttribute("#plot svg", "aria-label"), /^Progress from 25 % at .+ to 16 % at .+, in 2 attempts$/);
  // Four points of the first attempt, each higher than the one before.
  const heights = await page.$eval("#plot svg .line", (line) => line.getAttribute("d").match(/ [\d.]+/g).map(Number));
  assert.ok(heights.length >= 4 && heights.every((height, index) => index === 0 || height <= heights[index - 1]) && heights[0] > heights.at(-1), `${heights}`);
  const way = await page.$$eval("#timeline .station-name", (names) => names.map(({ textContent }) => textContent));
  assert.deepEqual(way.slice(-3), ["failed", "retrying, attempt 2", "running"]);
  const messages = await page.$$eval("#messages .words", (nodes) => nodes.map(({ textContent }) => textContent.replace(/^read /, "")));
  assert.deepEqual(messages.slice(0, 6), ["Row 20 of 120", "Once more", "The disk is full", "Row 90 of 120", "Row 60 of 120", "Row 40 of 120"]);
  assert.match(await page.textContent("#details"), /Typeexport.*Owneru1.*Workerw1.*Tagsfinance, nightly.*Attempt2/s);
  assert.deepEqual(JSON.parse(await page.textContent("#metadata")), { file: "invoices.csv", pages: 3 });
  await page.click("#task details summary");
  await page.waitForFunction(() => document.querySelectorAll("#frames li").length >= 7, null, PATIENCE);
  const frame = JSON.parse(await page.textContent("#frames pre"));
  assert.deepEqual([frame.task_id, frame.attempt, frame.current], ["export-1", 2, 20]);
  await show(page, "task");

  await page.goto(page.url().replace("export-1", "report-sales"));
  await page.focus("#details a");
  const ran = () => page.$$eval("#details dt", (terms) => terms.find(({ textContent }) => textContent === "Running for").nextSibling.textContent);
  const before = await ran();
  await page.waitForFunction((before) => {
    const term = [...document.querySelectorAll("#details dt")].find(({ textContent }) => textContent === "Running for");
    return term.nextSibling.textContent !== before;
  }, before, PATIENCE);
  assert.equal(await page.evaluate(() => document.activeElement.hash), "#task=report");
  await page.goBack();

  step("its result is shown, and it is found again by its address");
  await say({ status: "succeeded", attempt: 2, result: { file: "invoices.zip" } });
  await page.waitForFunction(() => document.querySelector("#result").textContent.includes("invoices.zip"), null, PATIENCE);
  await page.reload();
  await page.waitForFunction(() => document.querySelector("#task-status").textContent === "succeeded", null, PATIENCE);
  await page.waitForFunction(() => document.querySelector("#result").textContent.includes("invoices.zip"), null, PATIENCE);
  await show(page, "task-ended");
  await page.goto(page.url().replace("export-1", "import-1"));
  await page.waitForFunction(() => /mailbox is full/.test(document.querySelector("#error").textContent), null, PATIENCE);
  assert.match(await page.textContent("#error-more"), /MailError · E550 · may be tried again/);
  await show(page, "task-failed");

  step("a task that nobody knows is told as such, and appears when it begins");
  await page.goto(page.url().replace("import-1", "later"));
  await page.waitForFunction(() => /no such task/.test(document.querySelector("#task-absent").textContent), null, PATIENCE);
  await show(page, "task-unknown");
  await publish(port, worker, [{ task_id: "later", user_id: "u1", title: "It came", progress: 5 }]);
  await page.waitForFunction(() => document.querySelector("#task-title").textContent === "It came", null, PATIENCE);
  await page.keyboard.press("Escape");
  await page.waitForSelector("#list-page:not([hidden])", PATIENCE);
}

async function keyboard(page, step) {
  step("everything can be reached by the keyboard alone");
  const focused = () => page.evaluate(() => {
    const { taskId, group } = document.activeElement.closest(".row")?.dataset ?? {};
    return taskId ?? group ?? document.activeElement.id;
  });
  const press = async (...keys) => { for (const key of keys) await page.keyboard.press(key); };
  await page.evaluate(() => document.activeElement.blur());
  await press("/");
  assert.equal(await focused(), "words");
  await page.waitForSelector(rowOf("report"), PATIENCE);
  await press("Escape");
  await press("Home");
  assert.equal(await focused(), "later");
  await press("ArrowDown");
  assert.equal(await focused(), "night");
  await press("ArrowUp", "End");
  assert.equal(await focused(), "report");
  await press("ArrowRight");
  await page.waitForSelector(rowOf("report-sales"), PATIENCE);
  await press("ArrowDown");
  assert.equal(await focused(), "report-sales");
  await press("ArrowLeft");
  assert.equal(await focused(), "report");
  await press("ArrowLeft");
  await page.waitForSelector(rowOf("report-sales"), { state: "detached", ...PATIENCE });
  assert.equal(await focused(), "report");
  await press("Enter");
  await page.waitForSelector("#task:not([hidden])", PATIENCE);
  assert.equal(await page.textContent("#task-title"), "Monthly report");
  await press("Escape");
  await page.waitForSelector("#list-page:not([hidden])", PATIENCE);
  assert.equal(await focused(), "report");
  // Tab leaves the list in one step, wherever somebody was in it, and comes back to the same line.
  await press("Shift+Tab", "Tab");
  assert.equal(await focused(), "report");
}

async function degraded(browser, step) {
  step("while the service waits for its event log the page stays, and says as of when it holds");
  const [port, operationsPort, redisPort] = await freePorts(3);
  const redis = await startRedis(redisPort);
  const service = await start(["serve"], port, operationsPort, { ...SECRET, TASKCAST_LOG: `redis://127.0.0.1:${redisPort}` });
  await publish(port, tokenFor("--user", "worker", "--publish"), TASKS);
  const { page, context, seen } = await watch(browser, `http://127.0.0.1:${port}`);
  await page.goto(`http://127.0.0.1:${port}/#token=${tokenFor("--group", "report")}`);
  await page.waitForFunction(() => /3 tasks: 1 running/.test(document.querySelector("#children-tally").textContent), null, PATIENCE);
  assert.equal(await page.evaluate(() => location.hash), "#task=report");
  redis.child.kill("SIGSTOP");
  await page.waitForSelector('[data-connection-state="degraded"]', { state: "attached", ...PATIENCE });
  await page.waitForFunction(() => /waits for its event log\. What you see is as of \d/.test(document.querySelector("#stale").textContent), null, PATIENCE);
  await show(page, "degraded");
  redis.child.kill("SIGCONT");
  await page.waitForSelector(LIVE, { state: "attached", ...PATIENCE });
  await page.waitForSelector("#stale", { state: "hidden", ...PATIENCE });
  assert.deepEqual(seen.complaints, []);
  await context.close();
  await kill(service);
  await kill(redis);
}

async function walk(browser, step) {
  const [port, operationsPort] = await freePorts(2);
  const own = `http://127.0.0.1:${port}`;
  let service = await start(["serve"], port, operationsPort, SECRET);
  const [worker, all] = [tokenFor("--user", "worker", "--publish"), tokenFor("--user", "u1", "--watch", "own", "--watch", "all")];
  const { page, context, seen } = await watch(browser, own);
  await signIn(page, own, all, step);
  for (const event of TASKS) await publish(port, worker, [event]);
  await filters(page, step);
  await groups(page, port, worker, step);
  await taskPage(page, port, worker, step);
  await keyboard(page, step);
  await unseen(browser, own, port, worker, step);
  await many(browser, own, port, worker, step);
  await otherTime(browser, own, port, worker, step);
  await leaving(browser, own, port, worker, step);
  await before(browser, own, port, worker, step);
  await lent(browser, own, port, worker, step);
  assert.equal(seen.sockets.filter((socket) => !socket.isClosed()).length, 1);
  assert.deepEqual(seen.complaints, []);
  assert.deepEqual(await page.evaluate(() => window.violations), []);

  step("without a connection the page says as of when holds what it shows, and when it tries again");
  await kill(service);
  await page.waitForSelector('[data-connection-state="reconnecting"]', { state: "attached", ...PATIENCE });
  await page.waitForSelector("#stale:not([hidden])", PATIENCE);
  assert.match(await page.textContent("#stale"), /no connection at the moment\. What you see is as of \d/);
  await page.waitForFunction(() => /^ in \d+ s$/.test(document.querySelector("#connection-countdown").textContent), null, PATIENCE);
  await show(page, "reconnecting");
  await context.setOffline(true);
  await page.waitForSelector('[data-connection-state="offline"]', { state: "attached", ...PATIENCE });
  await show(page, "offline");
  await context.setOffline(false);
  service = await start(["serve"], port, operationsPort, SECRET);
  await page.waitForSelector(LIVE, { state: "attached", ...PATIENCE });
  await page.waitForSelector("#empty:not([hidden])", PATIENCE);
  await page.waitForSelector("#stale", { state: "hidden", ...PATIENCE });
  await context.close();

  step("a token that may watch nothing is told so, and the page does not try again");
  const { page: barred, context: other } = await watch(browser, own);
  await barred.goto(`${own}/#token=${signed({ sub: "u1", exp: 4_000_000_000, taskcast: { publish: true } })}`);
  await barred.waitForSelector('[data-connection-state="closed"]', { state: "attached", ...PATIENCE });
  await barred.waitForSelector("#closed:not([hidden])", PATIENCE);
  await show(barred, "closed");
  await other.close();

  step("a link to one task opens that task");
  await publish(port, worker, [{ task_id: "shared", user_id: "u1", title: "Shared with you", progress: 42 }]);
  const { page: guest, context: last, seen: heard } = await watch(browser, own, { viewport: PHONE });
  await guest.goto(`${own}/#token=${tokenFor("--task", "shared", "--read-only", "--expires", "1h")}`);
  await guest.waitForFunction(() => document.querySelector("#task-title").textContent === "Shared with you", null, PATIENCE);
  assert.equal(await guest.evaluate(() => location.hash), "#task=shared");
  await guest.setViewportSize(DESK);
  assert.deepEqual(heard.complaints, []);
  await last.close();
  await kill(service);
  await degraded(browser, step);
}

mkdirSync(screenshots, { recursive: true });
await judge("the dashboard in a browser", walk);
