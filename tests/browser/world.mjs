// What the client's tests stand on: a real Redis that keeps what it confirmed, the real service, a network between it and the
// browser that can be bad, and a site of another origin, whose pages use the client.

import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import { createConnection, createServer as createProxy } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";

import { freePorts, kill, run, start, startRedis } from "./support.mjs";

export const PATIENCE = { timeout: 30_000 };
const SECRET = "a-secret-of-the-tests-32-bytes-long-or-more";

/** Stands between the browser and the service. */
async function network(port, target) {
  const pairs = new Set();
  let isSilent = false;
  let lacksWebSockets = false;
  let swallowsWebSockets = false;
  const proxy = createProxy((inside) => {
    const outside = createConnection(target, "127.0.0.1");
    const pair = [inside, outside];
    pairs.add(pair);
    let isWebSocket = false;
    for (const [from, to] of [pair, [...pair].reverse()]) {
      from.on("data", (bytes) => {
        isWebSocket ||= bytes.toString("latin1").startsWith("GET /ws/");
        if (lacksWebSockets && isWebSocket) return inside.destroy();
        if (swallowsWebSockets && isWebSocket && from === outside) return to.write(handshakeOf(bytes));
        return isSilent || to.write(bytes);
      });
      from.on("error", () => {});
      // What was said before the end is heard before it.
      from.on("close", () => { to.end(); pairs.delete(pair); });
    }
  });
  await new Promise((resolve) => proxy.listen(port, "127.0.0.1", resolve));
  const cut = () => pairs.forEach(([inside, outside]) => { inside.destroy(); outside.destroy(); });
  return {
    cut,
    /** What is on its way is lost, and nobody hears of it. */
    silence() { isSilent = true; },
    heal() { cut(); isSilent = false; },
    /** As behind a proxy that knows nothing of them. */
    refuseWebSockets(refuses = true) { lacksWebSockets = refuses; },
    /** As behind one that lets their handshake through, and nothing else. */
    swallowWebSockets(swallows = true) { swallowsWebSockets = swallows; },
    close: () => { cut(); proxy.close(); },
  };
}

function handshakeOf(bytes) {
  const text = bytes.toString("latin1");
  return text.startsWith("HTTP/1.1 101") ? bytes.subarray(0, text.indexOf("\r\n\r\n") + 4) : "";
}

/** What the browser tells comes a moment after it happened. */
export async function until(holds) {
  const deadline = Date.now() + PATIENCE.timeout;
  while (!(await holds())) {
    assert.ok(Date.now() < deadline, `never: ${holds}`);
    await pause(20);
  }
}

/**
 * Runs in the page before all else: the WebSockets that it made, when, and how many there were at the same time, those that were
 * being opened included. For one that is being closed the browser waits until the other side agrees, which a silent network never does.
 */
export function countSockets() {
  if (window.madeAt) return;
  const made = [];
  window.mostOpen = 0;
  window.madeAt = [];
  window.WebSocket = class extends WebSocket {
    constructor(...words) {
      super(...words);
      made.push(this);
      window.madeAt.push(performance.timeOrigin + performance.now());
      window.mostOpen = Math.max(window.mostOpen, made.filter(({ readyState }) => readyState <= WebSocket.OPEN).length);
    }
  };
}

/** What Chromium itself writes of whatever does not answer, or not well; a page has no say in it. */
const BROWSERS_OWN = /WebSocket connection to .* failed|Failed to load resource:/;

/**
 * @param {object} about
 * @param {(path: string, world: any, method: string) => any} about.site what a path of the site answers; undefined: 404
 * @param {Record<string, string>} [about.settings] of the service, over those of all of these tests
 */
export async function newWorld({ site, settings = {} }) {
  const [port, servicePort, operationsPort, redisPort] = await freePorts(4);
  const folder = mkdtempSync(join(tmpdir(), "taskcast-browser-"));
  const net = await network(port, servicePort);
  const server = createServer(async (request, answer) => {
    let body;
    try {
      body = request.url === "/favicon.ico" ? "" : await site(request.url, world, request.method);
    } catch (error) {
      console.log(`the site failed: ${error.stack}`);
    }
    if (body === undefined) answer.statusCode = 404;
    answer.setHeader("content-type", /\.js$/.test(request.url) ? "text/javascript" : "text/html; charset=utf-8").end(body);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const world = {
    net, port, servicePort, folder, origin: `http://localhost:${server.address().port}`, redis: await startRedis(redisPort, folder),
    token: (...words) => run(["token", ...words], world.settings),
    startService: async () => { world.service = await start(["serve"], servicePort, operationsPort, world.settings); },
    restart: async (end = kill) => {
      await end(world.service);
      await world.startService();
    },
    killBroker: () => kill(world.redis),
    startBroker: async () => { world.redis = await startRedis(redisPort, folder); },
    /** Over HTTP, confirmed by the log. */
    publish: async (events) => {
      const answer = await fetch(`http://127.0.0.1:${servicePort}/api/v1/events`, {
        method: "POST", headers: { authorization: `Bearer ${world.worker}`, "content-type": "application/json" }, body: JSON.stringify(events),
      });
      assert.equal(answer.status, 202, await answer.text());
    },
    /** Into the log itself, as workers do, whether the service runs or not. */
    append: (events) => append(redisPort, events),
    /** What the service says that it knows. */
    tasks: async (token) => {
      const answer = await fetch(`http://127.0.0.1:${servicePort}/api/v1/tasks?limit=500`, { headers: { authorization: `Bearer ${token}` } });
      return (await answer.json()).tasks;
    },
    /** A series of the service's own metrics, written as there. */
    metric: async (series) => {
      const answer = await (await fetch(`http://127.0.0.1:${operationsPort}/metrics`)).text();
      return Number(answer.split("\n").find((line) => line.startsWith(`${series} `)).slice(series.length));
    },
    connections: () => world.metric("taskcast_connections"),
    /** A page of the site, and all that it complained of. */
    open: async (context, path = "/") => {
      const page = await context.newPage();
      await page.addInitScript(countSockets);
      const seen = { sockets: [], complaints: [] };
      page.on("websocket", (socket) => seen.sockets.push(socket));
      page.on("pageerror", (error) => seen.complaints.push(error.message));
      page.on("console", (message) => {
        if (["error", "warning"].includes(message.type()) && !BROWSERS_OWN.test(message.text())) seen.complaints.push(message.text());
      });
      await page.goto(`${world.origin}${path}`);
      return { page, seen };
    },
    close: async () => {
      net.close();
      server.close();
      server.closeAllConnections();
      await kill(world.service);
      await kill(world.redis);
      rmSync(folder, { recursive: true });
    },
  };
  world.settings = {
    TASKCAST_LOG: `redis://127.0.0.1:${redisPort}`, TASKCAST_AUTH_SECRET: SECRET, TASKCAST_ORIGINS: world.origin,
    TASKCAST_SESSIONS_RECONNECT_MIN_MS: "200", TASKCAST_SESSIONS_RECONNECT_MAX_MS: "1000",
    TASKCAST_SESSIONS_HEARTBEAT_INTERVAL_MS: "1000", TASKCAST_AUTH_LEEWAY_SECONDS: "0", ...settings,
  };
  world.worker = world.token("--user", "worker", "--publish");
  await world.startService();
  return world;
}

/** A JSON Web Token that ends so many seconds from now, signed as the service wants it, or not. */
export function jwt(user, seconds, claims = {}, secret = SECRET) {
  const part = (content) => Buffer.from(content).toString("base64url");
  const signed = `${part('{"alg":"HS256","typ":"JWT"}')}.${part(JSON.stringify({ sub: user, exp: Math.floor(Date.now() / 1000) + seconds, ...claims }))}`;
  return `${signed}.${createHmac("sha256", secret).update(signed).digest("base64url")}`;
}

/** XADD, one answer for each. */
function append(port, events) {
  if (events.length === 0) return Promise.resolve();
  return new Promise((resolve, reject) => {
    const socket = createConnection(port, "127.0.0.1");
    let said = "";
    socket.on("error", reject);
    socket.on("data", (bytes) => {
      said += bytes;
      if (/^-/m.test(said)) return reject(new Error(said));
      // Each answer is a length and an id.
      if (said.split("\r\n").length - 1 >= 2 * events.length) {
        socket.end();
        resolve();
      }
      return undefined;
    });
    const bulk = (text) => `$${Buffer.byteLength(text)}\r\n${text}\r\n`;
    for (const event of events) {
      socket.write(`*5\r\n${["XADD", "taskcast:events", "*", "event", JSON.stringify(event)].map(bulk).join("")}`);
    }
  });
}
