// What the service's own page does when a part of it did not come.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { it } from "node:test";
import { runInNewContext } from "node:vm";

import { root } from "./support.mjs";

const source = readFileSync(join(root, "src/http/page/loading.js"), "utf8");

class HTMLScriptElement {}
class HTMLLinkElement {
  rel = "stylesheet";
}
const [script, style] = [new HTMLScriptElement(), new HTMLLinkElement()];

/** One tab: `load` is one page in it of which `missing` did not come. */
function tab({ keeps = true } = {}) {
  const kept = new Map();
  const sessionStorage = { getItem: (key) => kept.get(key) ?? null, setItem: (key, value) => kept.set(key, value), removeItem: (key) => kept.delete(key) };
  return {
    /** Each in `answers`: what comes of the page when it is asked for. Tells after which waits, and whether it was loaded anew. */
    async load(missing, answers = [true]) {
      const listeners = {};
      const [waits, questions] = [[], []];
      let due = [];
      let [isReloaded, asked] = [false, 0];
      runInNewContext(source, {
        HTMLScriptElement, HTMLLinkElement, AbortSignal,
        addEventListener: (name, listener) => { listeners[name] = listener; },
        document: { readyState: "complete", querySelector: () => null },
        get sessionStorage() {
          if (!keeps) throw new Error("denied");
          return sessionStorage;
        },
        location: { pathname: "/tasks/", reload: () => { isReloaded = true; } },
        setTimeout: (action, wait) => {
          waits.push(wait);
          due.push(action);
        },
        fetch: async (address, { cache, signal }) => {
          questions.push([address, cache, signal instanceof AbortSignal]);
          const answer = answers[asked++];
          if (answer === undefined) throw new TypeError("no network");
          return { ok: answer };
        },
      });
      for (const target of missing) listeners.error({ target });
      listeners.load();
      while (due.length > 0 && asked < answers.length) {
        const [action] = due;
        due = due.slice(1);
        await action();
      }
      // What the page does not hear of it takes for a network that is away.
      for (const question of questions) assert.deepEqual(question, ["/tasks/", "no-store", true]);
      return { waits, isReloaded };
    },
  };
}

it("a page is loaded anew only when it can be had", async () => {
  const { load } = tab();
  assert.deepEqual(await load([script], [undefined, false, true]), { waits: [500, 2_000, 5_000], isReloaded: true });
  assert.deepEqual(await load([script], [undefined]), { waits: [2_000, 5_000], isReloaded: false });
  assert.deepEqual(await load([]), { waits: [], isReloaded: false });
  assert.deepEqual(await load([style, script]), { waits: [500], isReloaded: true });
});

it("a page that works is not loaded anew for ever, and one that does not is", async () => {
  const { load } = tab();
  for (const wait of [500, 2_000, 5_000, 15_000, 60_000]) assert.deepEqual(await load([style]), { waits: [wait], isReloaded: true });
  for (let turn = 0; turn < 3; turn += 1) assert.deepEqual(await load([style, style]), { waits: [], isReloaded: false });
  for (let turn = 0; turn < 3; turn += 1) assert.deepEqual(await load([style, script]), { waits: [60_000], isReloaded: true });
  await load([]);
  assert.deepEqual((await load([style])).waits, [500]);
  const unkept = tab({ keeps: false });
  assert.deepEqual(await unkept.load([style]), { waits: [], isReloaded: false });
  assert.deepEqual(await unkept.load([script]), { waits: [60_000], isReloaded: true });
});
