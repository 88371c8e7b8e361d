// One WebSocket, kept alive: its greeting, its cursor, its ends and its next attempt. Tells the page what became of it.

import { apply, forget, settle, supersede, tasks } from "./tasks.js";

const RECONNECT_MIN_MS = 500;
const RECONNECT_MAX_MS = 30_000;
/** A connection has to last this long before the next failure counts as the first. */
const STABLE_MS = 5_000;
/** Without a greeting for this long and without a token, the service is waiting for one. */
const GREETING_MS = 1_500;
const CONNECT_TIMEOUT_MS = 15_000;
/** Closes after which another attempt would end the same way. */
const FINAL_CLOSES = {
  1000: "the service ended the connection",
  1002: "the service could not read what this page sent",
  1003: "the service could not read what this page sent",
  1007: "the service could not read what this page sent",
  1009: "this page sent too much",
  4003: "this token may not watch here",
};

const TOKEN_KEY = "taskcast.token";

export const token = {
  /** `#token=…` is taken over, and out of the address before anybody copies it. */
  adopt() {
    const given = new URLSearchParams(location.hash.slice(1)).get("token");
    if (given !== null) {
      history.replaceState(null, "", location.pathname + location.search);
      this.set(given);
    }
  },
  get: () => sessionStorage.getItem(TOKEN_KEY),
  set: (text) => sessionStorage.setItem(TOKEN_KEY, text.trim()),
  clear: () => sessionStorage.removeItem(TOKEN_KEY),
};

/** What the page does about it; set by `start`. */
let page;

/** The last time that the service was asked whether it is there. */
let askedAt = 0;

export const connection = {
  socket: null,
  cursor: null,
  /** Told by the service in `connection_established`. */
  limits: { min: RECONNECT_MIN_MS, max: RECONNECT_MAX_MS, heartbeat: 30_000 },
  user: null,
  failures: 0,
  liveSince: 0,
  /** The next page of a snapshot replaces everything. */
  replacing: false,
  /** From `server_draining`: when this connection is to be closed, and the next one to be made. */
  drainsAt: null,
  refusal: null,
  /** The `source_degraded` that no `source_recovered` has followed yet. */
  degraded: null,
  /** The cookie was asked for anew since the service last accepted one. */
  renewed: false,
  lastHeard: 0,
  timers: { retry: 0, countdown: 0, greeting: 0, heartbeat: 0 },
};

export function connect() {
  stopTimers();
  closeSocket();
  connection.refusal = null;
  connection.degraded = null;
  connection.drainsAt = null;
  connection.liveSince = 0;
  page.show("connecting", "Connecting…");

  const address = new URL("ws/tasks/", location.href);
  address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  address.hash = "";
  if (connection.cursor) address.searchParams.set("cursor", connection.cursor);
  const held = token.get();
  let socket;
  try {
    socket = new WebSocket(address, held ? ["taskcast.v1.json", `bearer.${held}`] : ["taskcast.v1.json"]);
  } catch {
    // What was pasted cannot even be written in a header.
    return signIn("INVALID_TOKEN", "That is not a token.");
  }
  connection.socket = socket;
  connection.lastHeard = Date.now();
  socket.onopen = () => {
    if (!held) connection.timers.greeting = setTimeout(() => page.askForToken("AUTH_REQUIRED"), GREETING_MS);
  };
  socket.onmessage = (event) => {
    if (connection.socket === socket) receive(event.data);
  };
  socket.onclose = (event) => {
    if (connection.socket === socket) closed(event);
  };
  connection.timers.heartbeat = setInterval(heartbeat, 1_000);
}

/** Lets go of the socket without hearing of its end. */
function closeSocket() {
  const { socket } = connection;
  connection.socket = null;
  socket?.close();
}

function stopTimers() {
  clearTimeout(connection.timers.retry);
  clearInterval(connection.timers.countdown);
  clearTimeout(connection.timers.greeting);
  clearInterval(connection.timers.heartbeat);
}

/** A network that has gone away says nothing: ask, and give up on silence. */
function heartbeat() {
  const { socket, limits, lastHeard, liveSince } = connection;
  const now = Date.now();
  const asked = askedAt > lastHeard;
  if (!liveSince) {
    const patience = socket.readyState === WebSocket.OPEN ? limits.heartbeat * 2 : CONNECT_TIMEOUT_MS;
    if (now - lastHeard > patience) giveUp();
  } else if (asked) {
    if (now - askedAt > limits.heartbeat) giveUp();
  } else if (now - lastHeard > limits.heartbeat) {
    // Timers of a hidden tab run once a minute, so silence alone, however long, is no sign of anything.
    askedAt = now;
    socket.send('{"type":"ping"}');
  }
}

function giveUp() {
  closeSocket();
  closed({ code: 1006, reason: "" });
}

function receive(text) {
  connection.lastHeard = Date.now();
  let message;
  try {
    message = JSON.parse(text);
  } catch {
    return;
  }
  switch (message?.type) {
    case "connection_established":
      return established(message);
    case "active_tasks":
      return snapshot(message);
    case "task_progress":
    case "task_completed":
      apply(message);
      break;
    case "task_removed":
      tasks.delete(message.task_id);
      break;
    case "server_draining":
      connection.drainsAt = Date.now() + (positive(message.reconnect_after_ms) ?? 0);
      return;
    case "source_degraded":
      connection.degraded = message;
      return tellState();
    case "source_recovered":
      connection.degraded = null;
      return tellState();
    case "authentication_error":
      connection.refusal = message;
      return;
    default:
      return;
  }
  keepCursor(message);
  page.draw();
}

function established(message) {
  clearTimeout(connection.timers.greeting);
  connection.user = message.user_id ?? null;
  const { limits } = connection;
  limits.min = positive(message.reconnect?.min_ms) ?? RECONNECT_MIN_MS;
  limits.max = Math.max(positive(message.reconnect?.max_ms) ?? RECONNECT_MAX_MS, limits.min);
  limits.heartbeat = Math.max(positive(message.heartbeat_interval_ms) ?? 30_000, 1_000);
  connection.liveSince = Date.now();
  connection.renewed = false;
  if (message.resumed === true) {
    keepCursor(message);
    tellState();
  } else {
    // Nothing of before is promised any more; what is on the page stays until its replacement is here.
    connection.cursor = null;
    connection.replacing = true;
    page.show("connecting", "Catching up…");
  }
  page.draw();
}

/** Live, or what keeps the bars from being so although the connection stands. */
function tellState() {
  const { degraded } = connection;
  if (!degraded) page.show("live", "Live");
  else if (degraded.fresh_until) {
    page.show("degraded", `Updates are delayed; shown as of ${new Date(degraded.fresh_until).toLocaleTimeString()}`);
  } else page.show("degraded", "The service has not reached its event log yet");
  page.draw();
}

/** A page of the snapshot; pages come in the order of the log and add up. */
function snapshot(message) {
  if (message.reset) forget();
  else if (connection.replacing) supersede();
  connection.replacing = false;
  for (const task of Array.isArray(message.tasks) ? message.tasks : []) apply(task);
  keepCursor(message);
  if (!message.more) {
    settle();
    tellState();
  }
  page.draw();
}

function keepCursor(message) {
  if (typeof message.cursor === "string") connection.cursor = message.cursor;
}

const positive = (value) => (Number.isFinite(value) && value > 0 ? value : null);

function closed({ code, reason }) {
  stopTimers();
  connection.socket = null;
  if (connection.liveSince && Date.now() - connection.liveSince > STABLE_MS) connection.failures = 0;
  connection.liveSince = 0;
  if (page.isAskingForToken()) {
    // Somebody may be typing one. Whatever ended this connection, the form stays, and the next one is theirs to begin.
    return signIn(connection.refusal?.error_code ?? "AUTH_REQUIRED", connection.refusal?.message);
  }
  if (code === 4001 || connection.refusal) {
    const { error_code, message } = connection.refusal ?? {};
    return token.get() === null && !connection.renewed ? renewCookie() : signIn(error_code, message || reason);
  }
  if (FINAL_CLOSES[code]) {
    page.show("closed", `Closed: ${reason || FINAL_CLOSES[code]}`);
    return page.draw();
  }
  connection.failures += 1;
  retryIn(delayAfter(code), code === 1012 ? "restarting" : "");
  page.draw();
}

/** The token came by a cookie, if at all, and the page brings that: get it once more before asking anybody to sign in. */
async function renewCookie() {
  connection.renewed = true;
  page.show("connecting", "Connecting…");
  await fetch("./", { cache: "reload" }).catch(() => {});
  if (connection.socket === null) connect();
}

/** Full jitter between the two limits. A service that drains has told when to come back, and spreads that itself. */
function delayAfter(code) {
  const { min, max } = connection.limits;
  if (code === 1012 && connection.drainsAt !== null) {
    return Math.min(Math.max(connection.drainsAt - Date.now(), 0), max) + Math.random() * min;
  }
  const ceiling = Math.min(max, min * 2 ** Math.min(connection.failures, 16));
  return min + Math.random() * (ceiling - min);
}

function retryIn(delay, why) {
  const due = Date.now() + delay;
  const tell = () => {
    const seconds = Math.max(1, Math.ceil((due - Date.now()) / 1000));
    const cause = why === "restarting" ? "The service restarts; reconnecting" : "Connection lost; reconnecting";
    if (navigator.onLine === false) page.show("reconnecting", "Offline");
    else page.show("reconnecting", cause, ` in ${seconds} s`);
  };
  tell();
  connection.timers.countdown = setInterval(tell, 1_000);
  connection.timers.retry = setTimeout(connect, delay);
}

/** Stops, and asks for a token: with this one the answer would be the same. */
function signIn(code, message) {
  stopTimers();
  closeSocket();
  connection.liveSince = 0;
  page.askForToken(code, message);
}

/** Begins; `page` is {show(state, text, countdown), askForToken(code, message), isAskingForToken(), draw()}. */
export function start(thePage) {
  page = thePage;
  token.adopt();
  connect();
}

/** Another person's tasks are none of this one's. */
export function startAnew() {
  forget();
  connection.cursor = null;
  connection.user = null;
  connection.failures = 0;
  page.draw();
  connect();
}
