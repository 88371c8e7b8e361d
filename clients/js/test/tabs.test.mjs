// Several tabs of one browser: one connection, and a hand-over that loses nothing.

import assert from "node:assert/strict";
import { beforeEach, describe, it } from "node:test";

import { TaskcastClient } from "../src/index.js";
import { browse, frame, last, open, pass, settle, sockets, task } from "./support.mjs";

/** Web Locks as the standard has them, as far as they are used. */
function fakeLocks() {
  const held = new Map();
  const queues = new Map();
  const grant = (name) => {
    const next = queues.get(name)?.shift();
    if (!next) return held.delete(name);
    held.set(name, next);
    next.isGranted = true;
    Promise.resolve().then(() => next.callback({ name })).then(
      (value) => { next.resolve(value); if (held.get(name) === next) grant(name); },
      (error) => { next.reject(error); if (held.get(name) === next) grant(name); },
    );
    return undefined;
  };
  return {
    held,
    request: (name, { signal }, callback) => new Promise((resolve, reject) => {
      const entry = { callback, resolve, reject, isGranted: false };
      queues.set(name, [...(queues.get(name) ?? []), entry]);
      signal.addEventListener("abort", () => {
        if (entry.isGranted) return;
        queues.set(name, queues.get(name).filter((other) => other !== entry));
        reject(signal.reason);
      });
      if (!held.has(name)) grant(name);
    }),
    query: async () => ({ held: [...held.keys()].map((name) => ({ name })) }),
    /** A tab that crashed holds nothing any more. */
    drop: (match) => { for (const name of [...held.keys()]) if (match(name)) grant(name); },
  };
}

/** Tabs hear each other in order, each a little later. */
class FakeChannel {
  static all = new Set();
  constructor(name) {
    this.name = name;
    FakeChannel.all.add(this);
  }
  postMessage(data) {
    const copy = structuredClone(data);
    for (const other of FakeChannel.all) {
      if (other !== this && other.name === this.name) Promise.resolve().then(() => FakeChannel.all.has(other) && other.onmessage({ data: structuredClone(copy) }));
    }
  }
  close() {
    FakeChannel.all.delete(this);
  }
}

let locks;
beforeEach(() => {
  const page = browse();
  locks = fakeLocks();
  page.navigator.locks = locks;
  FakeChannel.all.clear();
  Object.defineProperty(globalThis, "BroadcastChannel", { value: FakeChannel, configurable: true });
});

const tab = (options = {}) => {
  const client = new TaskcastClient({ transports: ["websocket"], shareAcrossTabs: true, ...options });
  return { client, leave: client.connect(), progress: (id) => client.task(id).current?.progress, state: () => client.connection.current.state };
};

describe("tabs that share", () => {
  it("have one connection, and all see the same", async () => {
    const tabs = [tab(), tab(), tab()];
    await settle();
    assert.equal(sockets.length, 1);
    last().greet({ tasks: [task("t1", { progress: 10 })] });
    await settle();
    assert.deepEqual(tabs.map((one) => one.state()), ["live", "live", "live"]);
    assert.deepEqual(tabs.map((one) => one.progress("t1")), [10, 10, 10]);
    last().tell(frame("t1", { progress: 20 }));
    last().tell({ type: "task_removed", task_id: "gone" });
    await settle();
    assert.deepEqual(tabs.map((one) => one.progress("t1")), [20, 20, 20]);
    assert.equal(tabs[2].client.connection.current.userId, "u1");
    const late = tab();
    await settle();
    assert.deepEqual([late.progress("t1"), late.state(), sockets.length], [20, "live", 1]);
  });

  it("hand the connection over with the cursor when the one that has it closes", async () => {
    const [first, second, third] = [tab(), tab(), tab()];
    await settle();
    last().greet({ tasks: [task("t1", { progress: 10 })], cursor: "c1" });
    last().tell(frame("t1", { progress: 20, cursor: "c2" }));
    await settle();
    first.client.close();
    await settle();
    assert.equal(open().length, 1);
    assert.equal(sockets.length, 2);
    assert.equal(last().url.searchParams.get("cursor"), "c2");
    last().greet({ resumed: true, cursor: "c2" });
    last().tell(frame("t1", { progress: 30, cursor: "c3" }));
    await settle();
    assert.deepEqual([first.progress("t1"), second.progress("t1"), third.progress("t1")], [20, 30, 30]);
    assert.deepEqual([second.state(), third.state()], ["live", "live"]);
  });

  it("hand it over when that one crashes, and forget what it wanted", async () => {
    const [first, second] = [tab(), tab()];
    await settle();
    last().greet({ cursor: "c1" });
    await settle();
    first.client.task("foreign").subscribe(() => {});
    second.client.task("other").subscribe(() => {});
    await settle();
    assert.deepEqual(last().says("subscribe").map(({ task_id }) => task_id), ["foreign", "other"]);
    // Nothing is said, and nothing more is heard of it.
    const [channel] = FakeChannel.all;
    FakeChannel.all.delete(channel);
    last().readyState = 3;
    locks.drop((name) => name === firstLock());
    await settle();
    assert.equal(sockets.length, 2);
    last().greet({ resumed: true });
    assert.deepEqual(last().says("subscribe").map(({ task_id }) => task_id), ["other"]);
    assert.equal(second.state(), "live");
  });

  it("subscribe to what any of them wants, for as long as one does", async () => {
    const [first, second] = [tab(), tab()];
    await settle();
    last().greet();
    await settle();
    const stops = [first, second].map(({ client }) => client.task("foreign").subscribe(() => {}));
    await settle();
    assert.equal(last().says("subscribe").length, 1);
    stops[0]();
    await pass(11_000);
    assert.equal(last().says("unsubscribe").length, 0);
    stops[1]();
    await pass(11_000);
    assert.equal(last().says("unsubscribe").length, 1);
  });

  it("may cancel from any of them", async () => {
    const [, second] = [tab(), tab()];
    await settle();
    last().greet();
    await settle();
    const cancelled = second.client.task("t1").cancel();
    await settle();
    last().answer("cancel_task", { type: "task_cancelled", task_id: "t1", success: true });
    assert.equal(await cancelled, true);
    const refused = second.client.task("t1").cancel();
    await settle();
    last().answer("cancel_task", { type: "error", error_code: "FORBIDDEN", message: "no" });
    await assert.rejects(refused, { code: "FORBIDDEN" });
  });

  it("drop what a crashed one wanted once its lock is gone", async () => {
    const [, second] = [tab(), tab()];
    await settle();
    last().greet();
    await settle();
    second.client.task("foreign").subscribe(() => {});
    await settle();
    const [, channel] = FakeChannel.all;
    FakeChannel.all.delete(channel);
    const shared = firstLock();
    const own = [...locks.held.keys()].filter((name) => name !== shared);
    locks.drop((name) => name === own[1]);
    for (let turn = 0; turn < 3; turn += 1) {
      await pass(20_000);
      last().tell({ type: "pong" });
    }
    assert.deepEqual(last().says("unsubscribe").map(({ task_id }) => task_id), ["foreign"]);
  });

  it("do not share with those of another address or another person", async () => {
    tab();
    tab({ url: "https://other.test" });
    tab({ shareAcrossTabs: "u2" });
    await settle();
    assert.equal(open().length, 3);
  });

  it("each have their own connection where the browser cannot share", async () => {
    globalThis.navigator.locks = undefined;
    tab();
    tab();
    await settle();
    assert.equal(open().length, 2);
  });
});

/** The lock that the leader holds: the shortest name of them. */
const firstLock = () => [...locks.held.keys()].sort((a, b) => a.length - b.length)[0];
