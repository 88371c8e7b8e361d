// What a page goes through in a real browser: tokens that end or are refused, the back/forward cache, a tab behind another one
// whose timers are held up, a page that is frozen. It comes back by itself, once, and shows what was published meanwhile.
//
// Usage and environment: as page.mjs, and TESTS_CLIENT_HIDDEN_SECONDS: a hidden tab waits that long first, for the browser to
// run its timers once a minute (it does after five minutes, or after ten seconds when this is set). Prints PASS or FAIL and why.

import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { setTimeout as pause } from "node:timers/promises";

import { judge, screenshots } from "./support.mjs";
import { PATIENCE, countSockets, jwt, newWorld, until } from "./world.mjs";

const RECONNECT_MIN_MS = 200;
const EXPIRING_LEAD_MS = 2_000;
const HIDDEN_SECONDS = Number(process.env.TESTS_CLIENT_HIDDEN_SECONDS ?? 0);

/** By name, as a page asks for them. */
const TOKENS = {
  good: () => jwt("u1", 3600),
  brief: () => jwt("u1", 4),
  briefest: () => jwt("u1", 2),
  expired: () => jwt("u1", -10),
  forged: () => jwt("u1", 3600, {}, "a-secret-that-is-somebody-else's-altogether"),
};

/** A page takes the tokens that its address names, one after the other; the last one again and again. It tells what it goes through. */
const pageOf = (port) => `<!doctype html><meta charset="utf-8"><title>lives</title>
<script>(${countSockets})()</script>
<script type="module">
  import { TaskcastClient } from "http://127.0.0.1:${port}/client.js";
  const query = new URLSearchParams(location.search);
  const names = query.get("tokens").split(",");
  window.reasons = [];
  window.client = new TaskcastClient({
    shareAcrossTabs: query.has("share"),
    getToken: async ({ reason }) => {
      reasons.push(reason);
      if (query.has("cannot-renew") && reason === "expiring") throw new Error("the back end is away");
      return (await fetch("/token/" + (names.length > 1 ? names.shift() : names[0]))).text();
    },
  });
  window.states = [];
  window.life = [];
  const tell = () => {
    const { state, code, reason } = client.connection.current;
    if (!query.has("tells")) return;
    const about = { state, visibility: document.visibilityState, progress: client.task("t1").current?.progress, made: madeAt.length, mostOpen, reasons, frozen, at: performance.timeOrigin + performance.now() };
    fetch("/told?" + encodeURIComponent(JSON.stringify(about)), { keepalive: true });
  };
  client.connection.on("update", ({ state, code }) => { states.push(code ? state + " " + code : state); tell(); });
  client.task("t1").on("update", tell);
  for (const event of ["pageshow", "pagehide"]) addEventListener(event, ({ persisted }) => life.push(event + " " + persisted));
  document.addEventListener("visibilitychange", tell);
  let frozen = 0;
  document.addEventListener("freeze", () => {
    frozen += 1;
    tell();
  });
</script>`;

async function walk(browser, step) {
  /** What the tab that is nobody's page told last. */
  let told = {};
  // One request may overtake another.
  const take = (next) => {
    if (!(next.at < told.at)) told = next;
    return "";
  };
  const world = await newWorld({
    site: (path, { port }) => {
      if (path.startsWith("/token/")) return TOKENS[path.slice("/token/".length)]?.();
      if (path.startsWith("/told?")) return take(JSON.parse(decodeURIComponent(path.slice("/told?".length))));
      return path.startsWith("/?") ? pageOf(port) : path === "/away" ? "<!doctype html><title>elsewhere</title>" : undefined;
    },
    settings: { TASKCAST_SESSIONS_TOKEN_EXPIRING_LEAD_MS: `${EXPIRING_LEAD_MS}`, TASKCAST_SESSIONS_TOKEN_GRACE_MS: "2000" },
  });
  const { publish } = world;
  let progress = 1;
  const next = async (how = publish) => {
    progress += 1;
    await how([{ task_id: "t1", user_id: "u1", progress }]);
    return progress;
  };
  await next();
  const context = await browser.newContext();
  const open = async (...tokens) => {
    const opened = await world.open(context, `/?tokens=${tokens.join(",")}`);
    const { page, seen } = opened;
    return {
      page, seen,
      is: (state) => page.waitForFunction((state) => window.client?.connection.current.state === state, state, { ...PATIENCE, polling: 20 }),
      shows: (progress) => page.waitForFunction((progress) =>
        window.client.connection.current.state === "live" && window.client.task("t1").current?.progress === progress, progress, PATIENCE),
      said: () => page.evaluate(() => ({
        reasons: window.reasons, made: window.madeAt.length, mostOpen: window.mostOpen, elapsed: performance.now(), status: window.client.connection.current, life: window.life,
      })),
      done: async () => {
        assert.deepEqual(seen.complaints, []);
        await page.close();
      },
    };
  };

  step("an expired token: one new token, one reconnect");
  const expired = await open("expired", "good");
  await expired.shows(progress);
  const { reasons, made } = await expired.said();
  assert.deepEqual([reasons, made], [["initial", "EXPIRED_TOKEN"], 2]);
  await expired.done();

  step("a token that ends on an open connection and could not be renewed: the same");
  const ended = await open("brief", "good&cannot-renew");
  await ended.is("live");
  await ended.page.waitForFunction(() => window.reasons.includes("EXPIRED_TOKEN"), null, PATIENCE);
  await ended.page.waitForFunction(() => window.madeAt.length === 2, null, PATIENCE);
  await ended.shows(await next());
  const after = await ended.said();
  assert.deepEqual([after.made, after.mostOpen], [2, 1]);
  assert.equal(after.reasons[0], "initial");
  assert.ok(after.reasons.includes("expiring"));
  await ended.done();

  step("tokens that are expired or forged for good: no loop, and the reason is told");
  for (const [tokens, code, attempts, asked] of [
    [["expired"], "EXPIRED_TOKEN", 1, ["initial", "EXPIRED_TOKEN"]],
    [["expired", "forged"], "INVALID_TOKEN", 2, ["initial", "EXPIRED_TOKEN"]],
    [["forged", "good"], "INVALID_TOKEN", 1, ["initial"]],
  ]) {
    const refused = await open(...tokens);
    await refused.is("unauthorised");
    // Looked at from elsewhere and come back to, it stays so.
    await refused.page.evaluate(() => { for (const event of ["online", "offline", "online", "pageshow"]) dispatchEvent(new Event(event)); window.client.retry(); });
    // Time itself is what is measured here: ten attempts would fit into it.
    await pause(10 * RECONNECT_MIN_MS);
    const { reasons, made, status } = await refused.said();
    assert.deepEqual([status.state, status.code, reasons, made], ["unauthorised", code, asked, attempts], `${tokens}`);
    assert.ok(status.reason.length > 0);
    await refused.done();
  }

  step("a token that ends is refreshed on the open connection");
  const brief = await open("brief");
  await brief.page.waitForFunction(() => window.reasons?.length >= 3, null, PATIENCE);
  const asked4s = await brief.said();
  assert.deepEqual([...new Set(asked4s.reasons)], ["initial", "expiring"]);
  assert.ok(asked4s.reasons.length <= 2 + asked4s.elapsed / (4_000 - EXPIRING_LEAD_MS), `${asked4s.reasons.length} in ${asked4s.elapsed} ms`);
  assert.equal(asked4s.made, 1);
  await brief.shows(await next());
  await brief.done();

  step("a token that is about to end from the start is not fetched without end");
  const briefest = await open("briefest");
  await briefest.page.waitForFunction(() => window.reasons?.length >= 3, null, PATIENCE);
  // As above: what is fetched too often is fetched more often in more of it.
  await pause(5_000);
  const asked2s = await briefest.said();
  assert.ok(asked2s.reasons.length <= 10 + asked2s.elapsed / RECONNECT_MIN_MS, `${asked2s.reasons.length} in ${asked2s.elapsed} ms`);
  assert.equal(asked2s.mostOpen, 1);
  await briefest.done();

  step("a page in the back/forward cache holds no connection, and is live again with what happened meanwhile");
  // One that shares holds a lock and listens to other tabs besides, each of which would keep it out of the cache.
  for (const tokens of ["good", "good&share"]) {
    const cached = await open(tokens);
    await cached.shows(progress);
    await until(async () => (await world.connections()) === 1);
    for (let turn = 1; turn <= 3; turn += 1) {
      await cached.page.goto(`${world.origin}/away`);
      await until(async () => (await world.connections()) === 0);
      const now = await next();
      await cached.page.goBack({ waitUntil: "commit" });
      await cached.shows(now);
      const { life, made, mostOpen, reasons } = await cached.said();
      // The same page, not a new one: it remembers.
      assert.deepEqual([life.at(-1), life.length, made, mostOpen, reasons[0]], ["pageshow true", 1 + 2 * turn, 1 + turn, 1, "initial"]);
      assert.equal(reasons.length, tokens === "good" ? 1 : made);
    }
    await cached.done();
    await until(async () => (await world.connections()) === 0);
  }

  // Playwright has its own pages believe that they are seen; this one it does not know.
  const browserItself = await browser.newBrowserCDPSession();
  const { targetId } = await browserItself.send("Target.createTarget", { url: `${world.origin}/?tokens=good&tells` });
  const tells = (about) => until(() => Object.entries(about).every(([name, value]) => told[name] === value));
  await tells({ state: "live", visibility: "visible", progress });

  step("a tab behind another one goes on, notices a silent network, and comes back while it is hidden");
  const { targetId: inFront } = await browserItself.send("Target.createTarget", { url: `${world.origin}/away` });
  await tells({ visibility: "hidden" });
  await tells({ state: "live", progress: await next() });
  await pause(HIDDEN_SECONDS * 1_000);
  world.net.silence();
  const silentSince = Date.now();
  const late = await next();
  const patience = PATIENCE.timeout;
  if (HIDDEN_SECONDS > 0) PATIENCE.timeout = 300_000;
  await until(() => told.state !== "live");
  console.log(`browser: noticed after ${Math.round((Date.now() - silentSince) / 100) / 10} s`);
  world.net.heal();
  await tells({ state: "live", visibility: "hidden", progress: late });
  PATIENCE.timeout = patience;

  step("a frozen tab comes back with what happened meanwhile");
  const { sessionId } = await browserItself.send("Target.attachToTarget", { targetId, flatten: false });
  let calls = 0;
  const become = (state) => browserItself.send("Target.sendMessageToTarget", {
    sessionId, message: JSON.stringify({ id: (calls += 1), method: "Page.setWebLifecycleState", params: { state } }),
  });
  await become("frozen");
  await tells({ frozen: 1 });
  await world.restart();
  const missed = await next();
  await become("active");
  await tells({ state: "live", visibility: "hidden", progress: missed });
  await browserItself.send("Target.activateTarget", { targetId });
  await tells({ visibility: "visible", state: "live", mostOpen: 1 });
  assert.deepEqual(told.reasons, ["initial"]);
  for (const id of [targetId, inFront]) await browserItself.send("Target.closeTarget", { targetId: id });

  await context.close();
  await world.close();
}

mkdirSync(screenshots, { recursive: true });
await judge("a page's life in a browser", walk, {
  // What Playwright turns off is what is looked at here.
  ignoreDefaultArgs: [
    "--disable-back-forward-cache", "--disable-background-timer-throttling", "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
  ],
  args: HIDDEN_SECONDS > 0 ? ["--enable-features=IntensiveWakeUpThrottling:grace_period_seconds/10"] : [],
});
