// The hooks, rendered by React itself: in a document, twice as StrictMode does, and on a server.

import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, it } from "node:test";

import { until } from "./dom.mjs";

const { act, createElement: make, StrictMode, useLayoutEffect, useState } = await import("react");
const { createRoot } = await import("react-dom/client");
const { renderToString } = await import("react-dom/server");
const { hydrateRoot } = await import("react-dom/client");
const { TaskcastClient } = await import("../src/index.js");
const { TaskcastProvider, useConnection, useTask, useTaskcastClient, useTasks } = await import("../src/react.js");
const { frame, last, open, sockets, task } = await import("./support.mjs");

let client;
let root;
let place;
let opened;

beforeEach(() => {
  client = new TaskcastClient({ transports: ["websocket"] });
  place = document.body.appendChild(document.createElement("div"));
  root = null;
  opened = sockets.length;
});

afterEach(async () => {
  await act(async () => root?.unmount());
  place.remove();
  client.close();
});

const wrap = (children) => make(StrictMode, null, make(TaskcastProvider, { client }, children));
async function render(children) {
  root ??= createRoot(place);
  await act(async () => root.render(wrap(children)));
}
const tell = (...messages) => act(async () => { for (const message of messages) last().tell(message); });
/** What React does by itself, outside of `act`. */
async function shows(holds) {
  globalThis.IS_REACT_ACT_ENVIRONMENT = false;
  await until(holds);
  globalThis.IS_REACT_ACT_ENVIRONMENT = true;
}
const made = () => sockets.length - opened;

function Show({ id, renders, ...options }) {
  const shown = useTask(id, options);
  renders?.push(shown);
  return make("p", null, shown === undefined ? "unknown" : shown === null ? "none" : typeof shown === "object" ? `${shown.status} ${shown.progress ?? ""}` : `${shown}`);
}

describe("useTask", () => {
  it("shows a task and what becomes of it, over one socket under StrictMode", async () => {
    await render([make(Show, { key: 1, id: "t1" }), make(Show, { key: 2, id: "t1" }), make(Show, { key: 3, id: null })]);
    assert.equal(place.textContent, "unknownunknownunknown");
    assert.equal(made(), 1);
    await act(async () => last().greet({ tasks: [task("t1", { progress: 5 })] }));
    assert.equal(place.textContent, "running 5running 5unknown");
    await tell(frame("t1", { progress: 6 }));
    assert.equal(place.textContent, "running 6running 6unknown");
    await tell({ type: "task_removed", task_id: "t1" });
    assert.equal(place.textContent, "nonenoneunknown");
    assert.equal(made(), 1);
  });

  it("does not flash when a component goes and comes, or the parent renders again and again", async () => {
    const renders = [];
    await render(make(Show, { id: "t1", renders }));
    await act(async () => last().greet({ tasks: [task("t1", { progress: 5 })] }));
    await render(null);
    renders.length = 0;
    await render(make(Show, { id: "t1", renders }));
    for (let turn = 0; turn < 20; turn += 1) await render(make(Show, { id: "t1", renders, onComplete: () => {}, select: (one) => ({ p: one.progress }) }));
    assert.ok(renders.every((shown) => (shown?.p ?? shown?.progress) === 5), JSON.stringify(renders));
    assert.equal(made(), 1);
    assert.equal(open().length >= 1, true);
  });

  it("renders again only when what is selected changes", async () => {
    const renders = [];
    const select = ({ status, title }) => ({ status, title });
    await render(make(Show, { id: "t1", renders, select }));
    await act(async () => last().greet({ tasks: [task("t1", { progress: 1 })] }));
    const before = renders.length;
    await tell(frame("t1", { progress: 2 }), frame("t1", { progress: 3 }));
    assert.equal(renders.length, before);
    await tell(frame("t1", { status: "succeeded" }));
    assert.ok(renders.length > before);
  });

  it("calls back once at the end, and not for an end that was there before", async () => {
    const ends = [];
    const onComplete = (one) => ends.push(one.task_id);
    await render([make(Show, { key: 1, id: "over", onComplete }), make(Show, { key: 2, id: "t1", onComplete })]);
    await act(async () => last().greet({ tasks: [task("over", { status: "failed" }), task("t1")] }));
    await tell(frame("t1", { status: "failed" }), frame("t1", { status: "failed", message: "more" }));
    assert.deepEqual(ends, ["t1"]);
  });

  it("calls back for an end that came while the page was loading", async () => {
    const ends = [];
    const onComplete = (one) => ends.push(`${one.task_id} ${one.status}`);
    const initialTask = task("t1", { progress: 90 });
    await render([make(Show, { key: 1, id: "t1", initialTask, onComplete }), make(Show, { key: 2, id: "over", initialTask: task("over", { status: "failed" }), onComplete })]);
    await act(async () => last().greet({ tasks: [task("t1", { status: "succeeded" }), task("over", { status: "failed" })] }));
    assert.deepEqual(ends, ["t1 succeeded"]);
    // What is known by the time of the first effect is no first sight either.
    await render(make(Show, { key: 3, id: "t1", initialTask, onComplete }));
    assert.deepEqual(ends, ["t1 succeeded"]);
  });

  it("calls back for an end between the first render and its effects", async () => {
    const ends = [];
    await render(make(Show, { key: 1, id: "t2" }));
    await act(async () => last().greet({ tasks: [task("t1"), task("t2")] }));
    const Meanwhile = () => {
      useLayoutEffect(() => last().tell(frame("t1", { status: "succeeded" })), []);
      return null;
    };
    await render([make(Meanwhile, { key: 2 }), make(Show, { key: 3, id: "t1", onComplete: ({ status }) => ends.push(status) })]);
    assert.deepEqual(ends, ["succeeded"]);
  });

  it("calls back for each end of a task that comes back", async () => {
    const ends = [];
    await render(make(Show, { id: "t1", onComplete: ({ status }) => ends.push(status) }));
    await act(async () => last().greet({ tasks: [task("t1")] }));
    await tell(frame("t1", { status: "lost" }), frame("t1"), frame("t1", { status: "succeeded" }));
    assert.deepEqual(ends, ["lost", "succeeded"]);
  });

  it("holds back what comes too fast, but not an end", async () => {
    const renders = [];
    await render(make(Show, { id: "t1", renders, throttleMs: 60_000 }));
    await act(async () => last().greet({ tasks: [task("t1", { progress: 1 })] }));
    await tell(frame("t1", { progress: 2 }));
    await tell(frame("t1", { progress: 3 }));
    const shown = place.textContent;
    assert.ok(["running 1", "running 2"].includes(shown), shown);
    await render(make(Show, { id: "t1", renders, throttleMs: 60_000 }));
    assert.equal(place.textContent, shown);
    await tell(frame("t1", { progress: 3, status: "succeeded" }));
    assert.equal(place.textContent, "succeeded 3");
  });

  it("tells the last of what it held back", async () => {
    await render(make(Show, { id: "t1", throttleMs: 50 }));
    await act(async () => last().greet({ tasks: [task("t1", { progress: 1 })] }));
    await tell(frame("t1", { progress: 2 }), frame("t1", { progress: 3 }), frame("t1", { progress: 4 }));
    await shows(() => place.textContent === "running 4");
  });

  it("shows what it was given until the service says something", async () => {
    await render(make(Show, { id: "t1", initialTask: task("t1", { progress: 77 }) }));
    assert.equal(place.textContent, "running 77");
    await act(async () => last().greet({ tasks: [task("t1", { progress: 78 })] }));
    assert.equal(place.textContent, "running 78");
  });

  it("follows another task when its id changes", async () => {
    let setId;
    const Switch = () => {
      const [id, set] = useState("t1");
      setId = set;
      return make(Show, { id, throttleMs: 1_000 });
    };
    await render(make(Switch));
    await act(async () => last().greet({ tasks: [task("t1", { progress: 1 }), task("t2", { progress: 2 })] }));
    await act(async () => setId("t2"));
    assert.equal(place.textContent, "running 2");
    await act(async () => setId("t1"));
    assert.equal(place.textContent, "running 1");
  });
});

describe("useTasks and useConnection", () => {
  function List({ query }) {
    const { state } = useConnection();
    return make("p", null, `${state}: ${useTasks(query).map(({ task_id }) => task_id).join(" ")}`);
  }

  it("show the list and the state, also when the query is written anew each time", async () => {
    await render(make(List, { query: { status: "active" } }));
    await act(async () => last().greet({ tasks: [task("t1"), task("t2", { status: "failed" })] }));
    await shows(() => place.textContent === "live: t1");
    await render(make(List, { query: { status: "active" } }));
    await tell(frame("t1", { status: "succeeded" }), frame("t3"));
    await shows(() => place.textContent === "live: t3");
    await render(make(List, { query: { filter: () => true } }));
    assert.match(place.textContent, /t1/);
    await act(async () => last().end(1006));
    assert.match(place.textContent, /^reconnecting/);
    assert.equal(made(), 1);
  });

  it("need a provider, and say so", () => {
    assert.throws(() => renderToString(make(List)), /TaskcastProvider/);
  });
});

describe("on a server", () => {
  const Page = () => make(Show, { id: "t1", initialTask: task("t1", { progress: 12 }) });

  it("nothing is connected, and the browser takes over without complaint", async () => {
    const html = renderToString(wrap(make(Page)));
    assert.equal(html, "<p>running 12</p>");
    assert.equal(made(), 0);
    place.innerHTML = html;
    const complaints = [];
    const { error } = console;
    console.error = (...words) => complaints.push(words.join(" "));
    try {
      await act(async () => { root = hydrateRoot(place, wrap(make(Page)), { onRecoverableError: (fault) => complaints.push(`${fault}`) }); });
      await act(async () => last().greet({ tasks: [task("t1", { progress: 13 })] }));
    } finally {
      console.error = error;
    }
    assert.deepEqual(complaints, []);
    assert.equal(place.textContent, "running 13");
    assert.equal(made(), 1);
  });

  it("two people's pages share no client", () => {
    const options = { url: "https://tasks.test" };
    const clients = new Set();
    const Look = () => {
      clients.add(useTaskcastClient());
      return null;
    };
    for (let turn = 0; turn < 2; turn += 1) renderToString(make(TaskcastProvider, { options }, make(Look)));
    assert.equal(clients.size, 2);
  });
});
