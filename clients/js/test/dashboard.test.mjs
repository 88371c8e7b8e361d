// Which tasks the service's own page shows.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { it } from "node:test";

import { root, task } from "./support.mjs";

it("the service's page shows what ended for a while after it saw that, whatever the clocks say", async () => {
  const source = readFileSync(join(root, "src/http/page/tasks.js"), "utf8").replace("./client.js", new URL("../src/index.js", import.meta.url).href);
  const { recent } = await import(`data:text/javascript,${encodeURIComponent(source)}`);
  let now = 1_000;
  performance.now = () => now;
  const tasks = ["2020-01-01T00:00:00.000Z", "2040-01-01T00:00:00.000Z"].map((completed_at, at) => task(`t${at}`, { status: "succeeded", completed_at }));
  const shown = (...more) => recent([...tasks, ...more]).map(({ task_id: id }) => id);
  assert.deepEqual(shown(task("t2")), ["t0", "t1", "t2"]);
  now += 4 * 60_000;
  assert.deepEqual(shown(task("t2", { status: "failed" })), ["t0", "t1", "t2"]);
  now += 2 * 60_000;
  assert.deepEqual(shown(task("t2", { status: "failed" })), ["t2"]);
  now += 10 * 60_000;
  assert.deepEqual(shown(task("t2")), ["t2"]);
});
