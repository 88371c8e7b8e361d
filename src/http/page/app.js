// The dashboard: makes its parts, and has them drawn once a frame at most, each when something changed for it. Refuses to know: what
// the parts show.

import { TaskcastClient } from "../client.js";
import { ConnectionBadge } from "./connection.js";
import { byId } from "./dom.js";
import { List } from "./list.js";
import { Model } from "./model.js";
import { listAddress, taskOfAddress } from "./route.js";
import { SignIn } from "./sign-in.js";
import { drawStates } from "./states.js";
import { TaskPage } from "./task-page.js";
import { token } from "./token.js";
import { Toolbar } from "./toolbar.js";
import { View } from "./view.js";

/** How often counts are shown anew: faster than that they only flicker. */
const COUNTS_MS = 250;

token.adopt();
// Whatever the token allows: who may see more than their own finds it here.
const client = new TaskcastClient({ url: "./", watch: "all", getToken: ({ reason }) => token.fetch(reason) });
const model = new Model();
const badge = new ConnectionBadge(client);
const signIn = new SignIn(client);
const toolbar = new Toolbar(model, (filters) => {
  view.ask(filters);
  hasMoved = true;
  request();
});
const view = new View(model, toolbar.filters);
const list = new List({
  sizer: byId("sizer"), list: byId("tasks"), view, onScroll: () => request(),
  onToggle: (group) => {
    view.toggle(group);
    hasMoved = isWhole = true;
    request();
  },
});
const taskPage = new TaskPage(client, model, () => request());

let isRequested = false;
/** Lines came, went or moved. */
let hasMoved = false;
/** All that is on the screen is to be drawn. */
let isWhole = true;
let countedAt = -COUNTS_MS;
/** How far down the list was when somebody left it for a task. */
let scrolledTo = 0;

function request() {
  if (isRequested) return;
  isRequested = true;
  requestAnimationFrame(frame);
}

function frame() {
  isRequested = false;
  const changed = model.take();
  hasMoved = view.update(changed) || hasMoved;
  if (taskPage.id !== null) {
    taskPage.draw();
    isWhole = true;
  } else {
    list.draw(isWhole ? null : changed, hasMoved);
    isWhole = hasMoved = false;
  }
  drawAround();
}

function drawAround() {
  const { state, reason, userId } = client.connection.current;
  badge.draw({ hasTasks: model.rows.size > 0 });
  drawStates({ state, reason, userId, known: model.rows.size, wanted: view.wanted, isAsked: signIn.isAsked });
  if (taskPage.id === null) document.title = model.active > 0 ? `(${model.active}) taskcast` : "taskcast";
  const now = performance.now();
  if (now - countedAt < COUNTS_MS) return;
  countedAt = now;
  toolbar.draw();
}

/** Shows what the address says. */
function follow() {
  const before = token.get();
  token.adopt();
  if (token.get() !== before) client.restart();
  const [was, id] = [taskPage.id, taskOfAddress()];
  toolbar.followAddress();
  if (was === null && id !== null) scrolledTo = scrollY;
  taskPage.open(id);
  byId("list-page").hidden = id !== null;
  byId("task").hidden = id === null;
  isWhole = true;
  countedAt = -COUNTS_MS;
  frame();
  if (id === was) return;
  scrollTo(0, id === null ? scrolledTo : 0);
  if (id !== null) taskPage.focus();
  else {
    list.draw(null, false);
    list.focus();
  }
}

// The list is not there yet when the browser would scroll it.
history.scrollRestoration = "manual";
addEventListener("hashchange", follow);
addEventListener("popstate", follow);
byId("back").addEventListener("click", (event) => {
  event.preventDefault();
  leaveTask();
});

function leaveTask() {
  history.pushState(null, "", listAddress());
  follow();
}

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  const isTyping = event.target.closest?.("input, textarea, select") !== null;
  if (event.key === "Escape" && taskPage.id !== null) leaveTask();
  else if (event.key === "Escape" && event.target === byId("words") && byId("words").value === "") list.focus();
  else if (event.key === "/" && !isTyping && taskPage.id === null && !byId("toolbar").hidden) {
    event.preventDefault();
    byId("words").focus();
  }
});

// What is left of the time changes without any event.
setInterval(() => {
  if (document.visibilityState !== "visible") return;
  isWhole = true;
  request();
}, 1_000);

client.watch((id, now) => {
  model.change(id, now);
  request();
});
client.connection.on("update", (status) => {
  if (status.state === "unauthorised") badge.forget();
  signIn.follow(status);
  request();
});
client.connect();
signIn.follow(client.connection.current);
follow();
