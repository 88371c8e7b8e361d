// What a page sees of its tasks, whatever the connection goes through.

import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { beforeEach, describe, it } from "node:test";

import { LINGER_MS } from "../src/client.js";
import { TaskcastClient, TaskcastError, TaskError } from "../src/index.js";
import { Store } from "../src/store.js";
import { browse, frame, last, open, pass, root, settle, sockets, task, vector } from "./support.mjs";

beforeEach(() => { browse(); });

async function connected(options = {}, greeting = {}) {
  const client = new TaskcastClient({ transports: ["websocket"], ...options });
  client.connect();
  await settle();
  last().greet(greeting);
  return client;
}

describe("messages", () => {
  it("of the contract are all taken, and those of later versions are passed over", async () => {
    const client = await connected();
    for (const name of readdirSync(join(root, "proto/vectors/server"))) {
      const message = vector(name.replace(".json", ""));
      // How a connection begins and ends has tests of its own.
      if (!["authentication_error", "connection_established"].includes(message.type)) last().tell(message);
    }
    last().tell({ type: "of_a_later_version" });
    last().onmessage({ data: "{" });
    last().onmessage({ data: "null" });
    assert.equal(open().length, 1);
    // The last one of a snapshot says how the connection is.
    assert.ok(["live", "degraded", "connecting"].includes(client.connection.current.state));
  });

  it("carry the whole state of a task, without what belongs to the frame", async () => {
    const client = await connected();
    const { type, timestamp, cursor, ...state } = vector("frame-full");
    last().tell(vector("frame-full"));
    assert.deepEqual(client.task("task-1").current, state);
    assert.ok(Object.isFrozen(client.task("task-1").current));
    last().end(1006);
    await pass(1_000);
    assert.equal(last().url.searchParams.get("cursor"), cursor);
    assert.ok(type && timestamp);
  });

  it("are told one at a time to who watches all of them, whatever another listener does", async () => {
    const client = await connected({}, { tasks: [task("t1")] });
    const [reported, told] = [[], []];
    globalThis.reportError = (error) => reported.push(error.message);
    client.watch(() => { throw new Error("broken"); });
    const stop = client.watch((id, now, before) => told.push([id, now?.progress, before?.progress]));
    last().tell(frame("t1", { progress: 1 }));
    last().tell(frame("t1", { progress: 1 }));
    last().tell(frame("t2", { progress: 5 }));
    last().tell({ type: "task_removed", task_id: "t1", cursor: "c2" });
    assert.deepEqual(told, [["t1", 1, undefined], ["t2", 5, undefined], ["t1", undefined, 1]]);
    assert.deepEqual([reported, client.tasks().current.length], [["broken", "broken", "broken"], 1]);
    stop();
    last().tell(frame("t2", { progress: 6 }));
    assert.equal(told.length, 3);
    delete globalThis.reportError;
  });

  it("that tell nothing new change nothing", async () => {
    const client = await connected({}, { tasks: [task("t1", { metadata: { a: [1, { b: 2 }] } })] });
    let updates = 0;
    client.task("t1").on("update", () => (updates += 1));
    const before = client.task("t1").getSnapshot();
    last().tell(frame("t1", { metadata: { a: [1, { b: 2 }] }, cursor: "c2" }));
    assert.equal(updates, 0);
    assert.equal(client.task("t1").getSnapshot(), before);
    last().tell(frame("t1", { metadata: { a: [1, { b: 3 }] } }));
    assert.equal(updates, 1);
  });
});

describe("a snapshot", () => {
  it("replaces everything, and what it keeps never disappears meanwhile", async () => {
    const client = await connected({}, { tasks: [task("t1", { progress: 60 }), task("t2")] });
    const seen = [];
    client.task("t1").on("update", (now) => seen.push(now?.progress));
    last().end(1006);
    await pass(1_000);
    last().greet({ resume_failure: "trimmed", tasks: [task("t1", { progress: 70 })] });
    assert.deepEqual(seen, [70]);
    assert.equal(client.task("t2").current, null);
  });

  it("comes in pages, and what a broken one did not reach comes after the cursor", async () => {
    const client = await connected({}, { tasks: [task("t1"), task("t2"), task("gone")] });
    last().end(1006);
    await pass(1_000);
    last().open();
    last().tell({ type: "connection_established", resumed: false, user_id: "u1", cursor: null });
    last().tell({ type: "active_tasks", tasks: [task("t1")], cursor: "half", more: true });
    assert.equal(client.connection.current.state, "connecting");
    last().end(1006);
    await pass(3_000);
    assert.equal(last().url.searchParams.get("cursor"), "half");
    last().greet({ resumed: true, cursor: "half" });
    last().tell(frame("t2", { progress: 5 }));
    assert.equal(client.task("t1").current.task_id, "t1");
    assert.equal(client.task("t2").current.progress, 5);
    await pass(3_000);
    assert.equal(client.task("gone").current, undefined);
  });

  it("that breaks off takes nothing away meanwhile, and whether the rest is still there is asked of what is held", async () => {
    const client = await connected({}, { tasks: [task("t1"), task("t2"), task("gone")] });
    const list = client.tasks();
    list.subscribe(() => {});
    const outcome = client.task("gone").done().catch(({ code }) => code);
    last().end(1006);
    await pass(1_000);
    last().open();
    last().tell({ type: "connection_established", resumed: false, user_id: "u1", cursor: null });
    last().tell({ type: "active_tasks", tasks: [task("t1")], cursor: "half", more: true });
    last().end(1006);
    await pass(100);
    assert.equal(list.current.length, 3);
    await pass(3_000);
    last().greet({ resumed: true, cursor: "half" });
    assert.equal(list.current.length, 3);
    last().tell(frame("t2", { progress: 5 }));
    await pass(2_100);
    assert.deepEqual(last().says("get_task_status").map(({ task_id }) => task_id), ["gone"]);
    last().answer("get_task_status", { type: "task_status", task_id: "gone", task: null });
    assert.equal(await outcome, "REMOVED");
    await pass(100);
    assert.deepEqual(list.current.map(({ task_id }) => task_id), ["t1", "t2"]);
  });

  it("does not take away what the service is slow to tell of", async () => {
    const client = await connected();
    let outcome = "pending";
    client.task("foreign").done().then(() => (outcome = "done"), ({ code }) => (outcome = code));
    last().tell(frame("foreign", { user_id: "u2", progress: 40 }));
    last().end(1006);
    await pass(3_000);
    last().greet();
    await pass(20_000);
    assert.deepEqual([outcome, client.task("foreign").current.progress], ["pending", 40]);
    last().tell(frame("foreign", { user_id: "u2", status: "succeeded" }));
    await settle();
    assert.equal(outcome, "done");
  });

  it("is not settled by what was left of the one before", async () => {
    const client = await connected({}, { tasks: [task("a"), task("b")] });
    const list = client.tasks();
    list.subscribe(() => {});
    last().end(1006);
    await pass(1_000);
    last().greet({ tasks: [task("a"), task("b")] });
    await pass(200);
    last().end(1006);
    await pass(1_600);
    last().open();
    last().tell({ type: "connection_established", resumed: false, user_id: "u1", cursor: null });
    last().tell({ type: "active_tasks", tasks: [task("a")], cursor: "half", more: true });
    await pass(3_000);
    assert.equal(list.current.length, 2);
  });

  it("may begin at any time", async () => {
    const client = await connected({}, { tasks: [task("t1"), task("t2")] });
    last().tell({ type: "active_tasks", reset: "another_log", tasks: [task("t2")], cursor: "n", more: false });
    assert.deepEqual([client.task("t1").current, client.task("t2").current.task_id], [null, "t2"]);
  });

  it("does not take away for a moment what a subscription is about to tell", async () => {
    const client = await connected();
    const seen = [];
    client.task("foreign").on("update", (now) => seen.push(now));
    last().tell({ type: "active_tasks", tasks: [task("foreign", { user_id: "u9" })], cursor: "c1", more: false });
    last().end(1006);
    await pass(1_000);
    last().greet({ resume_failure: "trimmed" });
    assert.deepEqual(seen.map((now) => now?.task_id), ["foreign"]);
    // But if there is none, it is gone.
    last().answer("get_task_status", { type: "task_status", task_id: "foreign", task: null });
    assert.deepEqual(seen.map((now) => now?.task_id), ["foreign", undefined]);
  });
});

describe("a subscription", () => {
  it("is made for what the address does not show, and made again after a reconnect", async () => {
    const client = await connected({}, { tasks: [task("mine")] });
    client.task("mine").subscribe(() => {});
    client.task("foreign").subscribe(() => {});
    client.tasks({ root: "r1" }).subscribe(() => {});
    client.tasks({ tag: "nightly" }).subscribe(() => {});
    const expected = [{ task_id: "foreign" }, { root_id: "r1" }, { tag: "nightly" }];
    const asked = () => last().says("subscribe").map(({ type, id, ...selector }) => selector);
    assert.deepEqual(asked(), expected);
    last().end(1006);
    await pass(1_000);
    last().greet({ resumed: true });
    assert.deepEqual(asked(), expected);
  });

  it("is shared, kept for a while, and ended with its last listener", async () => {
    const client = await connected();
    const stops = [client.task("f").subscribe(() => {}), client.task("f").subscribe(() => {})];
    assert.equal(client.task("f"), client.task("f"));
    last().tell({ type: "active_tasks", tasks: [task("f", { user_id: "u9" })], cursor: "c1", more: false });
    stops[0]();
    await pass(LINGER_MS * 2);
    assert.equal(last().says("unsubscribe").length, 0);
    stops[1]();
    await pass(LINGER_MS - 100);
    assert.equal(client.task("f").current.task_id, "f");
    const again = client.task("f").subscribe(() => {});
    await pass(LINGER_MS);
    assert.equal(last().says("subscribe").length, 1);
    again();
    await pass(LINGER_MS + 100);
    assert.deepEqual(last().says("unsubscribe").map(({ task_id }) => task_id), ["f"]);
    // Nobody keeps it up to date any more.
    assert.equal(client.task("f").current, undefined);
  });

  it("of one group in two lists stays until both are gone", async () => {
    const client = await connected();
    const [all, active] = [client.tasks({ root: "r" }), client.tasks({ root: "r", status: "active" })];
    const stops = [all.subscribe(() => {}), active.subscribe(() => {})];
    assert.equal(last().says("subscribe").length, 1);
    last().answer("subscribe", { type: "subscribed", root_id: "r" });
    last().answer("ping", { type: "pong" });
    const late = client.tasks({ root: "r", limit: 3 });
    late.subscribe(() => {})();
    assert.deepEqual([all.isComplete, active.isComplete, late.isComplete], [true, true, true]);
    stops[1]();
    await pass(LINGER_MS * 2);
    assert.equal(last().says("unsubscribe").length, 0);
    stops[0]();
    await pass(LINGER_MS * 2);
    assert.equal(last().says("unsubscribe").length, 1);
  });

  it("is told to each who holds it, also where two were made of one task", async () => {
    const client = await connected();
    for (const make of [() => client.task("f"), () => client.tasks({ status: "active" })]) {
      const first = make();
      await pass(LINGER_MS * 2);
      const second = make();
      assert.notEqual(first, second);
      const told = [];
      const stop = first.subscribe(() => told.push("first"));
      second.subscribe(() => told.push("second"));
      stop();
      last().tell(frame("f", { progress: Math.random(), message: `${told.length}${make}` }));
      await pass(20);
      assert.deepEqual(told, ["second"]);
    }
  });

  it("of a token to share is not taken back: the address may be about that very task", async () => {
    const client = await connected({}, { user_id: null });
    const stop = client.task("t1").subscribe(() => {});
    last().tell(frame("t1"));
    stop();
    await pass(LINGER_MS * 2);
    assert.equal(last().says("unsubscribe").length, 0);
    assert.equal(client.task("t1").current.task_id, "t1");
  });

  it("to what the service does not know tells so, and of the task once it is there", async () => {
    const client = await connected();
    const handle = client.task("later");
    handle.subscribe(() => {});
    assert.equal(handle.current, undefined);
    last().answer("subscribe", { type: "subscribed", task_id: "later" });
    last().answer("get_task_status", { type: "task_status", task_id: "later", task: null });
    await settle();
    assert.equal(handle.current, null);
    last().tell(frame("later", { user_id: "u9" }));
    assert.equal(handle.current.task_id, "later");
  });

  it("to what was not there when it was asked for takes the frame right behind that answer", async () => {
    const client = await connected();
    const done = client.task("later").done();
    last().answer("get_task_status", { type: "task_status", task_id: "later", task: null });
    last().tell(frame("later", { progress: 1 }));
    last().tell(frame("later", { status: "succeeded" }));
    assert.equal(client.task("later").current.status, "succeeded");
    assert.equal((await done).status, "succeeded");
  });

  it("that is refused says why, and only where it was made", async () => {
    const client = await connected();
    const list = client.tasks({ root: "secret" });
    list.subscribe(() => {});
    last().answer("subscribe", { type: "error", error_code: "FORBIDDEN", message: "the token does not allow this subscription" });
    await settle();
    assert.equal(list.error.code, "FORBIDDEN");
    assert.equal(client.connection.current.state, "live");
  });

  it("that is refused for a while says so for a while, and is complete only when it was answered", async () => {
    const client = await connected();
    const [handle, list] = [client.task("f"), client.tasks({ root: "r" })];
    const complete = [];
    list.subscribe(() => complete.push(list.isComplete));
    handle.subscribe(() => {});
    assert.equal(list.isComplete, false);
    last().answer("subscribe", { type: "error", error_code: "UNAVAILABLE", message: "later" });
    const { id } = last().says("subscribe")[0];
    last().tell({ type: "error", id, error_code: "UNAVAILABLE", message: "later" });
    assert.deepEqual([handle.error.code, list.error.code, list.isComplete], ["UNAVAILABLE", "UNAVAILABLE", false]);
    last().end(1006);
    await pass(3_000);
    last().greet({ resumed: true });
    assert.equal(list.isComplete, false);
    for (const { id } of last().says("subscribe")) last().tell({ type: "subscribed", id });
    last().answer("ping", { type: "pong" });
    assert.deepEqual([handle.error, list.error, list.isComplete, complete.at(-1)], [null, null, true, true]);
    const done = handle.done();
    last().tell(frame("f", { user_id: "u2", status: "succeeded" }));
    assert.equal((await done).status, "succeeded");
  });

  it("to a group is complete once all that there is of it was told, and not before", async () => {
    const client = await connected();
    const [many, none] = [client.tasks({ root: "many" }), client.tasks({ root: "none" })];
    const told = [];
    many.subscribe(() => told.push([many.current.length, many.isComplete]));
    last().answer("subscribe", { type: "subscribed", root_id: "many" });
    assert.equal(many.isComplete, false);
    last().tell({ type: "active_tasks", tasks: [task("a", { root_id: "many" })], cursor: "c1", more: true });
    last().answer("ping", { type: "pong" });
    assert.equal(many.isComplete, false);
    last().tell({ type: "active_tasks", tasks: [task("b", { root_id: "many" })], cursor: "c1", more: false });
    assert.deepEqual([many.isComplete, told.at(-1)], [true, [2, true]]);
    // Of what there is nothing of, no page tells.
    none.subscribe(() => {});
    last().answer("subscribe", { type: "subscribed", root_id: "none" });
    assert.equal(none.isComplete, false);
    last().answer("ping", { type: "pong" });
    assert.deepEqual([none.isComplete, none.current.length], [true, 0]);
    // On the next connection it is asked again.
    last().end(1006);
    await pass(3_000);
    last().greet({ resumed: true });
    assert.deepEqual([many.isComplete, none.isComplete], [false, false]);
  });

  it("that a fresh token does not allow ends with an error, and comes back with the right", async () => {
    const client = await connected();
    const list = client.tasks({ root: "r" });
    list.subscribe(() => {});
    last().answer("subscribe", { type: "subscribed", root_id: "r" });
    last().answer("ping", { type: "pong" });
    assert.equal(list.isComplete, true);
    last().tell({ type: "unsubscribed", root_id: "another" });
    assert.equal(list.error, null);
    last().tell({ type: "unsubscribed", root_id: "r" });
    assert.deepEqual([list.error.code, list.isComplete], ["FORBIDDEN", false]);
    last().tell({ type: "active_tasks", reset: "rights_changed", tasks: [], cursor: "c5", more: false });
    last().answer("subscribe", { type: "subscribed", root_id: "r" });
    last().answer("ping", { type: "pong" });
    assert.deepEqual([list.error, list.isComplete], [null, true]);
  });

  it("beyond the limit is tried again when another one has gone", async () => {
    const client = await connected();
    const stop = client.task("a").subscribe(() => {});
    last().answer("subscribe", { type: "subscribed", task_id: "a" });
    client.task("b").subscribe(() => {});
    last().answer("subscribe", { type: "error", error_code: "LIMIT_REACHED", message: "full" });
    assert.equal(client.task("b").error.code, "LIMIT_REACHED");
    stop();
    await pass(LINGER_MS * 2);
    assert.deepEqual(last().says("subscribe").map(({ task_id }) => task_id), ["a", "b", "b"]);
    last().answer("subscribe", { type: "subscribed", task_id: "b" });
    assert.equal(client.task("b").error, null);
  });

  it("beyond what the service says that it takes is not asked for", async () => {
    const client = await connected({}, { limits: { subscriptions_max: 3 } });
    const stops = ["a", "b", "c", "d", "e"].map((id) => client.task(id).subscribe(() => {}));
    const asked = () => last().says("subscribe").map(({ task_id }) => task_id).join("");
    assert.deepEqual([asked(), client.task("d").error.code, client.task("c").error], ["abc", "LIMIT_REACHED", null]);
    stops[0]();
    await pass(LINGER_MS * 2);
    assert.equal(asked(), "abcd");
    last().answer("subscribe", { type: "subscribed", task_id: "d" });
    assert.deepEqual([client.task("d").error, client.task("e").error.code], [null, "LIMIT_REACHED"]);
  });

  it("waits its turn where there are very many", async () => {
    const client = await connected();
    const ids = Array.from({ length: 1_200 }, (_, index) => `f${index}`);
    for (const id of ids) client.task(id).subscribe(() => {});
    assert.ok(last().sent.length <= 200, `${last().sent.length}`);
    for (let at = 0; at < last().sent.length; at += 1) {
      const { id, type, task_id } = last().sent[at];
      last().tell(type === "subscribe" ? { type: "subscribed", id, task_id } : { type: "task_status", id, task_id, task: null });
    }
    assert.deepEqual(last().says("subscribe").map(({ task_id }) => task_id), ids);
    assert.deepEqual(ids.filter((id) => client.task(id).error), []);
  });

  it("is made for what was shown to the one before, when somebody else signs in", async () => {
    const client = await connected({}, { tasks: [task("t")] });
    client.task("t").subscribe(() => {});
    assert.equal(last().says("subscribe").length, 0);
    client.restart();
    await settle();
    last().greet({ user_id: "u2" });
    assert.deepEqual(last().says("subscribe").map(({ task_id }) => task_id), ["t"]);
  });

  it("that finds no task any more leaves an end as it was told, behind a resume", async () => {
    for (const [resumed, status, left] of [[true, "succeeded", "succeeded"], [true, "running", undefined], [false, "succeeded", undefined]]) {
      browse();
      const client = await connected();
      const handle = client.task("f");
      handle.subscribe(() => {});
      last().tell(frame("f", { user_id: "u2", status }));
      last().end(1006);
      await pass(3_000);
      last().greet({ resumed });
      last().answer("get_task_status", { type: "task_status", task_id: "f", task: null });
      assert.equal(handle.current?.status, left);
    }
  });

  it("leaves no word behind that there is no such task", async () => {
    const client = await connected();
    const stop = client.task("f").subscribe(() => {});
    last().answer("get_task_status", { type: "task_status", task_id: "f", task: null });
    assert.equal(client.task("f").current, null);
    stop();
    await pass(LINGER_MS * 2);
    assert.equal(client.task("f").current, undefined);
  });

  it("beyond the limit takes the place of one that turned out to be needless", async () => {
    const client = await connected();
    client.task("new").subscribe(() => {});
    last().answer("subscribe", { type: "subscribed" });
    last().tell(frame("new"));
    client.task("foreign").subscribe(() => {});
    last().answer("subscribe", { type: "error", error_code: "LIMIT_REACHED", message: "full" });
    await settle();
    assert.deepEqual(last().says("unsubscribe").map(({ task_id }) => task_id), ["new"]);
    assert.deepEqual(last().says("subscribe").map(({ task_id }) => task_id), ["new", "foreign", "foreign"]);
    assert.equal(client.task("foreign").error, null);
  });
});

describe("the end of a task", () => {
  it("resolves when it succeeded, whenever somebody asks", async () => {
    const client = await connected({}, { tasks: [task("before", { status: "succeeded", result: 1 })] });
    const exactly = client.task("exactly").done();
    const after = client.task("after").done();
    assert.equal((await client.task("before").done()).result, 1);
    last().tell(frame("exactly", { status: "succeeded" }));
    assert.equal((await exactly).status, "succeeded");
    last().end(1006);
    await pass(1_000);
    last().greet({ resumed: true });
    last().tell(frame("after", { status: "succeeded" }));
    assert.equal((await after).status, "succeeded");
  });

  it("rejects with the status and the task when it ended otherwise", async () => {
    const client = await connected();
    for (const status of ["failed", "cancelled", "timed_out", "expired", "lost"]) {
      const done = client.task(status).done();
      last().tell(frame(status, { status, error: { message: "disk full" } }));
      await assert.rejects(done, (error) =>
        error instanceof TaskError && error.code === status && error.message === "disk full" && error.task.task_id === status);
    }
  });

  it("rejects when nobody will tell of it any more", async () => {
    const client = await connected();
    const abort = new AbortController();
    const aborted = client.task("a").done({ signal: abort.signal });
    abort.abort(new Error("enough"));
    await assert.rejects(aborted, /enough/);
    await assert.rejects(client.task("a").done({ signal: AbortSignal.abort(new Error("before")) }), /before/);
    const removed = client.task("b").done();
    last().tell(frame("b"));
    last().tell({ type: "task_removed", task_id: "b" });
    await assert.rejects(removed, { code: "REMOVED" });
    const refused = client.task("c").done();
    last().tell({ type: "authentication_error", error_code: "INVALID_TOKEN", message: "revoked" });
    last().end(4001);
    await assert.rejects(refused, { code: "INVALID_TOKEN" });
    const closed = (await connected()).task("d").done();
    await assert.rejects((async () => { const client = await connected(); const done = client.task("d").done(); client.close(); await done; })(), { code: "CLOSED" });
    assert.ok(closed instanceof Promise);
  });

  it("is not kept waiting for by listeners that stay behind", async () => {
    const client = new TaskcastClient();
    const done = client.task("t1").done();
    await settle();
    last().greet();
    last().tell(frame("t1", { status: "succeeded" }));
    await done;
    await pass(LINGER_MS);
    assert.equal(open().length, 0);
  });

  it("ends an iteration, which gives the newest state when it is asked", async () => {
    const client = await connected();
    const seen = [];
    const walk = (async () => {
      for await (const { progress, status } of client.task("t1")) {
        seen.push(`${status} ${progress}`);
        await settle();
      }
    })();
    await settle();
    last().tell(frame("t1", { progress: 1 }));
    await settle();
    await settle();
    last().tell(frame("t1", { progress: 2 }));
    last().tell(frame("t1", { progress: 3 }));
    await settle();
    await settle();
    last().tell(frame("t1", { status: "failed", progress: 3 }));
    await walk;
    assert.deepEqual(seen, ["running 1", "running 3", "failed 3"]);
  });
});

describe("an iteration", () => {
  const walk = async (handle) => { for await (const _ of handle); return "ended"; };

  it("fails when the task is taken away, or when the connection is closed to it, and not when the client is", async () => {
    const removed = walk((await connected({}, { tasks: [task("t1")] })).task("t1"));
    await settle();
    last().tell({ type: "task_removed", task_id: "t1" });
    await assert.rejects(removed, { code: "REMOVED" });
    const forbidden = walk((await connected()).task("t1"));
    await settle();
    last().end(4003);
    await assert.rejects(forbidden, { code: "CLOSED" });
    const client = await connected();
    const closed = walk(client.task("t1"));
    await settle();
    client.close();
    assert.equal(await closed, "ended");
  });
});

describe("cancelling", () => {
  it("connects for it where nothing else does, and is not waited for without end", async () => {
    const client = new TaskcastClient({ transports: ["websocket"] });
    const cancelled = client.task("t1").cancel();
    await settle();
    last().greet();
    await settle();
    last().answer("cancel_task", { type: "task_cancelled", task_id: "t1", success: true });
    assert.equal(await cancelled, true);
    const unanswered = client.task("t1").cancel();
    let outcome;
    unanswered.catch(({ code }) => (outcome = code));
    for (let turn = 0; turn < 4; turn += 1) {
      await pass(10_000);
      last().tell({ type: "pong" });
    }
    assert.equal(outcome, "CONNECTION_LOST");
    await pass(LINGER_MS * 2);
    assert.equal(open().length, 0);
  });

  it("is asked of the service, and says whether it was passed on", async () => {
    const client = await connected();
    const cancelled = client.task("t1").cancel();
    last().answer("cancel_task", { type: "task_cancelled", task_id: "t1", success: true });
    assert.equal(await cancelled, true);
    const forbidden = client.task("t1").cancel();
    last().answer("cancel_task", { type: "error", error_code: "FORBIDDEN", message: "no" });
    await assert.rejects(forbidden, (error) => error instanceof TaskcastError && error.code === "FORBIDDEN");
    const lost = client.task("t1").cancel();
    last().end(1006);
    await assert.rejects(lost, { code: "CONNECTION_LOST" });
    await assert.rejects(client.task("t1").cancel(), { code: "NOT_CONNECTED" });
  });
});

describe("a list", () => {
  const at = (second) => `2026-01-01T00:00:${String(second).padStart(2, "0")}.000Z`;

  it("holds what the query means, newest first, and is the same until it changes", async () => {
    const tasks = [task("a", { created_at: at(1) }), task("c", { created_at: at(3), name: "export" }), task("b", { created_at: at(2), status: "failed" })];
    const client = await connected({}, { tasks });
    const all = client.tasks();
    const names = (list) => list.current.map(({ task_id }) => task_id).join("");
    let told = 0;
    all.on("update", () => (told += 1));
    client.tasks({ status: "active" }).subscribe(() => {});
    assert.equal(names(all), "cba");
    assert.equal(all.getSnapshot(), all.getSnapshot());
    assert.equal(names(client.tasks({ status: "active" })), "ca");
    assert.equal(names(client.tasks({ status: ["ended"] })), "b");
    assert.equal(names(client.tasks({ name: "export" })), "c");
    assert.equal(names(client.tasks({ limit: 2 })), "cb");
    assert.equal(names(client.tasks({ filter: ({ task_id }) => task_id > "a" })), "cb");
    assert.equal(client.tasks({ limit: 2, name: "x" }), client.tasks({ name: "x", limit: 2 }));
    last().tell(frame("d", { created_at: at(4) }));
    last().tell(frame("a", { created_at: at(1), status: "succeeded" }));
    last().tell({ type: "task_removed", task_id: "c" });
    await pass(20);
    assert.equal(told, 1);
    assert.equal(names(all), "dba");
    assert.equal(names(client.tasks({ status: "active" })), "d");
  });

  it("stays right through thousands of changes in any order", async () => {
    const client = await connected();
    const lists = [client.tasks(), client.tasks({ status: "active" }), client.tasks({ tag: "odd" })];
    for (const list of lists) list.subscribe(() => {});
    let seed = 1;
    const draw = (below) => (seed = (seed * 48_271) % 2_147_483_647) % below;
    for (let turn = 0; turn < 4_000; turn += 1) {
      const id = `t${draw(300)}`;
      const status = ["running", "failed", "succeeded"][draw(3)];
      if (draw(10) === 0) last().tell({ type: "task_removed", task_id: id });
      else last().tell(frame(id, { status, progress: draw(100), created_at: at(draw(60)), tags: draw(2) ? ["odd"] : [] }));
    }
    const tasks = [...client.store.tasks.values()].sort((a, b) => (a.created_at === b.created_at ? (a.task_id < b.task_id ? -1 : 1) : a.created_at < b.created_at ? 1 : -1));
    assert.deepEqual(lists[0].current, tasks);
    assert.deepEqual(lists[1].current, tasks.filter(({ status }) => status === "running"));
    assert.deepEqual(lists[2].current, tasks.filter(({ tags }) => tags.includes("odd")));
    assert.ok(tasks.length > 100);
  });

  it("whose filter throws harms no other, and says so", async () => {
    const complaints = [];
    globalThis.reportError = (error) => complaints.push(error.constructor.name);
    const client = await connected();
    const [bad, good] = [client.tasks({ filter: ({ name }) => name.startsWith("x") }), client.tasks()];
    bad.subscribe(() => {});
    good.subscribe(() => {});
    last().tell(frame("a", { name: "xa" }));
    last().tell(frame("b", { progress: 1 }));
    last().tell(frame("b", { progress: 2, name: "xb" }));
    await pass(20);
    assert.deepEqual([good.current.map(({ progress }) => progress), bad.current.length], [[undefined, 2], 2]);
    assert.ok(complaints.length > 0 && complaints.every((name) => name === "TypeError"));
    assert.equal(client.connection.current.state, "live");
    delete globalThis.reportError;
  });

  it("that nobody listens to costs nothing with each change", async () => {
    const client = await connected({}, { tasks: [task("a", { progress: 0 })] });
    let calls = 0;
    for (let render = 0; render < 100; render += 1) client.tasks({ filter: () => (calls += 1) > 0 }).subscribe(() => {})();
    calls = 0;
    last().tell(frame("a", { progress: 1 }));
    assert.equal(calls, 0);
  });

  it("is right for whoever holds it, also when nobody listened for a while", async () => {
    const client = await connected();
    const list = client.tasks();
    await pass(LINGER_MS * 3);
    last().tell(frame("t1"));
    assert.equal(list.current.length, 1);
    let told = 0;
    list.on("update", () => (told += 1));
    last().tell(frame("t2"));
    await pass(20);
    assert.deepEqual([told, list.current.length], [1, 2]);
  });
});

describe("the store", () => {
  it("keeps no more than its limit, and live tasks longer than ended ones", () => {
    const store = new Store(3);
    store.apply(task("a"));
    store.apply(task("b", { status: "failed" }));
    for (const id of ["c", "d", "e"]) store.apply(task(id));
    assert.deepEqual([...store.tasks.keys()], ["c", "d", "e"]);
    for (let turn = 0; turn < 10; turn += 1) store.remove(`x${turn}`);
    assert.equal(store.get("x0"), undefined);
    assert.equal(store.get("x9"), null);
  });

  it("survives a listener that throws", async () => {
    const client = await connected();
    const complaints = [];
    globalThis.reportError = (error) => complaints.push(error.message);
    let told = 0;
    client.task("t1").subscribe(() => { throw new Error("my fault"); });
    client.task("t1").subscribe(() => (told += 1));
    last().tell(frame("t1"));
    assert.deepEqual([told, complaints], [1, ["my fault"]]);
    assert.equal(sockets.length, 1);
    delete globalThis.reportError;
  });
});
