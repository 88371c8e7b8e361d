// Ways through the dashboard that once went astray: a tab that nobody sees, far down a list and back, another clock, another person.
// Each in a browser of its own, for dashboard.mjs.

import assert from "node:assert/strict";

import { PATIENCE, publish, tokenFor, watch } from "./watched.mjs";

const ROW = "#tasks .row[data-task-id]";
const idsOf = (page) => page.$$eval(ROW, (rows) => rows.map((row) => row.dataset.taskId));
export const rowOf = (id) => `#tasks .row[data-task-id="${id}"]`;

/** Waits until exactly these are listed, in this order. */
export const listed = (page, ids) =>
  page.waitForFunction(([selector, ids]) => [...document.querySelectorAll(selector)].map((row) => row.dataset.taskId).join() === ids.join(), [ROW, ids], PATIENCE)
    .catch(async () => assert.deepEqual(await idsOf(page), ids));

/** Asked by the clock: there are no frames. */
const PATIENCE_UNSEEN = { ...PATIENCE, polling: 100 };

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
