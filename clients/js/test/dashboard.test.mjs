// What the service's own page makes of tasks: groups, filters, the order of its lines, what it remembers of a task's way.

import assert from "node:assert/strict";
import { cpSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, it } from "node:test";

import { root, task } from "./support.mjs";

// As the service gives them out: the client beside the folder of the page.
const folder = mkdtempSync(join(tmpdir(), "taskcast-page-"));
after(() => rmSync(folder, { recursive: true }));
cpSync(join(root, "src/http/page"), join(folder, "page"), { recursive: true });
writeFileSync(join(folder, "package.json"), '{"type": "module"}');
writeFileSync(join(folder, "client.js"), `export * from ${JSON.stringify(new URL("../src/index.js", import.meta.url).href)};`);
const [{ Model }, { View }, { filtersOf, searchOf, matcher, isFiltering }, { Trail }, { stations }] = await Promise.all(
  ["model", "view", "filters", "trail", "timeline"].map((name) => import(join(folder, "page", `${name}.js`))));

const at = (second) => new Date(Date.UTC(2026, 0, 1) + second * 1_000).toISOString();
const linesOf = ({ lines }) => lines.map((line) => `${line.level}:${line.row?.id ?? line.id ?? ""}:${line.key}:${line.rank}:${line.count ?? ""}`);

/** The same numbers each time. */
function dice(seed) {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

const SEARCHES = ["", "?status=running", "?status=active,failed&groups=open", "?order=status", "?tag=x&order=status&groups=open", "?q=t1&groups=open", "?type=a&owner=u1"];

it("the lines kept by what changed are those that sorting all of them anew gives", () => {
  for (let seed = 1; seed <= 40; seed += 1) {
    const roll = dice(seed);
    const model = new Model();
    let filters = filtersOf(SEARCHES[seed % SEARCHES.length]);
    const view = new View(model, filters);
    for (let turn = 0; turn < 60; turn += 1) {
      for (let count = roll(6); count >= 0; count -= 1) {
        const id = `t${roll(25)}`;
        if (roll(6) === 0) model.change(id, undefined);
        else {
          const fields = {
            status: ["queued", "running", "succeeded", "failed"][roll(4)], progress: roll(101), name: "ab"[roll(2)], user_id: `u${roll(2)}`,
            created_at: at(Number(id.slice(1)) % 9), tags: roll(2) ? ["x"] : [], weight: roll(3),
          };
          if (roll(3)) fields.root_id = `t${roll(4)}`;
          model.change(id, task(id, fields));
        }
      }
      if (roll(8) === 0) view.ask((filters = filtersOf(SEARCHES[roll(SEARCHES.length)])));
      view.update(model.take());
      if (turn % 5 < 4) continue;
      const anew = new View(model, filters);
      const [kept, sorted] = [linesOf(view), linesOf(anew)];
      const wanted = view.wanted;
      // The other one took the lines over, as there is one for each row.
      view.ask(filters);
      assert.deepEqual(kept, sorted, `seed ${seed}, turn ${turn}, ${searchOf(filters)}`);
      assert.equal(wanted, anew.wanted, `seed ${seed}, turn ${turn}`);
      for (const group of model.groups.values()) assert.equal(group.wanted, [...group.children, group.root].filter((row) => row?.isWanted).length);
    }
  }
});

it("a group rolls up what its tasks are, whatever came and went", () => {
  for (let seed = 1; seed <= 30; seed += 1) {
    const roll = dice(seed);
    const model = new Model();
    for (let turn = 0; turn < 200; turn += 1) {
      const id = `t${roll(12)}`;
      if (roll(7) === 0) model.change(id, undefined);
      else model.change(id, task(id, { status: ["queued", "running", "failed"][roll(3)], root_id: `t${roll(3)}`, weight: roll(4), ...(roll(4) ? { progress: roll(101) } : {}) }));
      for (const group of model.groups.values()) {
        const rows = [...group.children];
        const weights = rows.reduce((sum, { counted }) => sum + counted.weight, 0);
        const sum = rows.reduce((total, { counted }) => total + counted.weight * (counted.percent ?? 0), 0);
        const expected = weights > 0 && rows.some(({ counted }) => counted.percent !== null) ? sum / weights : null;
        if (expected === null) assert.equal(group.mean, null);
        else assert.ok(Math.abs(group.mean - expected) < 1e-6, `${group.mean} is not ${expected}`);
        for (const [status, count] of group.counts) assert.equal(count, rows.filter(({ task }) => task.status === status).length);
      }
      const all = [...model.rows.values()];
      assert.equal([...model.statuses.values()].reduce((sum, count) => sum + count, 0), all.length);
      assert.equal(model.active, all.filter(({ task }) => task.status !== "failed").length);
    }
  }
});

it("a bar of a group is full only when its root, or all without a root, succeeded", () => {
  const model = new Model();
  model.change("r", task("r", { status: "running" }));
  model.change("a", task("a", { status: "succeeded", root_id: "r" }));
  assert.equal(model.groups.get("r").percent, 99.9);
  model.change("r", task("r", { status: "succeeded" }));
  assert.equal(model.groups.get("r").percent, 100);
  model.change("b", task("b", { status: "succeeded", root_id: "s" }));
  model.change("c", task("c", { status: "running", progress: 50, root_id: "s" }));
  assert.equal(model.groups.get("s").percent, 75);
  model.change("c", task("c", { status: "succeeded", root_id: "s" }));
  assert.equal(model.groups.get("s").percent, 100);
});

it("an address says the filters, and the filters that address", () => {
  for (const search of SEARCHES) assert.equal(searchOf(filtersOf(search)), search);
  assert.equal(searchOf(filtersOf("?order=nonsense&status=&what=ever")), "");
  assert.equal(isFiltering(filtersOf("?order=status&groups=open")), false);
  assert.equal(isFiltering(filtersOf("?q=%20x")), true);
});

it("every word that is searched for has to be somewhere in the task", () => {
  const found = task("export-1", { title: "Export Invoices", message: "Row 30", tags: ["nightly"], user_id: 7 });
  for (const words of ["invoices ROW", "nightly", "export-1 7", "  "]) assert.ok(matcher(filtersOf(`?q=${words}`))(found), words);
  for (const words of ["invoices zz", "rown"]) assert.ok(!matcher(filtersOf(`?q=${words}`))(found), words);
  assert.ok(matcher(filtersOf("?owner=7"))(found) && !matcher(filtersOf("?owner=8"))(found));
});

it("a trail never takes more than it may, and keeps the first point and the last", () => {
  const trail = new Trail();
  for (let turn = 0; turn < 5_000; turn += 1) {
    trail.note(task("t", { status: turn % 7 ? "running" : "waiting", message: `m${turn}`, updated_at: at(turn), attempt: 1 + Math.floor(turn / 1_000) }), turn % 1_000 / 10);
    assert.ok(trail.points.length <= 48 && trail.stages.length <= 12 && trail.messages.length <= 5, `${turn}`);
  }
  assert.deepEqual([trail.points[0], trail.points.at(-2), trail.points.at(-1)], [Date.parse(at(0)), Date.parse(at(4_999)), 99.9]);
  assert.deepEqual(trail.messages.map(({ text }) => text), ["m4995", "m4996", "m4997", "m4998", "m4999"]);
  assert.equal(trail.dropped, 4_995);
  trail.study(true);
  for (let turn = 5_000; turn < 5_400; turn += 1) trail.note(task("t", { status: "running", message: `m${turn}`, updated_at: at(turn), attempt: 5 }), 99.9);
  assert.ok(trail.points.length > 700 && trail.points.length <= 1_200 && trail.messages.length === 200, `${trail.points.length}`);
  trail.study(false);
  assert.ok(trail.points.length <= 48 && trail.messages.length === 5);
  for (let index = 2; index < trail.points.length; index += 2) assert.ok(trail.points[index] >= trail.points[index - 2]);
});

it("the stations of a task are its dates and what was seen, each once", () => {
  const trail = new Trail();
  const wordsOf = (now) => stations(now, trail).map(({ words }) => words);
  const dates = { created_at: at(0), started_at: at(5) };
  const running = task("t", { status: "running", ...dates, updated_at: at(60) });
  trail.note(running, 10);
  assert.deepEqual(wordsOf(running), ["created", "started"]);
  const again = task("t", { status: "retrying", attempt: 2, ...dates, updated_at: at(70) });
  trail.note(again, 0);
  const ended = task("t", { status: "succeeded", attempt: 2, ...dates, updated_at: at(80), completed_at: at(80) });
  trail.note(ended, 100);
  assert.deepEqual(wordsOf(ended), ["created", "started", "retrying, attempt 2", "succeeded"]);
  const late = new Trail();
  const failed = task("f", { status: "failed", created_at: at(0), completed_at: at(9), updated_at: at(9) });
  late.note(failed, null);
  assert.deepEqual(stations(failed, late).map(({ words }) => words), ["created", "failed"]);
});
