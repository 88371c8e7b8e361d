// A scripted service and a browser of a few lines, on a clock that the test moves.

import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { mock } from "node:test";
import { fileURLToPath } from "node:url";

/** The root of the project, wherever this is run. */
export const root = (() => {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, "Cargo.toml"))) folder = dirname(folder);
  return folder;
})();

export const vector = (name) => JSON.parse(readFileSync(join(root, "proto/vectors/server", `${name}.json`), "utf8")).encodings.json;
export const contract = JSON.parse(readFileSync(join(root, "proto/taskcast/v1/contract.json"), "utf8"));

/** Every WebSocket that was made, newest last. */
export let sockets = [];

export class FakeWebSocket {
  static OPEN = 1;
  readyState = 0;
  sent = [];
  onopen = null;
  onmessage = null;
  onclose = null;

  constructor(url, protocols) {
    this.url = new URL(url);
    this.protocols = protocols;
    sockets.push(this);
  }

  get token() {
    return this.protocols.find((name) => name.startsWith("bearer."))?.slice(7) ?? null;
  }

  open() {
    this.readyState = 1;
    this.onopen?.({});
  }

  tell(message) {
    this.onmessage?.({ data: JSON.stringify({ timestamp: new Date().toISOString(), ...message }) });
  }

  end(code, reason = "") {
    this.readyState = 3;
    this.onclose?.({ code, reason });
  }

  send(text) {
    this.sent.push(JSON.parse(text));
  }

  /** Its end is heard later, as the other side has to agree. */
  close(code) {
    this.closedWith = code;
    this.readyState = 2;
    Promise.resolve().then(() => this.readyState === 2 && this.end(code));
  }

  /** The greeting, and a snapshot unless it is resumed. */
  greet({ tasks = [], cursor = "c0", ...greeting } = {}) {
    this.open();
    this.tell({
      type: "connection_established", connection_id: "x", user_id: "u1", protocol: "taskcast.v1.json", resumed: false, cursor: null,
      heartbeat_interval_ms: 25_000, reconnect: { min_ms: 1_000, max_ms: 30_000 }, limits: {}, ...greeting,
    });
    if (greeting.resumed !== true) this.tell({ type: "active_tasks", tasks, cursor, more: false });
    return this;
  }

  /** Answers what was asked last under this type. */
  answer(type, answer) {
    const { id } = this.sent.findLast((message) => message.type === type);
    this.tell({ id, ...answer });
  }

  says(type) {
    return this.sent.filter((message) => message.type === type);
  }
}

export const last = () => sockets.at(-1);
export const open = () => sockets.filter(({ readyState }) => readyState < 2);

export const task = (id, more = {}) => ({
  task_id: id, status: "running", attempt: 1, user_id: "u1", created_at: "2026-01-01T00:00:00.000Z", updated_at: "2026-01-01T00:00:01.000Z", ...more,
});
export const frame = (id, more = {}) => ({
  type: ["running", "queued"].includes(more.status ?? "running") ? "task_progress" : "task_completed", cursor: "c1", ...task(id, more),
});

/** A browser with one page; `random` is what Math.random says. */
export function browse({ random = 0 } = {}) {
  sockets = [];
  mock.timers.reset();
  mock.timers.enable({ apis: ["setTimeout", "setInterval", "Date"], now: 1_800_000_000_000 });
  // As every browser does with what its timers cannot hold.
  const { setTimeout } = globalThis;
  globalThis.setTimeout = (call, ms, ...rest) => setTimeout(call, ms > 2 ** 31 - 1 ? 1 : ms, ...rest);
  mock.method(Math, "random", () => random);
  const page = new EventTarget();
  const document = Object.assign(new EventTarget(), { visibilityState: "visible" });
  const navigator = { onLine: true, locks: undefined };
  const globals = {
    WebSocket: FakeWebSocket, document, navigator, location: { href: "https://tasks.test/app/page?x=1#y", origin: "https://tasks.test" },
    addEventListener: page.addEventListener.bind(page), removeEventListener: page.removeEventListener.bind(page),
  };
  for (const [name, value] of Object.entries(globals)) Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
  const fire = (target, event, more = {}) => target.dispatchEvent(Object.assign(new Event(event), more));
  return {
    navigator,
    fire: (event, more) => fire(page, event, more),
    see(visibilityState) {
      document.visibilityState = visibilityState;
      fire(document, "visibilitychange");
    },
    goOn: () => fire(document, "resume"),
  };
}

/** Time goes on, a bit at a time as in a browser, and whatever was promised meanwhile happens. */
export async function pass(ms) {
  await settle();
  const end = Date.now() + ms;
  do {
    mock.timers.tick(Math.min(100, end - Date.now()));
    await settle();
  } while (Date.now() < end);
}

/** A sleeping machine or a throttled tab: the clock moves, and timers run late. */
export async function sleep(ms) {
  mock.timers.setTime(Date.now() + ms);
  mock.timers.tick(1);
  await settle();
}

export const settle = async () => {
  for (let turn = 0; turn < 20; turn += 1) await Promise.resolve();
};
