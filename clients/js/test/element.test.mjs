// <task-progress>: what eyes and screen readers are told, and that it never says more than is known.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, it, mock } from "node:test";

import { window } from "./dom.mjs";

const { TaskcastClient } = await import("../src/index.js");
const { TaskProgressElement } = await import("../src/element.js");
const { frame, last, open, root, settle, sockets, task } = await import("./support.mjs");

let client;
let element;

beforeEach(async () => {
  mock.timers.enable({ apis: ["setTimeout", "setInterval", "Date"], now: 1_800_000_000_000 });
  client = new TaskcastClient({ transports: ["websocket"] });
  TaskProgressElement.client = client;
  element = document.createElement("task-progress");
  element.taskId = "t1";
  document.body.append(element);
  await settle();
});

afterEach(() => {
  element.remove();
  client.close();
  mock.timers.reset();
});

const part = (name) => element.shadowRoot.querySelector(`[part=${name}]`);
const bar = () => part("track");
const now = () => bar().getAttribute("aria-valuenow");
const said = () => part("announcement").textContent;
const greet = (...tasks) => last().greet({ tasks });

describe("<task-progress>", () => {
  it("is an indeterminate progressbar until something is known", () => {
    assert.equal(bar().getAttribute("role"), "progressbar");
    assert.equal(now(), null);
    assert.equal(bar().getAttribute("aria-valuetext"), "waiting");
    greet(task("t1", { title: "Export of orders" }));
    assert.equal(now(), null);
    assert.equal(bar().getAttribute("aria-label"), "Export of orders");
    assert.equal(bar().getAttribute("aria-valuetext"), "running");
    last().tell(frame("t1", { progress: 37.9, step: "copy", message: "file 3" }));
    assert.equal(now(), "37");
    assert.equal(part("value").textContent, "37 %");
    assert.equal(part("message").textContent, "copy · file 3");
    assert.equal(part("fill").style.transform, "scaleX(0.379)");
  });

  it("never goes back within an attempt and a step, and starts over with the next", () => {
    greet(task("t1", { progress: 60 }));
    last().tell(frame("t1", { progress: 40 }));
    assert.equal(now(), "60");
    last().tell(frame("t1", { progress: undefined, message: "?" }));
    assert.equal(now(), "60");
    last().tell(frame("t1", { progress: 10, step: "second" }));
    assert.equal(now(), "10");
    last().tell(frame("t1", { progress: 0, step: "second", attempt: 2 }));
    assert.equal(now(), "0");
  });

  it("is full when the task has succeeded and not before", () => {
    greet(task("t1", { progress: 100 }));
    assert.equal(now(), "99");
    last().tell(frame("t1", { progress: 100, status: "failed", error: { message: "disk full" } }));
    assert.equal(now(), "99");
    assert.equal(part("message").textContent, "disk full");
    assert.equal(part("value").textContent, "failed · 99 %");
    assert.equal(element.getAttribute("status"), "failed");
    last().tell(frame("t1", { attempt: 2, status: "succeeded" }));
    assert.equal(now(), "100");
    assert.equal(part("value").textContent, "100 %");
    last().tell(frame("t1", { attempt: 2, progress: 90 }));
    assert.equal(now(), "99");
  });

  it("tells how long it may take in its text alternative, once the pace says anything", () => {
    greet(task("t1", { progress: 10 }));
    last().tell(frame("t1", { progress: 11 }));
    assert.equal(bar().getAttribute("aria-valuetext"), "running, 11 %");
    mock.timers.tick(10_000);
    last().tell(frame("t1", { progress: 20 }));
    assert.equal(bar().getAttribute("aria-valuetext"), "running, 20 %, about 1 minute left");
  });

  it("speaks at milestones and ends, politely and not at every percent", () => {
    greet(task("t1", { progress: 1, title: "Export" }));
    assert.equal(said(), "");
    const heard = [];
    for (let progress = 2; progress < 100; progress += 1) {
      last().tell(frame("t1", { progress, title: "Export" }));
      mock.timers.tick(1_000);
      if (said() !== heard.at(-1)) heard.push(said());
    }
    last().tell(frame("t1", { status: "succeeded", title: "Export" }));
    mock.timers.tick(0);
    heard.push(said());
    assert.deepEqual(heard.filter(Boolean), ["Export: 25 %", "Export: 50 %", "Export: 75 %", "Export: succeeded"]);
    assert.equal(part("announcement").getAttribute("aria-live"), "polite");
  });

  it("shows hostile text as text", () => {
    const hostile = '<img src=x onerror="globalThis.ran=1">';
    greet(task("t1", { title: hostile, message: hostile, step: hostile }));
    assert.equal(part("label").textContent, hostile);
    assert.equal(element.shadowRoot.querySelector("img"), null);
  });

  it("tells of no end that was there before", () => {
    const ends = [];
    element.addEventListener("task-end", ({ detail }) => ends.push(detail.status));
    greet(task("t1", { status: "failed" }));
    last().tell(frame("t1", { status: "failed", message: "x" }));
    assert.deepEqual(ends, []);
    last().tell(frame("t1", { attempt: 2 }));
    last().tell(frame("t1", { attempt: 2, status: "succeeded" }));
    assert.deepEqual(ends, ["succeeded"]);
  });

  it("says when what it shows is not fresh, and of the connection", () => {
    const text = () => bar().getAttribute("aria-valuetext");
    greet(task("t1", { progress: 40 }));
    assert.deepEqual([element.getAttribute("connection"), text()], ["live", "running, 40 %"]);
    const lost = new Date().toLocaleTimeString();
    last().end(1006);
    mock.timers.tick(900);
    assert.deepEqual([element.getAttribute("connection"), text()], ["reconnecting", `running, 40 %, as of ${lost}`]);
    assert.ok(bar().classList.contains("stale"));
    client.retry();
    mock.timers.tick(60_000);
    last().greet({ resumed: true });
    last().tell({ type: "source_degraded", fresh_until: "2026-01-01T00:00:00.000Z" });
    assert.deepEqual([element.getAttribute("connection"), text()], ["degraded", `running, 40 %, as of ${new Date("2026-01-01T00:00:00.000Z").toLocaleTimeString()}`]);
    last().tell(frame("t1", { status: "succeeded" }));
    assert.equal(text(), "succeeded, 100 %");
    last().tell({ type: "source_recovered" });
    assert.equal(element.getAttribute("connection"), "live");
    assert.ok(!bar().classList.contains("stale"));
    greet(task("t1"));
    last().tell({ type: "authentication_error", error_code: "INVALID_TOKEN", message: "no" });
    last().end(4001);
    element.taskId = "unheard-of";
    assert.equal(part("value").textContent, "unauthorised");
  });

  it("is the same when it is moved, and busy for nobody", () => {
    greet(task("t1", { progress: 1, title: "Export" }));
    const list = document.body.appendChild(document.createElement("ul"));
    const heard = [];
    const ends = [];
    element.addEventListener("task-end", ({ detail }) => ends.push(detail.status));
    for (let progress = 2; progress < 100; progress += 1) {
      last().tell(frame("t1", { progress, title: "Export" }));
      list.replaceChildren(element);
      mock.timers.tick(1_000);
      if (said() !== heard.at(-1)) heard.push(said());
    }
    assert.deepEqual(heard.filter(Boolean), ["Export: 25 %", "Export: 50 %", "Export: 75 %"]);
    assert.match(bar().getAttribute("aria-valuetext"), /left$/);
    assert.equal(bar().getAttribute("aria-busy"), null);
    element.remove();
    last().tell(frame("t1", { progress: 5, title: "Export" }));
    list.append(element);
    assert.equal(now(), "99");
    last().tell(frame("t1", { status: "succeeded" }));
    assert.deepEqual(ends, ["succeeded"]);
    list.remove();
  });

  it("takes what was set before its script came, and has a name always", async () => {
    greet(task("t1"), task("t7", { progress: 7 }));
    const early = document.createElement("task-progress");
    // As an element has them that is not upgraded yet.
    for (const [name, value] of [["taskId", "t7"], ["client", client]]) Object.defineProperty(early, name, { value, configurable: true, writable: true, enumerable: true });
    TaskProgressElement.client = null;
    document.body.append(early);
    await settle();
    assert.deepEqual([early.getAttribute("task-id"), early.taskId, early.client], ["t7", "t7", client]);
    const track = early.shadowRoot.querySelector("[part=track]");
    assert.equal(track.getAttribute("aria-valuenow"), "7");
    early.taskId = null;
    assert.equal(track.getAttribute("aria-label"), "progress");
    early.remove();
  });

  it("works with the project's front-page example over one connection", async () => {
    element.remove();
    client.close();
    TaskProgressElement.client = null;
    const [, script, html] = readFileSync(join(root, "README.md"), "utf8").match(/<script type="module">\n(.*?client\.js.*?)<\/script>\n(<task-progress.*?<\/task-progress>)/s);
    const place = document.body.appendChild(document.createElement("div"));
    place.innerHTML = html;
    const before = sockets.length;
    const fetch = mock.method(globalThis, "fetch", async () => ({ text: async () => "tok" }));
    mock.method(console, "log", () => {});
    let made;
    class Client extends TaskcastClient { constructor(options) { super(options); made = this; } }
    new Function("TaskcastClient", "TaskProgressElement", script.replace(/^ *import .*$/m, ""))(Client, TaskProgressElement);
    await settle();
    assert.deepEqual(sockets.slice(before).map(({ token }) => token), ["tok"]);
    assert.equal(open().filter((socket) => sockets.indexOf(socket) >= before).length, 1);
    greet(task("t1", { progress: 70 }));
    assert.equal(place.firstChild.shadowRoot.querySelector("[part=track]").getAttribute("aria-valuenow"), "70");
    mock.timers.tick(1_000);
    place.remove();
    made.close();
    fetch.mock.restore();
    console.log.mock.restore();
  });

  it("tells of updates, and once of the end", () => {
    const events = [];
    for (const name of ["task-update", "task-end"]) element.addEventListener(name, ({ type, detail }) => events.push(`${type} ${detail.status}`));
    greet(task("t1"));
    last().tell(frame("t1", { status: "succeeded" }));
    last().tell(frame("t1", { status: "succeeded", message: "x" }));
    assert.deepEqual(events, ["task-update running", "task-update succeeded", "task-end succeeded", "task-update succeeded"]);
  });

  it("follows another task when told, and none when it is taken away", async () => {
    greet(task("t1", { progress: 90 }), task("t2", { progress: 5 }));
    element.taskId = "t2";
    assert.equal(now(), "5");
    element.setAttribute("label", "Mine");
    assert.equal(bar().getAttribute("aria-label"), "Mine");
    const socket = last();
    element.remove();
    mock.timers.tick(6_000);
    await settle();
    assert.equal(socket.readyState, 3);
    document.body.append(element);
    await settle();
    assert.notEqual(last(), socket);
  });

  it("works when it was in the page before its script, and takes the client that comes later", async () => {
    const own = last();
    element.remove();
    TaskProgressElement.client = null;
    const place = document.body.appendChild(document.createElement("div"));
    const complaints = [];
    window.addEventListener("error", ({ message }) => complaints.push(message), { once: true });
    place.innerHTML = '<task-progress task-id="t9" label="Early"></task-progress>';
    await settle();
    const early = last();
    assert.notEqual(early, own);
    TaskProgressElement.client = client;
    await settle();
    assert.equal(early.readyState, 3);
    own.greet({ tasks: [task("t9", { progress: 7 })] });
    const bar = place.firstChild.shadowRoot.querySelector("[part=track]");
    assert.deepEqual([bar.getAttribute("aria-valuenow"), bar.getAttribute("aria-label")], ["7", "Early"]);
    assert.deepEqual(complaints, []);
    place.remove();
  });

  it("shares one client with all others of the same address", async () => {
    element.remove();
    TaskProgressElement.client = null;
    const before = sockets.length;
    const others = ["a", "b"].map((id) => {
      const other = document.createElement("task-progress");
      other.setAttribute("url", "https://elsewhere.test/");
      other.taskId = id;
      document.body.append(other);
      return other;
    });
    await settle();
    assert.equal(sockets.length, before + 1);
    assert.equal(last().url.host, "elsewhere.test");
    others.forEach((other) => other.remove());
  });
});
