// Server-sent events: their format, what answers mean, and when they take the place of a WebSocket.

import assert from "node:assert/strict";
import { beforeEach, describe, it } from "node:test";

import { TaskcastClient } from "../src/index.js";
import { SILENT_MS, TRIAL_MIN_MS } from "../src/connection.js";
import { parser } from "../src/sse.js";
import { browse, frame, last, open, pass, settle, sockets, task } from "./support.mjs";

/** Each request with what it was answered. */
let requests;
let answers;
let page;

beforeEach(() => {
  page = browse();
  requests = [];
  answers = [];
  globalThis.fetch = async (url, { headers, signal, credentials }) => {
    const request = { url: new URL(url), headers, signal, credentials };
    requests.push(request);
    const answer = answers.shift();
    if (answer instanceof Error) throw answer;
    if (answer) return answer;
    let feed;
    const body = new ReadableStream({ start: (controller) => { feed = controller; } });
    signal.addEventListener("abort", () => { try { feed.error(new DOMException("aborted", "AbortError")); } catch { /* it ended */ } });
    request.write = async (text) => {
      feed.enqueue(new TextEncoder().encode(text));
      await real();
    };
    request.tell = (message) => request.write(`id: ${message.cursor ?? ""}\ndata: ${JSON.stringify(message)}\n\n`);
    request.greet = async (greeting = {}) => {
      await request.tell({ type: "connection_established", user_id: "u1", resumed: false, heartbeat_interval_ms: 25_000, timestamp: new Date().toISOString(), ...greeting });
      if (!greeting.resumed) await request.tell({ type: "active_tasks", tasks: greeting.tasks ?? [], cursor: "c1", more: false });
    };
    request.end = async () => {
      feed.close();
      await real();
    };
    return new Response(body, { headers: { "content-type": "text/event-stream" } });
  };
});

/** Streams take turns of the real event loop. */
const real = async () => {
  for (let turn = 0; turn < 5; turn += 1) await new Promise((resolve) => setImmediate(resolve));
};

async function listening(options = {}) {
  const client = new TaskcastClient({ transports: ["sse"], getToken: () => "the-token", ...options });
  client.connect();
  await real();
  return client;
}

/** WebSockets fail until a stream is asked for. */
async function failing() {
  for (let turn = 0; turn < 3 && requests.length === 0; turn += 1) {
    await pass(1_500);
    if (last().readyState === 0) last().end(1006);
    await pass(4_000);
    await real();
  }
}

const quiet = { heartbeat_interval_ms: 10_000_000 };

/** Over server-sent events, as no WebSocket opened, until the first attempt beside them. */
async function tryingAgain(options = {}) {
  const client = await listening({ transports: ["websocket", "sse"], getToken: () => "t", ...options });
  for (let turn = 0; turn < 2; turn += 1) {
    last().end(1006);
    await pass(2_000);
    await real();
  }
  await requests[0].greet({ tasks: [task("t1", { progress: 1 })], ...quiet });
  const states = [];
  client.connection.on("update", ({ state, transport }) => states.push(`${state} ${transport}`));
  await pass(TRIAL_MIN_MS + 100);
  assert.deepEqual([sockets.length, requests.length], [3, 1]);
  return { client, states };
}

const refusal = (status, problem, headers = {}) => new Response(status === 204 ? null : JSON.stringify(problem), { status, headers: { "content-type": "application/problem+json", ...headers } });

describe("the format", () => {
  it("is read whatever way it is cut, with any end of line", () => {
    const text = ': hello\nretry: 5\nid: 1\ndata: {"a":\ndata: 1}\n\ndata:x\r\n\r\nevent: y\rdata: z\r\rdata\n\n\n: only a comment\n\ndata: 1\r\ndata: 2\r\n\r\n';
    for (let size = 1; size < text.length; size += 1) {
      const heard = [];
      const read = parser((data) => heard.push(data));
      for (let at = 0; at < text.length; at += size) assert.ok(read(text.slice(at, at + size)));
      assert.deepEqual(heard, ['{"a":\n1}', "x", "z", "", "1\n2"], `in pieces of ${size}`);
    }
  });

  it("is given up when one event has no end", () => {
    const read = parser(() => {});
    const piece = "x".repeat(1024 * 1024);
    let pieces = 0;
    while (read(piece)) pieces += 1;
    assert.ok(pieces <= 9, `${pieces}`);
  });
});

describe("server-sent events", () => {
  it("bring the same messages, with the token in a header and the cursor in the address", async () => {
    const client = await listening();
    const [first] = requests;
    assert.equal(first.url.href, "https://tasks.test/app/events/tasks/");
    assert.equal(first.headers.authorization, "Bearer the-token");
    await first.greet({ tasks: [task("t1")] });
    assert.deepEqual([client.connection.current.state, client.connection.current.transport], ["live", "sse"]);
    await first.tell(frame("t1", { progress: 50, cursor: "c8" }));
    assert.equal(client.task("t1").current.progress, 50);
    await first.end();
    assert.equal(client.connection.current.state, "reconnecting");
    await pass(1_000);
    assert.equal(requests[1].url.searchParams.get("cursor"), "c8");
    assert.equal(sockets.length, 0);
  });

  it("bring the cookie to another site only where a token does not say who it is", async () => {
    await listening({ getToken: undefined });
    await listening({ getToken: undefined, url: "https://other.test" });
    await listening({ url: "https://other.test" });
    answers.push(new TypeError("Failed to fetch"));
    const client = await listening({ getToken: undefined, url: "https://any.test" });
    assert.deepEqual(requests.map(({ credentials }) => credentials), ["same-origin", "include", "same-origin", "include", "same-origin"]);
    assert.equal(client.connection.current.state, "connecting");
  });

  it("are kept alive by comments and given up without them", async () => {
    const client = await listening();
    await requests[0].greet();
    for (let turn = 0; turn < 4; turn += 1) {
      await pass(24_000);
      await requests[0].write(": still here\n\n");
    }
    assert.equal(client.connection.current.state, "live");
    await pass(50_200);
    await real();
    assert.equal(client.connection.current.state, "reconnecting");
    assert.ok(requests[0].signal.aborted);
  });

  it("that are refused are not asked for before Retry-After, however the page wakes", async () => {
    answers.push(refusal(429, { detail: "too many" }, { "retry-after": "20" }));
    const client = await listening();
    assert.equal(client.connection.current.state, "reconnecting");
    assert.equal(client.connection.current.reason, "too many");
    client.retry();
    await pass(19_900);
    assert.equal(requests.length, 1);
    await pass(200);
    assert.equal(requests.length, 2);
  });

  it("say by their status what a close code says", async () => {
    for (const [answer, state, code] of [
      [refusal(401, { error_code: "INVALID_TOKEN", detail: "no" }), "unauthorised", "INVALID_TOKEN"],
      [refusal(403, { detail: "not this" }), "closed", 4003],
      [refusal(204), "closed", 1000],
      [refusal(503, {}), "reconnecting", undefined],
      [refusal(404, {}), "reconnecting", undefined],
    ]) {
      answers.push(answer);
      const client = await listening();
      assert.deepEqual([client.connection.current.state, client.connection.current.code], [state, code]);
      client.close();
    }
  });

  it("take a fresh token by coming again, with the cursor", async () => {
    let asked = 0;
    await listening({ getToken: () => `token-${(asked += 1)}` });
    await requests[0].greet();
    await requests[0].tell({ type: "token_expiring" });
    await real();
    assert.equal(requests.length, 2);
    assert.ok(requests[0].signal.aborted);
    assert.equal(requests[1].headers.authorization, "Bearer token-2");
    assert.equal(requests[1].url.searchParams.get("cursor"), "c1");
  });

  it("that are told at once that the token ends do not come again faster than the bounds", async () => {
    let asked = 0;
    await listening({ getToken: () => `token-${(asked += 1)}` });
    for (let turn = 0; turn < 50; turn += 1) {
      await requests.at(-1).greet({ resumed: turn > 0 });
      await requests.at(-1).tell({ type: "token_expiring" });
      await pass(10);
      await real();
    }
    assert.ok(requests.length <= 3 && asked <= 3, `${requests.length} requests, ${asked} tokens in half a second`);
  });

  it("do not hammer a service that asks for a month's patience", async () => {
    answers.push(refusal(503, {}, { "retry-after": "2592000" }));
    const client = await listening();
    await pass(2_000);
    await real();
    assert.equal(requests.length, 1);
    assert.ok(client.connection.current.nextTryAt - Date.now() > 2_000_000_000);
  });

  it("that drain are come back to in their turn, also when more was told after", async () => {
    const client = await listening();
    await requests[0].greet();
    await pass(5_000);
    await requests[0].tell({ type: "server_draining", reconnect_after_ms: 500 });
    await requests[0].tell(frame("t1"));
    await pass(500);
    await requests[0].end();
    assert.match(client.connection.current.reason, /restarts/);
    await pass(100);
    assert.equal(requests.length, 2);
  });

  it("that are nothing but a refusal are waited for as long as it says", async () => {
    const client = await listening();
    await requests[0].write('retry: 9000\n\ndata: {"type":"error","error_code":"LIMIT_REACHED","message":"full"}\n\n');
    await requests[0].end();
    assert.equal(client.connection.current.nextTryAt - Date.now(), 9_000);
  });

  it("cannot be asked anything, and say so", async () => {
    const client = await listening();
    const group = client.tasks({ root: "r" });
    group.subscribe(() => {});
    client.task("t1").subscribe(() => {});
    await requests[0].greet();
    assert.deepEqual([group.error.code, client.task("t1").error], ["UNSUPPORTED", null]);
    await assert.rejects(client.task("t1").cancel(), { code: "UNSUPPORTED" });
  });

  it("say so of a task that a WebSocket told of and they cannot, and of no other", async () => {
    const client = await listening({ transports: ["websocket", "sse"] });
    for (const id of ["mine", "foreign", "unknown"]) client.task(id).subscribe(() => {});
    last().greet({ tasks: [task("mine")] });
    last().tell(frame("foreign", { user_id: "u2", progress: 50 }));
    last().end(1006);
    page.fire("online");
    await failing();
    await requests[0].greet({ tasks: [task("mine")] });
    await pass(3_000);
    const errors = ["mine", "foreign", "unknown"].map((id) => client.task(id).error?.code);
    assert.deepEqual(errors, [undefined, "UNSUPPORTED", undefined]);
    assert.equal(client.task("foreign").current.progress, 50);
    await assert.rejects(client.task("foreign").done(), { code: "UNSUPPORTED" });
  });

  it("take over when a WebSocket never opens, and stay", async () => {
    const client = await listening({ transports: ["websocket", "sse"] });
    last().end(1006);
    await pass(1_000);
    assert.deepEqual([sockets.length, requests.length], [2, 0]);
    last().end(1006);
    await pass(2_000);
    await real();
    assert.deepEqual([sockets.length, requests.length], [2, 1]);
    await requests[0].greet();
    assert.equal(client.connection.current.transport, "sse");
    await requests[0].end();
    await pass(4_000);
    await real();
    assert.deepEqual([sockets.length, requests.length], [2, 2]);
  });

  it("give way to a WebSocket once one greets, without a moment that is not live", async () => {
    const { client, states } = await tryingAgain();
    assert.deepEqual([last().token, last().url.search], ["t", "?cursor=c1"]);
    last().open();
    await requests[0].tell(frame("t1", { progress: 2, cursor: "c2" }));
    const trial = last();
    trial.greet({ resumed: true });
    await settle();
    await real();
    assert.deepEqual([sockets.length, trial.closedWith, requests[0].signal.aborted, last().url.search], [4, 1000, true, "?cursor=c2"]);
    last().greet({ resumed: true, ...quiet });
    assert.deepEqual(states, ["live websocket"]);
    await pass(100 * TRIAL_MIN_MS);
    assert.deepEqual([open().length, requests.length, client.task("t1").current.progress], [1, 1, 2]);
  });

  it("stay where the handshake of a WebSocket comes through and nothing else does, which is tried ever more rarely", async () => {
    const { client, states } = await tryingAgain();
    for (let turn = 1; turn <= 4; turn += 1) {
      const trial = last();
      trial.open();
      await requests[0].tell(frame("t1", { progress: turn }));
      assert.equal(client.task("t1").current.progress, turn);
      await pass(15_000);
      assert.deepEqual([trial.closedWith, sockets.length], [1000, 2 + turn]);
      await pass(2 ** turn * TRIAL_MIN_MS - 200);
      assert.equal(sockets.length, 2 + turn);
      await pass(200);
      assert.equal(sockets.length, 3 + turn);
    }
    assert.deepEqual([states, requests.length, requests[0].signal.aborted], [[], 1, false]);
    // It works by now.
    last().greet();
    await settle();
    last().greet({ resumed: true });
    assert.deepEqual(states, ["live websocket"]);
  });

  it("stay beside a WebSocket that never opens, fails, or brings nothing but an error", async () => {
    const { states } = await tryingAgain();
    const unopened = last();
    await pass(15_100 + 2 * TRIAL_MIN_MS);
    assert.deepEqual([sockets.length, unopened.closedWith], [4, 1000]);
    last().end(1006);
    await pass(4 * TRIAL_MIN_MS + 200);
    assert.equal(sockets.length, 5);
    last().open();
    last().tell({ type: "error", error_code: "UNAVAILABLE", message: "no token can be checked" });
    last().end(1013);
    await pass(8 * TRIAL_MIN_MS + 200);
    assert.deepEqual([sockets.length, states, requests.length], [6, [], 1]);
  });

  it("are back at once when the WebSocket that greeted beside them does not do so in their place", async () => {
    const { client, states } = await tryingAgain();
    last().greet();
    await settle();
    last().open();
    await pass(4_900);
    assert.deepEqual([states, sockets.length], [[], 4]);
    await pass(200);
    // What failed before server-sent events stood is long past.
    assert.equal(client.connection.current.attempt, 1);
    await pass(1_000);
    await real();
    await requests[1].greet({ resumed: true });
    assert.deepEqual(states.map((state) => state.split(" ")[0]), ["reconnecting", "connecting", "live"]);
    assert.deepEqual([sockets.length, requests.length, client.connection.current.transport], [4, 2, "sse"]);
  });

  it("take over within seconds from a WebSocket that opens and never says a word", async () => {
    const client = await listening({ transports: ["websocket", "sse"] });
    last().open();
    await pass(SILENT_MS - 100);
    assert.deepEqual([requests.length, open().length], [0, 1]);
    await pass(100);
    await real();
    assert.deepEqual([requests.length, open().length], [1, 1]);
    await requests[0].greet({ resumed: true });
    assert.deepEqual([requests.length, sockets.length, last().closedWith, requests[0].signal.aborted], [2, 1, 1000, true]);
    await requests[1].greet({ tasks: [task("t1")] });
    assert.deepEqual([client.connection.current.state, client.connection.current.transport], ["live", "sse"]);
    await pass(TRIAL_MIN_MS - 100);
    assert.equal(sockets.length, 1);
  });

  it("have as long as any first connection where nothing works yet", async () => {
    const client = await listening({ transports: ["websocket", "sse"] });
    last().open();
    await pass(SILENT_MS);
    await real();
    await pass(1_000);
    await requests[0].greet({ resumed: true });
    await pass(10_000);
    await real();
    assert.equal(requests[1].signal.aborted, false);
    await requests[1].greet({ tasks: [task("t1")] });
    assert.deepEqual([client.connection.current.state, client.connection.current.transport, open().length], ["live", "sse", 0]);
  });

  it("give way to a WebSocket that greets as slowly in their place as it did beside them", async () => {
    const { states } = await tryingAgain();
    last().open();
    await pass(12_000);
    last().greet({ resumed: true });
    await settle();
    await real();
    last().open();
    await pass(12_000);
    last().greet({ resumed: true });
    assert.deepEqual([states, open().length], [["live websocket"], 1]);
  });

  it("are let go of when a service that is slow greets over its WebSocket after all", async () => {
    for (const answer of [undefined, new Response("{}", { status: 401 }), new Error("refused")]) {
      const client = await listening({ transports: ["websocket", "sse"] });
      if (answer) answers.push(answer);
      const [made, asked] = [sockets.length, requests.length];
      last().open();
      await pass(40_000);
      await real();
      assert.deepEqual([requests.length - asked, client.connection.current.state], [1, "connecting"]);
      // A long snapshot need not be whole.
      last().tell({ type: "connection_established", user_id: "u1", resumed: false, heartbeat_interval_ms: 25_000 });
      assert.equal(requests.at(-1).signal.aborted, true);
      last().tell({ type: "active_tasks", tasks: [], cursor: "c0", more: false });
      await requests.at(-1).greet?.().catch(() => {});
      await pass(TRIAL_MIN_MS);
      const { state, transport } = client.connection.current;
      assert.deepEqual([state, transport, sockets.length, requests.length - asked], ["live", "websocket", made, 1]);
      client.close();
    }
  });

  it("are not tried beside a WebSocket that worked before and is slow to come back", async () => {
    await listening({ transports: ["websocket", "sse"] });
    last().greet();
    last().end(1006);
    await pass(1_000);
    last().open();
    await pass(50_000);
    await real();
    assert.deepEqual([sockets.length, requests.length], [2, 0]);
  });

  it("leave no attempt behind when they end", async () => {
    const client = await listening({ transports: ["websocket", "sse"] });
    for (let turn = 0; turn < 2; turn += 1) {
      last().end(1006);
      await pass(2_000);
      await real();
    }
    await requests[0].greet();
    await pass(TRIAL_MIN_MS + 100);
    const trial = last();
    client.close();
    assert.equal(trial.closedWith, 1000);
    trial.open();
    await pass(100 * TRIAL_MIN_MS);
    assert.equal(sockets.length, 3);
  });

  it("do not take over from a WebSocket that worked, nor because no token could be fetched", async () => {
    const client = await listening({ transports: ["websocket", "sse"] });
    last().greet();
    for (let turn = 0; turn < 6; turn += 1) {
      last().end(1006);
      await pass(31_000);
      await real();
    }
    assert.equal(requests.length, 0);
    last().greet({ resumed: true });
    assert.equal(client.connection.current.transport, "websocket");
    client.close();
    let failures = 0;
    await listening({ transports: ["websocket", "sse"], getToken: () => { if ((failures += 1) < 5) throw new Error("502"); return "t"; } });
    for (let turn = 0; turn < 200 && failures < 5; turn += 1) {
      await pass(1_000);
      await real();
    }
    assert.deepEqual([requests.length, last().token], [0, "t"]);
  });

  it("take over on a network where the WebSocket that worked elsewhere does not", async () => {
    await listening({ transports: ["websocket", "sse"] });
    last().greet();
    last().end(1006);
    page.fire("online");
    await failing();
    assert.equal(requests.length, 1);
  });

  it("do not take over from a WebSocket that greeted", async () => {
    await listening({ transports: ["websocket", "sse"] });
    for (let turn = 0; turn < 10; turn += 1) {
      last().greet({ resumed: turn > 0 });
      last().end(1006);
      await pass(3_000);
      await settle();
    }
    assert.equal(requests.length, 0);
  });
});
