// Several tabs of one browser: one connection, and a hand-over that loses nothing.

import assert from "node:assert/strict";
import { beforeEach, describe, it, mock } from "node:test";

import { TaskcastClient } from "../src/index.js";
import { browse, frame, last, open, pass, settle, sleep, sockets, task } from "./support.mjs";

/** Web Locks as the standard has them, as far as they are used. */
function fakeLocks() {
  const held = new Map();
  const queues = new Map();
  const grant = (name, next = queues.get(name)?.shift()) => {
    if (!next) return held.delete(name);
    held.set(name, next);
    next.isGranted = true;
    const leave = (settle) => (value) => { settle(value); if (held.get(name) === next) grant(name); };
    Promise.resolve().then(() => next.callback({ name })).then(leave(next.resolve), leave(next.reject));
    return undefined;
  };
  const robbed = [];
  return {
    held,
    /** Whose page stands still hears it later. */
    tellRobbed: () => robbed.splice(0).forEach((reject) => reject(new Error("stolen"))),
    request: (name, { signal, steal = false }, callback) => new Promise((resolve, reject) => {
      const entry = { callback, resolve, reject, isGranted: false };
      if (steal) {
        robbed.push(held.get(name)?.reject);
        return grant(name, entry);
      }
      queues.set(name, [...(queues.get(name) ?? []), entry]);
      signal.addEventListener("abort", () => {
        if (entry.isGranted) return;
        queues.set(name, queues.get(name).filter((other) => other !== entry));
        reject(signal.reason);
      });
      return held.has(name) ? undefined : grant(name);
    }),
    query: async () => ({ held: [...held.keys()].map((name) => ({ name })) }),
  };
}

/** Tabs hear each other in order, each a little later, and a busy one when it gets round to it: locks do not wait for that. */
class FakeChannel {
  static all = new Set();
  #queue = [];
  #isBusy = false;
  constructor(name) {
    this.name = name;
    FakeChannel.all.add(this);
  }
  postMessage(data) {
    if (!FakeChannel.all.has(this) || this.isMute) return;
    for (const other of FakeChannel.all) if (other !== this && other.name === this.name) other.#take(structuredClone(data));
  }
  #take(data) {
    this.#queue.push(data);
    Promise.resolve().then(() => this.#work());
  }
  #work() {
    if (!this.#isBusy && this.#queue.length > 0 && FakeChannel.all.has(this)) this.onmessage({ data: this.#queue.shift() });
  }
  set isBusy(isBusy) {
    this.#isBusy = isBusy;
    for (let left = this.#queue.length; left > 0; left -= 1) this.#work();
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
  const leave = client.connect();
  const channel = [...FakeChannel.all].at(-1);
  return {
    client, leave, channel, progress: (id) => client.task(id).current?.progress, state: () => client.connection.current.state,
    /** Nothing is said, nothing more is heard, and its locks are free. */
    crash() {
      FakeChannel.all.delete(channel);
      client.close();
    },
    /** Its locks stay. */
    freeze(isFrozen) { channel.isBusy = channel.isMute = isFrozen; },
  };
};

/** Time goes on, and the service keeps answering. */
async function beat(ms) {
  for (let left = ms; left > 0; left -= 20_000) {
    await pass(Math.min(left, 20_000));
    last().tell({ type: "pong" });
    await settle();
  }
}

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

  it("say of a list that it is complete, and of a task that there is none, when the service said so, in every tab", async () => {
    const [first, second] = [tab(), tab()];
    await settle();
    last().greet();
    const lists = [first, second].map(({ client }) => client.tasks({ root: "r" }));
    const tasks = [first, second].map(({ client }) => client.task("none"));
    for (const handle of [...lists, ...tasks]) handle.subscribe(() => {});
    await settle();
    const shown = () => [lists.map(({ isComplete }) => isComplete), tasks.map(({ current }) => current)];
    assert.deepEqual(shown(), [[false, false], [undefined, undefined]]);
    for (const type of ["subscribe", "get_task_status"]) for (const { id } of last().says(type)) last().tell({ id, type: "task_status", task: null });
    last().answer("ping", { type: "pong" });
    await settle();
    assert.deepEqual(shown(), [[true, true], [null, null]]);
    // One that comes later hears what the others were answered; nobody asks again.
    const late = tab();
    const asked = [late.client.tasks({ root: "r" }), late.client.task("none")];
    for (const handle of asked) handle.subscribe(() => {});
    await settle();
    assert.deepEqual([asked[0].isComplete, asked[1].current, last().says("subscribe").length], [true, null, 2]);
    // The next connection has not been answered yet, in whichever tab it is.
    first.client.close();
    await settle();
    last().greet({ resumed: true });
    await settle();
    assert.deepEqual([lists[1].isComplete, asked[0].isComplete], [false, false]);
    for (const { id } of last().says("subscribe")) last().tell({ id, type: "subscribed" });
    await settle();
    last().answer("ping", { type: "pong" });
    await settle();
    assert.deepEqual([lists[1].isComplete, asked[0].isComplete], [true, true]);
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
    first.crash();
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
    second.crash();
    await beat(60_000);
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

describe("what one of the tabs that share", () => {
  /** Two tabs, of which the first leads. */
  async function pair(greeting = {}, options = {}) {
    const tabs = [tab(options), tab(options)];
    await settle();
    last().greet(greeting);
    await settle();
    return tabs;
  }
  const foreign = (more) => frame("f", { user_id: "u2", ...more });

  it("needs no more is kept for those who do, and for those who come", async () => {
    for (const who of [0, 1]) {
      const tabs = await pair();
      const [stop] = [tabs[who], tabs[1 - who]].map(({ client }) => client.task("f").subscribe(() => {}));
      await settle();
      last().tell(foreign({ progress: 40 }));
      await settle();
      stop();
      await beat(70_000);
      const done = tabs[who].client.task("f").done();
      const late = tab();
      await settle();
      assert.deepEqual([...tabs, late].map((one) => one.progress("f")), [40, 40, 40]);
      last().tell(foreign({ status: "succeeded" }));
      assert.equal((await done).status, "succeeded");
      for (const { client } of [...tabs, late]) client.close();
    }
  });

  it("knows not to be there is known to those who come", async () => {
    const [first] = await pair();
    first.client.task("later").subscribe(() => {});
    await settle();
    last().answer("get_task_status", { type: "task_status", task_id: "later", task: null });
    const late = tab();
    late.client.task("later").subscribe(() => {});
    await settle();
    assert.equal(late.client.task("later").current, null);
    last().tell(frame("later", { user_id: "u2" }));
    await settle();
    assert.equal(late.client.task("later").current.status, "running");
  });

  it("alone needed is forgotten in all of them when it goes, or crashes with the connection", async () => {
    for (const way of ["close", "crash"]) {
      for (const who of [0, 1]) {
        const tabs = await pair({ tasks: [task("mine")] });
        const [gone, ...rest] = [tabs[who], tabs[1 - who], tab()];
        const lists = rest.map(({ client }) => client.tasks());
        for (const list of lists) list.subscribe(() => {});
        gone.client.task("f").subscribe(() => {});
        await settle();
        last().tell(foreign({ progress: 40 }));
        await settle();
        assert.deepEqual(lists.map((list) => list.current.length), [2, 2]);
        if (way === "crash") gone.crash();
        else gone.client.close();
        await settle();
        if (who === 0) last().greet({ resumed: true });
        await beat(70_000);
        for (const list of lists) assert.deepEqual(list.current.map(({ task_id: id }) => id), ["mine"], `${way} ${who}`);
        for (const { client } of rest) client.close();
      }
    }
  });

  it("missed of a leader that said no goodbye it takes from the next one", async () => {
    const [first, second, third] = [tab(), tab(), tab()];
    await settle();
    last().greet({ tasks: [task("t1", { progress: 10 })], cursor: "c1" });
    await settle();
    const { onmessage } = third.channel;
    third.channel.onmessage = () => {};
    last().tell(frame("t1", { progress: 20, cursor: "c2" }));
    await settle();
    third.channel.onmessage = onmessage;
    first.crash();
    await settle();
    assert.equal(last().url.searchParams.get("cursor"), "c2");
    assert.deepEqual([second, third].map((one) => one.progress("t1")), [20, 20]);
  });

  it("saw as somebody else is not shown to the person of the next one", async () => {
    for (const token of ["opaque", `x.${btoa('{"sub":"u1"}')}.x`]) {
      const first = tab({ getToken: () => token });
      const second = tab({ getToken: () => token.replace(btoa('{"sub":"u1"}'), btoa('{"sub":"u2"}')) });
      await settle();
      last().greet({ tasks: [task("secret")], cursor: "c1" });
      await settle();
      assert.equal(second.client.tasks().current.length, 1);
      first.client.close();
      await settle();
      if (token === "opaque") {
        last().greet({ resumed: true, user_id: "u2" });
        await pass(1_500);
      }
      assert.equal(last().url.searchParams.get("cursor"), null);
      last().greet({ user_id: "u2" });
      await settle();
      assert.deepEqual([second.state(), second.client.tasks().current, second.client.connection.current.userId], ["live", [], "u2"]);
      second.client.close();
    }
  });

  it("has heard late never turns back what another knows", async () => {
    const [first, second, third] = [tab(), tab(), tab()];
    await settle();
    last().greet({ tasks: [task("t1", { progress: 90 })], cursor: "c1" });
    await settle();
    const seen = [];
    third.client.task("t1").on("update", ({ status }) => seen.push(status));
    second.channel.isBusy = true;
    last().tell(frame("t1", { progress: 100, status: "succeeded", cursor: "c2" }));
    await settle();
    first.client.close();
    await settle();
    second.channel.isBusy = false;
    await settle();
    assert.equal(last().url.searchParams.get("cursor"), "c1");
    last().greet({ resumed: true, cursor: "c1" });
    last().tell(frame("t1", { progress: 100, status: "succeeded", cursor: "c2" }));
    await settle();
    assert.deepEqual(seen, ["succeeded"]);
    assert.deepEqual([second, third].map(({ client }) => client.task("t1").current.status), ["succeeded", "succeeded"]);
    assert.deepEqual([second.state(), third.state()], ["live", "live"]);
  });

  it("finds in the middle of a snapshot goes with it for all", async () => {
    const [first] = await pair({ tasks: [task("old"), task("kept")] });
    last().end(1006);
    await pass(2_500);
    last().open();
    last().tell({ type: "connection_established", user_id: "u1", resumed: false, heartbeat_interval_ms: 25_000 });
    last().tell({ type: "active_tasks", tasks: [task("kept")], cursor: "c1", more: true });
    const late = tab();
    await settle();
    assert.equal(late.client.tasks().current.length, 2);
    last().tell({ type: "active_tasks", tasks: [task("new")], cursor: "c2", more: false });
    await settle();
    await pass(5_000);
    for (const { client } of [first, late]) assert.deepEqual(client.tasks().current.map(({ task_id: id }) => id).sort(), ["kept", "new"]);
  });

  it("holds while its page stands still is taken over, and given back to none when it moves again", async () => {
    const [first, second] = await pair({ tasks: [task("t1", { progress: 1 })], cursor: "c1" });
    const third = tab();
    await settle();
    const [old] = sockets;
    let drawn = 0;
    mock.method(Math, "random", () => (drawn += 0.37) % 1);
    first.freeze(true);
    await beat(60_000);
    await pass(15_000);
    assert.equal(last().url.searchParams.get("cursor"), "c1");
    last().greet({ resumed: true });
    await beat(10_000);
    assert.equal(sockets.length, 2, "by one of the others, and not by each");
    first.freeze(false);
    locks.tellRobbed();
    await settle();
    assert.equal(old.readyState, 3);
    last().tell(frame("t1", { progress: 2, cursor: "c2" }));
    await settle();
    assert.deepEqual([first, second, third].map((one) => [one.state(), one.progress("t1")]), Array(3).fill(["live", 2]));
    await beat(10 * 60_000);
    assert.equal(open().length, 1);
  });

  it("has is not taken from it because the machine slept", async () => {
    const [first, second] = await pair();
    first.freeze(true);
    second.client.retry();
    await settle();
    await sleep(30_000);
    first.freeze(false);
    last().tell({ type: "pong" });
    await beat(20_000);
    assert.deepEqual([first, second].map((one) => one.state()), ["live", "live"]);
    assert.equal(sockets.length, 1);
  });

  it("asks for, to begin anew, is done also when nobody leads", async () => {
    const [first, second] = await pair({ tasks: [task("t1")], cursor: "c1" });
    second.channel.isBusy = true;
    first.client.close();
    second.channel.isBusy = false;
    second.client.restart();
    await settle();
    assert.equal(last().url.searchParams.get("cursor"), null);
    assert.equal(second.client.tasks().current.length, 0);
  });

  it("keeps in the back/forward cache does not keep it from starting again", async () => {
    const page = browse();
    page.navigator.locks = locks;
    const { client, leave } = tab();
    await settle();
    page.fire("pagehide");
    leave();
    await pass(6_000);
    assert.equal(open().length, 0);
    client.connect();
    await settle();
    assert.equal(open().length, 1);
  });
});
