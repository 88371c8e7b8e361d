// Ways through the dashboard that once went astray: a tab that nobody sees, far down a list and back, another clock, another person.
// Each in a browser of its own, for dashboard.mjs.

import assert from "node:assert/strict";

import { PATIENCE, publish, show, tokenFor, watch } from "./watched.mjs";

const ROW = "#tasks .row[data-task-id]";
const idsOf = (page) => page.$$eval(ROW, (rows) => rows.map((row) => row.dataset.taskId));
export const rowOf = (id) => `#tasks .row[data-task-id="${id}"]`;

/** Waits until exactly these are listed, in this order. */
export const listed = (page, ids) =>
  page.waitForFunction(([selector, ids]) => [...document.querySelectorAll(selector)].map((row) => row.dataset.taskId).join() === ids.join(), [ROW, ids], PATIENCE)
    .catch(async () => assert.deepEqual(await idsOf(page), ids));

/** Asked by the clock: there are no frames. */
const PATIENCE_UNSEEN = { ...PATIENCE, polling: 100 };

/** How many tasks the page's own model has that changed and were not taken up since; they are then. */
async function untaken(page) {
  const debug = await page.context().newCDPSession(page);
  const { result: model } = await debug.send("Runtime.evaluate", { expression: 'import("/page/model.js").then(({ Model }) => Model.prototype)', awaitPromise: true });
  const { objects } = await debug.send("Runtime.queryObjects", { prototypeObjectId: model.objectId });
  const functionDeclaration = "function () { return this.reduce((sum, model) => sum + model.take().rows.size, this.length === 1 ? 0 : NaN); }";
  const { result } = await debug.send("Runtime.callFunctionOn", { objectId: objects.objectId, functionDeclaration, returnByValue: true });
  return result.value;
}

export async function unseen(browser, own, port, worker, step) {
  step("a tab that nobody sees takes up what happens, though it draws nothing");
  const { page, context, seen } = await watch(browser, own);
  await page.addInitScript(() => {
    window.isUnseen = false;
    const draw = requestAnimationFrame;
    window.requestAnimationFrame = (callback) => (window.isUnseen ? 0 : draw(callback));
  });
  await page.goto(`${own}/#token=${tokenFor("--user", "away")}`);
  await page.waitForSelector("#empty:not([hidden])", PATIENCE);
  await page.evaluate(() => { window.isUnseen = true; });
  await publish(port, worker, [{ task_id: "unseen", user_id: "away", status: "running" }]);
  await page.waitForFunction(() => document.title === "(1) taskcast", null, PATIENCE_UNSEEN);
  await publish(port, worker, [{ task_id: "unseen", user_id: "away", status: "cancelled" }]);
  await page.waitForFunction(() => document.title === "taskcast", null, PATIENCE_UNSEEN);
  assert.equal(await untaken(page), 0, "what changed waits for a frame");
  assert.deepEqual(seen.complaints, []);
  await context.close();
}

export async function many(browser, own, port, worker, step) {
  const context = await watch(browser, own);
  const { page, seen } = context;
  const fields = { user_id: "many", status: "running" };
  const say = (...ids) => publish(port, worker, ids.map((task_id) => ({ ...fields, task_id })));
  await page.goto(`${own}/#token=${tokenFor("--user", "many")}`);
  await page.waitForSelector("#empty:not([hidden])", PATIENCE);

  step("counts and summary never contradict each other");
  await page.evaluate(() => {
    window.contradictions = [];
    const numberOf = (selector) => Number(/^\d+/.exec(document.querySelector(selector)?.textContent ?? "")?.[0] ?? 0);
    const look = () => {
      const [chip, summary] = [numberOf('.chip[data-status=""] .count'), numberOf("#summary")];
      if (!document.querySelector("#summary").hidden && chip !== summary) window.contradictions.push([chip, summary]);
      requestAnimationFrame(look);
    };
    look();
  });
  const ids = Array.from({ length: 120 }, (_, index) => `many-${String(index).padStart(3, "0")}`);
  for (let from = 0; from < ids.length; from += 10) await say(...ids.slice(from, from + 10));
  await page.waitForFunction(() => document.querySelector("#summary").textContent === "120 tasks", null, PATIENCE);
  assert.deepEqual(await page.evaluate(() => window.contradictions), []);

  step("what has the focus keeps it, however far somebody scrolls away and back");
  const focused = () => page.evaluate(() => document.activeElement.closest(".row")?.dataset.taskId ?? "");
  const frames = () => page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
  await page.evaluate(() => scrollTo(0, 3_000));
  await frames();
  const held = await page.$eval("#tasks", (list) => [...list.children].find((row) => row.getBoundingClientRect().top > 300).dataset.taskId);
  await page.focus(`${rowOf(held)} .task-title`);
  for (const by of [1_500, -1_000, -500, -1_500, 800, 700]) {
    await page.evaluate((by) => scrollBy(0, by), by);
    await frames();
    assert.equal(await focused(), held, `after ${by}`);
  }

  step("from a task the way back leads to the same lines, though others came above them");
  const placeOf = () => page.$eval(rowOf(held), (row) => Math.round(row.getBoundingClientRect().top)).catch(() => NaN);
  const place = await placeOf();
  await page.click(`${rowOf(held)} .task-title`);
  await page.waitForSelector("#task:not([hidden])", PATIENCE);
  await say(...Array.from({ length: 30 }, (_, index) => `more-${index}`));
  await page.waitForFunction(() => document.querySelector('.chip[data-status=""] .count').textContent === "150", null, PATIENCE);
  await page.goBack();
  await page.waitForSelector("#list-page:not([hidden])", PATIENCE);
  await frames();
  assert.equal(await placeOf(), place);

  step("what was searched for is still asked for when somebody comes back, however quick they were");
  await page.evaluate(() => scrollTo(0, 0));
  await page.evaluate(() => {
    const words = document.querySelector("#words");
    words.value = "many-007";
    words.dispatchEvent(new Event("input", { bubbles: true }));
    return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(document.querySelector("#tasks .task-title").click()))));
  });
  await page.waitForSelector("#task:not([hidden])", PATIENCE);
  await page.waitForFunction(() => location.search === "?q=many-007", null, PATIENCE);
  await page.goBack();
  await listed(page, ["many-007"]);
  assert.equal(await page.inputValue("#words"), "many-007");
  assert.deepEqual(seen.complaints, []);
  await context.context.close();
}

export async function otherTime(browser, own, port, worker, step) {
  step("a browser whose clock is an hour ahead tells the same of a task");
  await publish(port, worker, [{ task_id: "now", user_id: "clock", status: "running" }]);
  const { page, context } = await watch(browser, own);
  await page.addInitScript(() => {
    const { now } = Date;
    Date.now = () => now() + 3_600_000;
  });
  await page.goto(`${own}/#token=${tokenFor("--user", "clock")}&task=now`);
  await page.waitForFunction(() => /Running for[\d.]+ m?s$/.test(document.querySelector("#details").textContent), null, PATIENCE);
  await context.close();
}

export async function leaving(browser, own, port, worker, step) {
  step("whoever signs out leaves nothing of a task behind, nor does who follows another link");
  await publish(port, worker, [{ task_id: "secret", user_id: "s1", title: "Payroll", status: "running", progress: 30, message: "of May", metadata: { salary: 12_345 } }]);
  const { page, context } = await watch(browser, own);
  const holds = () => page.evaluate(() => /Payroll|of May|12345/.test(document.body.textContent + document.title));
  const open = async () => {
    await page.goto(`${own}/#token=${tokenFor("--user", "s1")}&task=secret`);
    await page.waitForFunction(() => /12345/.test(document.querySelector("#metadata").textContent), null, PATIENCE);
  };
  await open();
  await page.click("#sign-out");
  await page.waitForSelector("#sign-in:not([hidden])", PATIENCE);
  assert.equal(await holds(), false);
  await page.fill("#token", tokenFor("--user", "stranger"));
  await page.click("#sign-in button");
  await page.waitForFunction(() => /no such task/.test(document.querySelector("#task-absent").textContent), null, PATIENCE);
  assert.equal(await holds(), false);
  await open();
  await page.evaluate((token) => { location.hash = `token=${token}&task=secret`; }, tokenFor("--user", "stranger"));
  await page.waitForFunction(() => /no such task/.test(document.querySelector("#task-absent").textContent), null, PATIENCE);
  assert.equal(await holds(), false);
  await context.close();
}

/** A second apart, and as long ago as they are many: a task that ended a moment ago. */
const dated = (events) => events.map((event, index) => ({ ...event, timestamp: new Date(Date.now() - (events.length - index) * 1_000).toISOString() }));

export async function before(browser, own, port, worker, step) {
  step("a task that ran before the page was opened shows how it came to its end, as far as the service keeps it");
  const steps = Array.from({ length: 20 }, (_, index) => ({ status: "running", progress: 5 * index, message: `Step ${index + 1}` }));
  const way = [{ status: "queued", title: "Before you came" }, ...steps, { status: "failed", error: { message: "The tape is torn" } }];
  await publish(port, worker, dated(way).map((event) => ({ task_id: "before", user_id: "past", ...event })));
  await publish(port, worker, dated([{ status: "queued" }, { status: "running", progress: 40, message: "All of it" }]).map((event) => ({ task_id: "brief", user_id: "past", ...event })));
  const { page, context, seen } = await watch(browser, own);
  await page.goto(`${own}/#token=${tokenFor("--user", "past")}&task=before`);
  await page.waitForFunction(() => /newest 16 states of a task.+ may be missing/.test(document.querySelector("#followed").textContent), null, PATIENCE);
  await page.waitForSelector("#plot svg .line", { state: "attached", ...PATIENCE });
  const points = await page.$eval("#plot svg .line", (line) => line.getAttribute("d").match(/[\d.]+ [\d.]+/g).map((pair) => pair.split(" ").map(Number)));
  assert.ok(points.length >= 14 && points.every(([x, y], index) => index === 0 || (x > points[index - 1][0] && y <= points[index - 1][1])), `${points}`);
  assert.match(await page.getAttribute("#plot svg", "aria-label"), /^Progress from 0 % at .+ to 95 % at /);
  const names = await page.$$eval("#timeline .station-name", (nodes) => nodes.map(({ textContent }) => textContent));
  assert.deepEqual(names, ["created", "queued", "started", "failed"].filter((name) => names.includes(name)), `${names}`);
  assert.ok(["queued", "failed"].every((name) => names.includes(name)), `${names}`);
  const messages = await page.$$eval("#messages .words", (nodes) => nodes.map(({ textContent }) => textContent));
  assert.deepEqual(messages.slice(0, 3), ["The tape is torn", "Step 20", "Step 19"]);
  assert.ok(messages.length >= 14 && messages.includes("Step 8") && messages.at(-1) === "Step 1", `${messages}`);
  await page.click("#task details summary");
  await page.waitForFunction(() => document.querySelectorAll("#frames li").length === 16, null, PATIENCE);
  await show(page, "task-before");

  step("of one that is young all is shown, from the list too, and what it does next goes on from there");
  await page.click("#back");
  await page.click(`${rowOf("brief")} .task-title`);
  await page.waitForFunction(() => document.querySelector("#followed").textContent.startsWith("Shown from its first event on."), null, PATIENCE);
  await publish(port, worker, [{ task_id: "brief", user_id: "past", progress: 80, message: "Nearly" }]);
  await page.waitForFunction(() => document.querySelectorAll("#messages .words").length === 2, null, PATIENCE);
  assert.match(await page.getAttribute("#plot svg", "aria-label"), /^Progress from 40 % at .+ to 80 % at /);
  assert.deepEqual(seen.complaints, []);
  await context.close();
}

export async function lent(browser, own, port, worker, step) {
  step("a link to share that is opened by somebody who is signed in counts for its task alone");
  await publish(port, worker, [
    { task_id: "mine", user_id: "lender", title: "My own", progress: 10 }, { task_id: "theirs", user_id: "other", title: "Of somebody else", progress: 20 },
  ]);
  const link = `${own}/#token=${tokenFor("--task", "theirs", "--read-only", "--expires", "1h")}`;
  const { page, context, seen } = await watch(browser, own);
  const isOwn = async () => {
    await listed(page, ["mine"]);
    assert.equal(await page.isVisible("#lent"), false);
  };
  const isTheirs = async () => {
    await page.waitForFunction(() => document.querySelector("#task-title").textContent === "Of somebody else", null, PATIENCE);
    await page.waitForSelector("#lent", { state: "visible", ...PATIENCE });
    assert.equal(await page.evaluate(() => location.hash), "#task=theirs");
  };
  await page.goto(`${own}/#token=${tokenFor("--user", "lender")}`);
  await isOwn();
  await page.goto(link);
  await isTheirs();
  await show(page, "task-lent");
  await page.click("#back");
  await isOwn();
  await page.goBack();
  await isTheirs();
  await page.reload();
  await isTheirs();
  await page.keyboard.press("Escape");
  await isOwn();
  await page.reload();
  await isOwn();
  // As by a click in a mail: the page is loaded anew.
  await page.goto("about:blank");
  await page.goto(link);
  await isTheirs();
  await page.click("#sign-out");
  await page.waitForSelector("#sign-in:not([hidden])", PATIENCE);
  assert.doesNotMatch(await page.textContent("body"), /Of somebody else/);
  await page.click("#back");
  await page.waitForSelector("#list-page:not([hidden])", PATIENCE);
  await page.waitForSelector("#sign-in:not([hidden])", PATIENCE);
  assert.deepEqual(seen.complaints, []);
  await context.close();
}
