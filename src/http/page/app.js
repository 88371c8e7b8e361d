// The dashboard: makes its parts, and has them drawn once a frame at most, each when something changed for it. Refuses to know: what
// the parts show.

import { TaskcastClient } from "../client.js";
import { adjust } from "./clock.js";
import { ConnectionBadge } from "./connection.js";
import { byId, mark } from "./dom.js";
import { List } from "./list.js";
import { groupOf, Model } from "./model.js";
import { listAddress, taskOfAddress } from "./route.js";
import { SignIn } from "./sign-in.js";
import { drawStates, drawSummary } from "./states.js";
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
const badge = new ConnectionBadge(client, beginAnew);
const signIn = new SignIn(client, beginAnew);
const toolbar = new Toolbar(model, (filters) => {
  view.ask(filters);
  hasMoved = true;
  countedAt = -COUNTS_MS;
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
/** @type {ReturnType<typeof setTimeout> | undefined} */
let countsLater;
let hadTasks = false;
/** Back to where the list was when somebody left it for a task. */
let comeBack = () => scrollTo(0, 0);
/** Whose tasks are shown, once that is known. */
let shownTo;
/** With which token. */
let inUse = token.get();
let wasLent = false;
let isTimeKnown = false;

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
  const [known, { wanted }] = [model.rows.size, view];
  badge.draw({ hasTasks: known > 0 });
  drawStates({ state, reason, userId, known, wanted, isAsked: signIn.isAsked });
  mark(byId("tasks"), "data-has-groups", model.groups.size < known ? "" : null);
  drawTitle();
  const remaining = known > 0 === hadTasks ? COUNTS_MS - (performance.now() - countedAt) : 0;
  if (remaining > 0) return void (countsLater ??= setTimeout(() => {
    countsLater = undefined;
    request();
  }, remaining));
  countedAt = performance.now();
  hadTasks = known > 0;
  // Both at once: they tell of the same tasks.
  drawSummary({ known, wanted });
  toolbar.draw();
}

function drawTitle() {
  if (taskPage.id === null) document.title = model.active > 0 ? `(${model.active}) taskcast` : "taskcast";
}

/** As somebody else, perhaps: nothing stays of what was told before. */
function beginAnew() {
  shownTo = undefined;
  inUse = token.get();
  drawLent();
  client.restart();
  forgetShown();
}

function drawLent() {
  wasLent = token.isLent;
  byId("lent").hidden = !wasLent;
}

function forgetShown() {
  badge.forget();
  taskPage.forget();
  isWhole = hasMoved = true;
  request();
}

/** Shows what the address says. */
function follow() {
  token.adopt();
  const [was, id] = [taskPage.id, taskOfAddress()];
  const target = model.rows.get(id);
  if (target && wasLent) token.visit(id, groupOf(target.task));
  if (token.get() !== inUse) beginAnew();
  else drawLent();
  toolbar.followAddress();
  if (was === null && id !== null) comeBack = list.leave();
  taskPage.open(id);
  byId("list-page").hidden = id !== null;
  byId("task").hidden = id === null;
  isWhole = true;
  countedAt = -COUNTS_MS;
  frame();
  if (id === was) return;
  if (id !== null) {
    scrollTo(0, 0);
    taskPage.focus();
  } else {
    comeBack();
    list.draw(null, false);
    list.focus();
  }
}

// The list is not there yet when the browser would scroll it.
history.scrollRestoration = "manual";
addEventListener("hashchange", follow);
addEventListener("popstate", follow);
byId("tasks").addEventListener("click", () => toolbar.writeAddress(), { capture: true });
byId("back").addEventListener("click", (event) => {
  event.preventDefault();
  leaveTask();
});

function leaveTask() {
  toolbar.writeAddress();
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

// What is left of the time changes without any event. And where nobody looks there are no frames, but tasks that come and go: what
// they changed is taken up here, or it would wait without an end.
setInterval(() => {
  isWhole = true;
  if (!isRequested) return request();
  hasMoved = view.update(model.take()) || hasMoved;
  drawTitle();
}, 1_000);

client.watch((id, now) => {
  model.change(id, now);
  request();
});
client.connection.on("update", (status) => {
  if (status.userId !== undefined) {
    const isOther = shownTo !== undefined && status.userId !== shownTo;
    shownTo = status.userId;
    if (isOther) forgetShown();
  }
  if (status.state === "live") token.accepted();
  if (status.state === "live" && !isTimeKnown) {
    isTimeKnown = true;
    adjust().then(request);
  }
  signIn.follow(status, model.rows.size > 0);
  request();
});
client.connect();
signIn.follow(client.connection.current, false);
follow();
