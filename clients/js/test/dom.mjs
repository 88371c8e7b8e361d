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

/** Waits until that holds of the page; only ever in vain when it never does. */
export function until(holds, what = `${holds}`) {
  return new Promise((resolve, reject) => {
    const finish = (settle, value) => {
      clearTimeout(timer);
      observer.disconnect();
      settle(value);
    };
    const observer = new window.MutationObserver(() => holds() && finish(resolve));
    const timer = setTimeout(() => finish(reject, new Error(`never: ${what}`)), 10_000);
    observer.observe(document.body, { subtree: true, childList: true, characterData: true });
    if (holds()) finish(resolve);
  });
}
