// How the client connects, what it shows of that, and how it comes back.

import assert from "node:assert/strict";
import { beforeEach, describe, it } from "node:test";

import { TaskcastClient } from "../src/index.js";
import { LINGER_MS } from "../src/client.js";
import { browse, contract, frame, last, open, pass, settle, sleep, sockets, task } from "./support.mjs";

let page;
beforeEach(() => { page = browse(); });

/** A client with a connection that stands. */
async function live(options = {}, greeting = {}) {
  const client = new TaskcastClient({ url: "https://tasks.test/base", transports: ["websocket"], ...options });
  client.connect();
  await settle();
  last().greet(greeting);
  return client;
}
const stateOf = (client) => client.connection.current.state;

describe("the first connection", () => {
  it("is made when somebody listens and not before", async () => {
    const client = new TaskcastClient();
    client.task("t1");
    await pass(1_000);
    assert.equal(sockets.length, 0);
    client.task("t1").subscribe(() => {});
    await settle();
    assert.equal(last().url.href, "wss://tasks.test/app/ws/tasks/");
    assert.deepEqual(last().protocols, ["taskcast.v1.json"]);
  });

  it("sends the token in the handshake, and in the first frame when a header cannot hold it", async () => {
    await live({ getToken: () => "a.b-c_d\n" });
    assert.equal(last().token, "a.b-c_d");
    browse();
    const client = new TaskcastClient({ getToken: async () => "with space=" });
    client.connect();
    await settle();
    assert.deepEqual(last().protocols, ["taskcast.v1.json"]);
    last().open();
    assert.deepEqual(last().sent, [{ type: "auth", token: "with space=" }]);
  });

  it("is live only once the snapshot is whole", async () => {
    const client = new TaskcastClient();
    const states = [];
    client.connection.on("update", ({ state, reason }) => states.push(`${state}: ${reason ?? ""}`));
    client.connect();
    await settle();
    last().greet({ cursor: "c5" });
    assert.deepEqual(states, ["connecting: connecting", "connecting: catching up", "live: "]);
    assert.equal(client.connection.current.userId, "u1");
  });

  it("goes to the address of one task or group with the options of the handshake", async () => {
    for (const [scope, path] of [[{ task: "a/b" }, "/base/ws/tasks/a%2Fb/"], [{ root: "r" }, "/base/ws/groups/r/"]]) {
      await live({ scope, watch: "all", throttleMs: 250, deliver: "every" });
      assert.equal(last().url.pathname, path);
      assert.equal(last().url.search, "?watch=all&deliver=every&throttle_ms=250");
    }
  });

  it("may have a relative address where there is no page", () => {
    delete globalThis.location;
    for (const url of ["/", ".", "/taskcast/", undefined]) assert.ok(new TaskcastClient({ url }));
    assert.match(new TaskcastClient().connection.current.reason, /nobody is listening yet/);
  });

  it("refuses transports that it does not know", () => {
    assert.throws(() => new TaskcastClient({ transports: ["carrier pigeon"] }), TypeError);
    assert.throws(() => new TaskcastClient({ transports: [] }), TypeError);
  });
});

describe("a lost connection", () => {
  it("is made again with the last cursor, without a flash of what is shown", async () => {
    const client = await live({}, { tasks: [task("t1")] });
    const list = client.tasks();
    list.subscribe(() => {});
    last().tell(frame("t1", { progress: 40, cursor: "c7" }));
    last().end(1006);
    assert.equal(stateOf(client), "reconnecting");
    assert.equal(client.task("t1").current.progress, 40);
    await pass(1_000);
    assert.equal(last().url.searchParams.get("cursor"), "c7");
    last().greet({ resumed: true, cursor: "c7" });
    assert.equal(stateOf(client), "live");
    assert.equal(client.task("t1").current.progress, 40);
    assert.equal(open().length, 1);
  });

  it("waits longer after each failure, at random between the bounds, and for ever", async () => {
    for (const random of [0, 0.5, 0.999]) {
      page = browse({ random });
      const client = await live();
      last().end(1006);
      for (let failure = 1; failure <= 60; failure += 1) {
        const { state, nextTryAt } = client.connection.current;
        assert.equal(state, "reconnecting");
        const ceiling = Math.min(30_000, 1_000 * 2 ** failure);
        const delay = nextTryAt - Date.now();
        assert.ok(Math.abs(delay - (1_000 + random * (ceiling - 1_000))) <= 1, `${failure}: ${delay}`);
        const before = sockets.length;
        await pass(delay - 1);
        assert.equal(sockets.length, before, "not before its time");
        await pass(2);
        assert.equal(sockets.length, before + 1);
        last().end(1006);
      }
    }
  });

  it("counts as the first failure again only after it stood for a while", async () => {
    page = browse({ random: 0.999 });
    const client = await live();
    const delays = [];
    for (const stood of [0, 4_000, 4_000, 6_000, 0]) {
      await pass(stood);
      last().end(1006);
      const delay = client.connection.current.nextTryAt - Date.now();
      delays.push(Math.round(delay / 1000));
      await pass(delay + 1);
      last().greet({ resumed: true });
    }
    assert.deepEqual(delays, [2, 4, 8, 2, 4]);
  });

  it("keeps to the bounds that the service tells", async () => {
    const client = await live({}, { reconnect: { min_ms: 7_000, max_ms: 9_000 } });
    last().end(1011);
    assert.equal(client.connection.current.nextTryAt - Date.now(), 7_000);
  });

  it("comes back right after the turn that a draining service gave it", async () => {
    page = browse({ random: 0.5 });
    const client = await live();
    last().tell({ type: "server_draining", reconnect_after_ms: 7_300 });
    assert.equal(stateOf(client), "live");
    await pass(7_300);
    last().end(1012);
    assert.equal(client.connection.current.nextTryAt - Date.now(), 500);
    assert.match(client.connection.current.reason, /restarts/);
  });

  it("is not made again and again at once by a service that does nothing but drain", async () => {
    await live();
    const before = sockets.length;
    for (let turn = 0; turn < 100; turn += 1) {
      if (last().readyState === 0) {
        last().greet({ resumed: true });
        last().tell({ type: "server_draining", reconnect_after_ms: 0 });
        last().end(1012);
      } else if (last().readyState === 1) last().end(1012);
      await pass(100);
    }
    assert.ok(sockets.length - before <= 10, `${sockets.length - before} in 10 s`);
  });

  it("is not made at once when the service asks for a wait beyond what timers can", async () => {
    const client = await live({}, { reconnect: { min_ms: 1e10, max_ms: 1e11 }, heartbeat_interval_ms: 1e11 });
    await pass(1_000);
    assert.deepEqual([stateOf(client), last().says("ping").length], ["live", 0]);
    last().end(1006);
    await pass(1_000);
    assert.equal(sockets.length, 1);
    assert.equal(client.connection.current.nextTryAt - Date.now() > 1e9, true);
  });

  it("does what the contract says after each close code", async () => {
    for (const { code, action } of contract.close_codes) {
      page = browse();
      const client = await live();
      await pass(10_000);
      if (code === 4001) last().tell({ type: "authentication_error", error_code: "INVALID_TOKEN", message: "no" });
      last().end(code);
      await pass(5_000);
      const expected = { stop: "closed", back_off: "connecting", new_token: "unauthorised" }[action];
      assert.equal(stateOf(client), expected, `${code}`);
      assert.equal(sockets.length, action === "back_off" ? 2 : 1, `${code}`);
    }
  });

  it("is not believed when an earlier socket speaks late", async () => {
    const client = await live({}, { tasks: [task("t1", { progress: 10 })] });
    const [first] = sockets;
    const { onmessage, onclose } = first;
    first.end(1006);
    await pass(1_000);
    onmessage({ data: JSON.stringify(frame("t1", { progress: 5, cursor: "old" })) });
    onclose({ code: 1000 });
    assert.equal(client.task("t1").current.progress, 10);
    assert.equal(stateOf(client), "connecting");
  });

  it("says offline while the browser does, and comes back when it is not", async () => {
    page = browse({ random: 0.999 });
    const client = await live();
    for (let turn = 0; turn < 4; turn += 1) {
      last().end(1006);
      if (turn < 3) await pass(30_000);
    }
    page.navigator.onLine = false;
    page.fire("offline");
    assert.equal(stateOf(client), "offline");
    await pass(5_000);
    page.navigator.onLine = true;
    page.fire("online");
    await pass(0);
    assert.equal(stateOf(client), "connecting");
  });
});

describe("a page that wakes", () => {
  it("tries soon, but never faster than the bounds", async () => {
    page = browse({ random: 0.999 });
    await live();
    let attempts = 0;
    // Somebody who switches tabs like mad while the service is down.
    const begun = Date.now();
    while (Date.now() - begun < 30_000) {
      if (last().readyState < 2) {
        attempts += 1;
        last().end(1006);
      }
      page.see("visible");
      page.fire("online");
      page.fire("pageshow", { persisted: false });
      await pass(50);
    }
    assert.ok(attempts >= 15 && attempts <= 31, `${attempts} attempts in 30 s`);
  });

  it("asks a connection whether it lives, and leaves it when it does not answer", async () => {
    const client = await live();
    await pass(1_000);
    page.see("visible");
    assert.equal(last().says("ping").length, 1);
    last().tell({ type: "pong" });
    await pass(6_000);
    assert.equal(stateOf(client), "live");
    page.see("visible");
    await pass(5_000);
    assert.equal(stateOf(client), "reconnecting");
    assert.equal(open().length, 0);
  });

  it("asks the same when a frozen one goes on", async () => {
    await live();
    await pass(1_000);
    page.goOn();
    assert.equal(last().says("ping").length, 1);
  });

  it("holds no connection in the back/forward cache and is back with its cursor when it is taken out", async () => {
    const client = await live({}, { tasks: [task("t1")], cursor: "c3" });
    page.fire("pagehide", { persisted: true });
    assert.equal(open().length, 0);
    assert.equal(stateOf(client), "reconnecting");
    await pass(600_000);
    assert.equal(sockets.length, 1);
    page.fire("pageshow", { persisted: true });
    await settle();
    assert.equal(last().url.searchParams.get("cursor"), "c3");
    assert.equal(open().length, 1);
  });

  it("connects for whoever listens after it was put aside while the last one went", async () => {
    const client = new TaskcastClient();
    const stop = client.task("t1").subscribe(() => {});
    await settle();
    last().greet();
    page.fire("pagehide", { persisted: true });
    stop();
    await pass(LINGER_MS * 2);
    page.fire("pageshow", { persisted: true });
    client.task("t1").subscribe(() => {});
    await settle();
    assert.equal(open().length, 1);
  });

  it("does not take timers that were held up for silence", async () => {
    const client = await live();
    await pass(25_000);
    assert.equal(last().says("ping").length, 1);
    // The machine sleeps; the answer waits behind the timer that is due.
    await sleep(3_600_000);
    assert.equal(stateOf(client), "live");
    last().tell({ type: "pong" });
    await pass(5_000);
    assert.equal(stateOf(client), "live");
  });
});

describe("silence", () => {
  it("is noticed within minutes where timers run once a minute", async () => {
    const client = await live();
    for (let minute = 0; minute < 5; minute += 1) await sleep(60_000);
    assert.equal(sockets[0].says("ping").length, 1);
    assert.notEqual(stateOf(client), "live");
    assert.equal(sockets[0].readyState, 3);
  });

  it("is asked about, and ends the connection when nobody answers", async () => {
    const client = await live();
    await pass(24_000);
    assert.equal(last().says("ping").length, 0);
    last().tell(frame("t1"));
    await pass(24_000);
    assert.equal(last().says("ping").length, 0);
    await pass(1_000);
    assert.equal(last().says("ping").length, 1);
    await pass(10_000);
    assert.equal(stateOf(client), "reconnecting");
    assert.match(client.connection.current.reason, /silent/);
  });

  it("ends an attempt that nobody answers", async () => {
    const client = new TaskcastClient({ transports: ["websocket"] });
    client.connect();
    await pass(15_000);
    assert.equal(stateOf(client), "reconnecting");
    assert.equal(open().length, 0);
    await pass(1_000);
    last().open();
    await pass(60_000);
    assert.equal(client.connection.current.reason, "no greeting");
  });
});

describe("the token", () => {
  it("is asked for once, however often the connection is lost", async () => {
    let asked = 0;
    const client = await live({ getToken: () => `token-${(asked += 1)}` });
    for (let turn = 0; turn < 5; turn += 1) {
      last().end(1006);
      await pass(4_000);
      last().greet({ resumed: true });
    }
    assert.equal(asked, 1);
    assert.equal(last().token, "token-1");
    assert.equal(stateOf(client), "live");
  });

  it("is renewed once after EXPIRED_TOKEN, with one reconnect and the cursor", async () => {
    const reasons = [];
    const client = await live({ getToken: ({ reason }) => `token-${reasons.push(reason)}` }, { cursor: "c9" });
    await pass(10_000);
    last().tell({ type: "authentication_error", error_code: "EXPIRED_TOKEN", message: "the token has expired" });
    last().end(4001);
    await settle();
    assert.deepEqual(reasons, ["initial", "EXPIRED_TOKEN"]);
    assert.equal(sockets.length, 2);
    assert.equal(last().token, "token-2");
    assert.equal(last().url.searchParams.get("cursor"), "c9");
    last().greet({ resumed: true });
    assert.equal(stateOf(client), "live");
    await pass(1_000);
    // The new one is refused at once: no loop.
    last().tell({ type: "authentication_error", error_code: "EXPIRED_TOKEN" });
    last().end(4001);
    await pass(600_000);
    assert.equal(sockets.length, 2);
    assert.equal(stateOf(client), "unauthorised");
  });

  it("is not tried again after INVALID_TOKEN, which is shown with its reason", async () => {
    let asked = 0;
    const client = await live({ getToken: () => `token-${(asked += 1)}` });
    last().tell({ type: "authentication_error", error_code: "INVALID_TOKEN", message: "it has been revoked" });
    last().end(4001);
    page.see("visible");
    page.fire("online");
    await pass(600_000);
    assert.deepEqual([sockets.length, asked], [1, 1]);
    const { state, code, reason } = client.connection.current;
    assert.deepEqual([state, code, reason], ["unauthorised", "INVALID_TOKEN", "it has been revoked"]);
  });

  it("that was refused is not sent a second time", async () => {
    const client = await live({ getToken: () => "the-same" });
    last().tell({ type: "authentication_error", error_code: "EXPIRED_TOKEN", message: "gone" });
    last().end(4001);
    await pass(600_000);
    assert.equal(sockets.length, 1);
    assert.equal(stateOf(client), "unauthorised");
  });

  it("is refreshed in band before it expires", async () => {
    let asked = 0;
    const client = await live({ getToken: () => `token-${(asked += 1)}` });
    last().tell({ type: "token_expiring", token_expires_at: "x", refresh_until: "y" });
    await settle();
    assert.deepEqual(last().says("refresh_token").map(({ token }) => token), ["token-2"]);
    last().answer("refresh_token", { type: "token_refreshed" });
    await settle();
    assert.equal(sockets.length, 1);
    last().end(1006);
    await pass(1_000);
    assert.equal(last().token, "token-2");
    assert.equal(asked, 2);
    assert.equal(stateOf(client), "connecting");
  });

  it("is fetched twice at most when the refresh is refused", async () => {
    let asked = 0;
    await live({ getToken: () => `token-${(asked += 1)}` });
    last().tell({ type: "token_expiring" });
    for (let turn = 0; turn < 3; turn += 1) {
      await pass(5_000);
      if (last().says("refresh_token").length > turn) last().answer("refresh_token", { type: "error", error_code: "TOKEN_REFUSED", message: "no" });
    }
    await pass(5_000);
    assert.equal(asked, 3);
  });

  it("that is about to end itself is not renewed faster than the bounds", async () => {
    let asked = 0;
    await live({ getToken: () => `token-${(asked += 1)}` });
    for (let turn = 0; turn < 200; turn += 1) {
      last().tell({ type: "token_expiring" });
      await pass(10);
      if (last().says("refresh_token").length > 0) last().answer("refresh_token", { type: "token_refreshed" });
    }
    assert.ok(asked >= 2 && asked <= 4, `${asked} tokens in 2 s`);
  });

  it("that is the one in use is not sent as a fresh one, but asked for again", async () => {
    let token = "old", asked = 0;
    await live({ getToken: () => { asked += 1; return token; } });
    last().tell({ type: "token_expiring" });
    await pass(2_000);
    assert.equal(last().says("refresh_token").length, 0);
    token = "new";
    await pass(30_000);
    assert.deepEqual(last().says("refresh_token").map(({ token }) => token), ["new"]);
    assert.ok(asked < 10, `${asked}`);
  });

  it("whose end its provider moved is not asked for any more", async () => {
    let asked = 0;
    await live({ getToken: () => { asked += 1; return "the-same"; } });
    last().tell({ type: "token_expiring" });
    await pass(500);
    last().tell({ type: "token_refreshed" });
    const before = asked;
    await pass(20_000);
    assert.equal(asked, before);
    // And when it is about to end again, it is.
    last().tell({ type: "token_expiring" });
    await pass(2_000);
    assert.ok(asked > before);
  });

  it("that cannot be fetched before the last one ends is asked for again while there is time", async () => {
    let fails = true;
    await live({ getToken: ({ reason }) => { if (reason === "expiring" && fails) throw new Error("502"); return reason; } });
    last().tell({ type: "token_expiring" });
    await pass(3_000);
    fails = false;
    await pass(20_000);
    assert.deepEqual(last().says("refresh_token").map(({ token }) => token), ["expiring"]);
  });

  it("is renewed after each expiry, however many there were", async () => {
    const reasons = [];
    const client = await live({ getToken: ({ reason }) => `token-${reasons.push(reason)}` });
    for (let turn = 1; turn <= 3; turn += 1) {
      await pass(6_000);
      last().end(1006);
      await pass(3_000);
      last().open();
      last().tell({ type: "authentication_error", error_code: "EXPIRED_TOKEN", message: "x" });
      last().end(4001);
      await settle();
      last().greet({ resumed: true });
      assert.deepEqual([stateOf(client), reasons.length], ["live", turn + 1]);
    }
  });

  it("that a long outage outlived is renewed like any other", async () => {
    const reasons = [];
    const client = await live({ getToken: ({ reason }) => `token-${reasons.push(reason)}` });
    const expire = async () => {
      last().tell({ type: "authentication_error", error_code: "EXPIRED_TOKEN" });
      last().end(4001);
      await settle();
    };
    await expire();
    for (let turn = 0; turn < 10; turn += 1) {
      last().end(1006);
      await pass(31_000);
    }
    last().open();
    await expire();
    last().greet({ resumed: true });
    assert.deepEqual([reasons.length, stateOf(client)], [3, "live"]);
  });

  it("that is known to be over is not tried first", async () => {
    let asked = 0;
    await live({ getToken: () => `token-${(asked += 1)}` }, { token_expires_at: new Date(Date.now() + 60_000).toISOString() });
    page.fire("pagehide");
    await sleep(120_000);
    page.fire("pageshow", { persisted: true });
    await settle();
    assert.equal(last().token, "token-2");
  });

  it("that cannot be fetched is a reason to try later", async () => {
    let fails = true;
    const client = new TaskcastClient({ getToken: async () => { if (fails) throw new Error("no network"); return "t"; } });
    client.connect();
    await settle();
    assert.equal(stateOf(client), "reconnecting");
    assert.match(client.connection.current.reason, /no network/);
    fails = false;
    await pass(1_000);
    assert.equal(last().token, "t");
  });

  it("that nobody has is waited for on the open connection", async () => {
    const client = new TaskcastClient();
    const done = client.task("t1").done();
    await settle();
    last().open();
    await pass(1_500);
    assert.deepEqual([stateOf(client), client.connection.current.code], ["unauthorised", "AUTH_REQUIRED"]);
    assert.equal(await Promise.race([done, Promise.resolve("is waited for")]), "is waited for");
    // There was a cookie, which took long to check.
    last().greet({ tasks: [task("t1", { status: "succeeded" })] });
    assert.equal(stateOf(client), "live");
    assert.equal((await done).status, "succeeded");
  });

  it("that nobody has is asked for once, and given on the open connection when there is one", async () => {
    const reasons = [];
    let token = null;
    const client = new TaskcastClient({ getToken: ({ reason }) => { reasons.push(reason); return token; } });
    client.connect();
    await settle();
    last().open();
    await pass(1_500);
    last().tell({ type: "authentication_error", error_code: "AUTH_REQUIRED", message: "no token came" });
    last().end(4001);
    await pass(60_000);
    assert.deepEqual([reasons, sockets.length, stateOf(client)], [["initial", "AUTH_REQUIRED"], 1, "unauthorised"]);
    client.restart();
    await settle();
    last().open();
    token = "late";
    await pass(1_500);
    assert.deepEqual(last().sent, [{ type: "auth", token: "late" }]);
  });

  it("of other rights comes without a cursor and without what the other one showed", async () => {
    const jwt = (claims) => `h.${Buffer.from(JSON.stringify(claims)).toString("base64url")}.s`;
    const tokens = [jwt({ sub: "u1" }), jwt({ sub: "u1", taskcast: { watch: ["all"] } })];
    const client = await live({ getToken: () => tokens.shift() }, { tasks: [task("t1")] });
    last().tell({ type: "authentication_error", error_code: "EXPIRED_TOKEN" });
    last().end(4001);
    await settle();
    assert.equal(last().url.searchParams.get("cursor"), null);
    assert.equal(client.task("t1").current, undefined);
  });

  it("of somebody else, in a cookie, shows nothing of the one before", async () => {
    const client = await live({}, { tasks: [task("t1")] });
    last().end(1006);
    await pass(1_000);
    last().greet({ resumed: true, user_id: "u2" });
    assert.equal(client.task("t1").current, undefined);
    await pass(3_000);
    assert.equal(last().url.searchParams.get("cursor"), null);
    last().greet({ user_id: "u2" });
    assert.equal(client.connection.current.userId, "u2");
  });

  it("that was refused is not tried again by whoever comes and goes, but after restart()", async () => {
    let asked = 0;
    const client = new TaskcastClient({ transports: ["websocket"], getToken: () => `token-${(asked += 1)}` });
    for (let turn = 0; turn < 3; turn += 1) {
      const stop = client.task("x").subscribe(() => {});
      await settle();
      if (turn === 0) {
        last().tell({ type: "authentication_error", error_code: "INVALID_TOKEN" });
        last().end(4001);
      }
      stop();
      await pass(LINGER_MS * 2);
      assert.deepEqual([sockets.length, asked, stateOf(client)], [1, 1, "unauthorised"]);
    }
    client.restart();
    await settle();
    assert.deepEqual([sockets.length, asked, stateOf(client)], [2, 2, "connecting"]);
    // For nobody, so not for long.
    await pass(LINGER_MS * 2);
    assert.equal(open().length, 0);
  });

  it("is not asked for faster than the bounds by a page that restarts and restarts", async () => {
    const client = await live({ getToken: () => "t" });
    client.restart();
    await settle();
    assert.equal(sockets.length, 2);
    for (let turn = 0; turn < 100; turn += 1) {
      client.restart();
      await pass(50);
    }
    assert.ok(sockets.length <= 8, `${sockets.length} in 5 s`);
    last().greet();
    assert.equal(stateOf(client), "live");
  });

  it("is forgotten with everything else when somebody else signs in", async () => {
    let asked = 0;
    const client = await live({ getToken: () => `token-${(asked += 1)}` }, { tasks: [task("t1")] });
    client.restart();
    await settle();
    assert.equal(open().length, 1);
    assert.equal(last().token, "token-2");
    assert.equal(last().url.searchParams.get("cursor"), null);
    assert.equal(client.task("t1").current, undefined);
  });
});

describe("one socket", () => {
  it("is all there is, however often components come and go", async () => {
    const client = new TaskcastClient();
    for (let turn = 0; turn < 50; turn += 1) {
      const stop = client.task("t1").subscribe(() => {});
      const stopToo = client.tasks({ status: "active" }).subscribe(() => {});
      await pass(turn % 7);
      if (turn === 3) last().greet();
      stop();
      stopToo();
      stopToo();
    }
    assert.equal(sockets.length, 1);
    await pass(LINGER_MS);
    assert.equal(open().length, 0);
    assert.deepEqual(stateOf(client), "closed");
    client.task("t1").subscribe(() => {});
    await settle();
    assert.equal(open().length, 1);
  });

  it("is left for good when the client is closed", async () => {
    const client = await live();
    client.close();
    client.task("t1").subscribe(() => {});
    page.fire("online");
    page.fire("pageshow", { persisted: true });
    await pass(600_000);
    assert.deepEqual([sockets.length, open().length], [1, 0]);
  });

  it("is said to be closed by whom it was, whoever goes later", async () => {
    const client = new TaskcastClient();
    const stop = client.task("t1").subscribe(() => {});
    client.close();
    stop();
    await pass(LINGER_MS * 2);
    assert.equal(client.connection.current.reason, "the client was closed");
  });
});

describe("a service that lost its log", () => {
  it("is shown with the time up to which things are known", async () => {
    const client = await live();
    last().tell({ type: "source_degraded", fresh_until: "2026-01-01T00:00:00.000Z" });
    assert.deepEqual([stateOf(client), client.connection.current.freshUntil], ["degraded", "2026-01-01T00:00:00.000Z"]);
    last().tell({ type: "source_recovered" });
    assert.equal(stateOf(client), "live");
  });
});
