// A document for tests that render; time is the machine's own here, so what is waited for is an event.

import { JSDOM } from "jsdom";

import { FakeWebSocket } from "./support.mjs";

const { window } = new JSDOM("<!doctype html><body></body>", { url: "https://tasks.test/app/", pretendToBeVisual: true });
const names = [
  "window", "document", "navigator", "location", "HTMLElement", "customElements", "CustomEvent", "Event", "Node", "Element",
  "MutationObserver", "addEventListener", "removeEventListener",
];
for (const name of names) {
  const value = name === "window" ? window : typeof window[name] === "function" && /^(add|remove)/.test(name) ? window[name].bind(window) : window[name];
  Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
}
globalThis.WebSocket = FakeWebSocket;
globalThis.IS_REACT_ACT_ENVIRONMENT = true;

export { window };

/** Waits until that holds; only ever in vain when it never does. */
export async function until(holds, what = `${holds}`) {
  for (let turn = 0; turn < 2_000; turn += 1) {
    if (await holds()) return;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  throw new Error(`never: ${what}`);
}
