// The page of taskcast: the tasks as bars, drawn once a frame at most, and what people can do about the connection.
// Whatever comes from outside is put on the page as text, never as markup.

import { Bar, hasEnded, TaskcastClient } from "./client.js";
import { groupOf, groups, recent, text } from "./tasks.js";
import { token } from "./token.js";

/** How many rows there are at most. */
const ROWS_MAX = 300;
const STATUS_NAMES = { timed_out: "timed out" };
const AUTHENTICATION_REASONS = {
  AUTH_REQUIRED: "The service needs a token to know whose tasks to show.",
  INVALID_TOKEN: "The token was refused.",
  EXPIRED_TOKEN: "The token has expired.",
};

const element = (id) => document.getElementById(id);

/** The refusal of a service that looks at no token: none would help. */
const NO_USER = "The service runs without authentication and has no user: set auth.user (TASKCAST_AUTH_USER).";

const client = new TaskcastClient({ url: ".", getToken: ({ reason }) => token.fetch(reason) });
const all = client.tasks();

function askForToken({ code, reason: words }) {
  const reason = AUTHENTICATION_REASONS[code] ?? "The service did not accept this connection.";
  element("sign-in-reason").textContent = words ? `${reason} ${sentence(words)}` : reason;
  if (!element("sign-in").hidden) return;
  element("sign-in").hidden = false;
  element("token").focus();
}

/** The service's words begin small and end without a full stop, as its log does. */
function sentence(words) {
  const begun = words.charAt(0).toUpperCase() + words.slice(1);
  return /[.!?]$/.test(begun) ? begun : `${begun}.`;
}

/** What to say of the connection; the second part changes every second, so it is kept from screen readers. */
function wordsOf({ state, reason, code, nextTryAt, freshUntil }) {
  const seconds = Math.max(1, Math.ceil((nextTryAt - Date.now()) / 1000));
  switch (state) {
    case "live":
      return ["Live"];
    case "degraded":
      if (!freshUntil) return ["The service has not reached its event log yet"];
      return [`Updates are delayed; shown as of ${new Date(freshUntil).toLocaleTimeString()}`];
    case "connecting":
      return [reason === "catching up" ? "Catching up…" : "Connecting…"];
    case "offline":
      return ["Offline"];
    case "reconnecting":
      return [reason === "the service restarts" ? "The service restarts; reconnecting" : "Connection lost; reconnecting", nextTryAt ? ` in ${seconds} s` : ""];
    case "unauthorised":
      return [code === "NO_USER_AVAILABLE" ? NO_USER : `Not signed in${code ? ` (${code})` : ""}`];
    default:
      return [`Closed: ${reason}`];
  }
}

function show() {
  const status = client.connection.current;
  const { state, code } = status;
  const [words, countdown = ""] = wordsOf(status);
  element("connection").dataset.connectionState = state;
  write(element("connection-text"), words);
  write(element("connection-countdown"), countdown);
  if (state === "live") isCookieNew = false;
  if (state === "unauthorised" && code === "INVALID_TOKEN" && token.get() === null && !isCookieNew) return renewCookie();
  if (state === "unauthorised" && code !== "NO_USER_AVAILABLE") askForToken(status);
  // Somebody may be typing a token: the form stays until one is accepted, whatever becomes of this connection.
  else if (status.reason === "catching up" || ["live", "degraded", "closed"].includes(state)) element("sign-in").hidden = true;
  element("retry").hidden = !["reconnecting", "offline", "closed"].includes(state);
  element("sign-out").hidden = token.get() === null || state === "unauthorised";
  element("groups").classList.toggle("stale", state !== "live");
  draw();
}

/** The page brought it, and the service has not accepted it yet. */
let isCookieNew = true;

/** A service that began anew with another secret, as the demo does, gives its own cookie with the page. */
async function renewCookie() {
  isCookieNew = true;
  await token.fetchCookie();
  client.restart();
}

/** Rows and groups that are on the page, by their key, so that drawing changes only what changed. */
const rows = new Map();
const boxes = new Map();
/** By task; where its bar is, and how fast it goes. */
const bars = new Map();
let drawing = false;

function draw() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    const shown = recent(all.current);
    drawGroups(shown);
    drawAround(shown);
  });
}

function drawGroups(shown) {
  const used = new Set();
  const boxesUsed = new Set();
  const inOrder = [];
  let room = ROWS_MAX;
  for (const group of groups(shown)) {
    if (room <= 0) break;
    boxesUsed.add(group.key);
    const box = boxes.get(group.key) ?? newBox(group.key);
    const entries = (group.root ? [group.root, ...group.children] : group.children).slice(0, room);
    room -= entries.length;
    for (const task of entries) used.add(task.task_id);
    box.name.hidden = group.root !== null;
    const children = group.root ? entries.slice(1) : entries;
    place(box.own, group.root ? [drawRow(group.root)] : []);
    place(box.children, children.map(drawRow));
    box.children.hidden = children.length === 0;
    inOrder.push(box.item);
  }
  place(element("groups"), inOrder);
  forget(rows, used);
  forget(bars, used);
  forget(boxes, boxesUsed);
}

/** Makes the children of `parent` exactly these, moving as few as possible so that focus and selection survive. */
function place(parent, wanted) {
  wanted.forEach((node, index) => {
    if (parent.children[index] !== node) parent.insertBefore(node, parent.children[index] ?? null);
  });
  while (parent.children.length > wanted.length) parent.lastElementChild.remove();
}

function forget(map, used) {
  for (const key of map.keys()) if (!used.has(key)) map.delete(key);
}

function make(tag, className, parent) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  parent?.append(node);
  return node;
}

function newBox(key) {
  const item = make("li", "group");
  const name = make("p", "group-name", item);
  name.textContent = key;
  const box = { item, name, own: make("div", "", item), children: make("ul", "children", item) };
  boxes.set(key, box);
  return box;
}

function newRow(id, child) {
  const item = make(child ? "li" : "div", "task");
  const head = make("div", "task-head", item);
  const row = { item, title: make("span", "task-title", head), attempt: make("span", "attempt", head) };
  row.pill = make("span", "pill", head);
  row.bar = make("div", "bar", item);
  row.fill = make("div", "fill", row.bar);
  row.bar.setAttribute("role", "progressbar");
  row.bar.setAttribute("aria-valuemin", "0");
  row.bar.setAttribute("aria-valuemax", "100");
  const foot = make("div", "task-foot", item);
  row.message = make("span", "message", foot);
  row.numbers = make("span", "numbers", foot);
  row.child = child;
  rows.set(id, row);
  return row;
}

function barOf(task) {
  const bar = bars.get(task.task_id) ?? new Bar();
  bars.set(task.task_id, bar);
  bar.show(task);
  return bar;
}

function drawRow(task) {
  const bar = barOf(task);
  const shown = bar.percent;
  const child = task.task_id !== groupOf(task);
  const held = rows.get(task.task_id);
  const row = held && held.child === child ? held : newRow(task.task_id, child);
  const status = text(task.status) || "running";
  const title = text(task.title) || text(task.name) || task.task_id;
  row.item.dataset.taskId = task.task_id;
  row.item.dataset.status = status;
  row.item.title = task.task_id;
  write(row.title, title);
  write(row.pill, STATUS_NAMES[status] ?? status);
  write(row.attempt, task.attempt > 1 ? `attempt ${task.attempt}` : "");
  const failure = hasEnded(task) ? text(task.error?.message) || text(task.error?.code) : "";
  write(row.message, failure || [text(task.step), text(task.message)].filter(Boolean).join(" · "));
  row.message.classList.toggle("bad", failure !== "");
  write(row.numbers, numbers(task, bar));

  const unknown = shown === null;
  row.bar.classList.toggle("unknown", unknown);
  row.bar.classList.toggle("still", unknown && status !== "running");
  row.fill.style.transform = unknown ? "" : `scaleX(${shown / 100})`;
  row.bar.setAttribute("aria-label", title);
  row.bar.setAttribute("aria-valuetext", `${STATUS_NAMES[status] ?? status}${unknown ? "" : `, ${whole(shown)} %`}`);
  if (unknown) row.bar.removeAttribute("aria-valuenow");
  else row.bar.setAttribute("aria-valuenow", whole(shown));
  return row.item;
}

function write(node, value) {
  if (node.textContent !== value) node.textContent = value;
}

/** Rounded down: 99.9 is not 100. */
const whole = (percent) => String(Math.floor(percent));

function numbers(task, bar) {
  const parts = [];
  if (Number.isFinite(task.current)) {
    const unit = text(task.unit);
    const total = Number.isFinite(task.total) ? ` of ${amount(task.total)}` : "";
    parts.push(`${amount(task.current)}${total}${unit ? ` ${unit}` : ""}`);
  }
  if (bar.percent !== null) parts.push(`${whole(bar.percent)} %`);
  const left = bar.secondsLeft;
  if (left !== null) parts.push(`${duration(left)} left`);
  return parts.join(" · ");
}

const amount = (value) => value.toLocaleString(undefined, { maximumFractionDigits: 1 });

function duration(seconds) {
  if (seconds < 60) return `about ${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 3600) return `about ${Math.round(seconds / 60)} min`;
  return `about ${Math.round(seconds / 3600)} h`;
}

function drawAround(shown) {
  const active = shown.filter((task) => !hasEnded(task)).length;
  const summary = element("summary");
  summary.hidden = shown.length === 0;
  const beyond = shown.length > ROWS_MAX ? `, the newest ${ROWS_MAX} shown` : "";
  write(summary, `${active} active, ${shown.length - active} ended${beyond}`);
  document.title = active > 0 ? `(${active}) taskcast` : "taskcast";
  const isEmpty = shown.length === 0 && client.connection.current.state === "live";
  element("empty").hidden = !isEmpty;
  if (isEmpty) drawExamples();
}

/** Commands that make a bar appear for this very user. */
function drawExamples() {
  const event = { task_id: "hello", progress: 40, message: "it works" };
  const { userId } = client.connection.current;
  if (userId) event.user_id = userId;
  const quoted = `'${JSON.stringify(event).replaceAll("'", String.raw`'\''`)}'`;
  write(element("example-redis"), `redis-cli XADD taskcast:events MAXLEN '~' 1000000 '*' event ${quoted}`);
  const address = new URL("api/v1/events", location.href);
  address.search = "";
  address.hash = "";
  write(
    element("example-curl"),
    `curl ${address} \\\n  -H "Authorization: Bearer $TOKEN" \\\n  -H 'Content-Type: application/json' \\\n  -d ${quoted}`,
  );
}

element("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  token.set(element("token").value.replace(/^\s*bearer\s+/i, ""));
  element("token").value = "";
  element("sign-in").hidden = true;
  client.restart();
});

element("sign-out").addEventListener("click", () => {
  token.clear();
  client.restart();
});

element("retry").addEventListener("click", () => {
  if (client.connection.current.state === "closed") client.restart();
  else client.retry();
});

addEventListener("hashchange", () => {
  const before = token.get();
  token.adopt();
  if (token.get() !== before) client.restart();
});

// What is left of the time, and what has been over for long, change without any event.
setInterval(() => {
  if (document.visibilityState === "visible") show();
}, 1_000);

token.adopt();
client.connection.on("update", show);
all.on("update", draw);
show();
