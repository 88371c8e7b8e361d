// <task-progress>: what eyes and screen readers are told, and that it never says more than is known.

import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, it, mock } from "node:test";

import { window } from "./dom.mjs";

const { TaskcastClient } = await import("../src/index.js");
const { TaskProgressElement } = await import("../src/element.js");
const { frame, last, settle, sockets, task } = await import("./support.mjs");

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
    assert.equal(element.getAttribute("status"), "failed");
    last().tell(frame("t1", { attempt: 2, status: "succeeded" }));
    assert.equal(now(), "100");
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
