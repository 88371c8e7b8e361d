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
const [{ Model }, { View }, { filtersOf, searchOf, matcher, isFiltering }, { Trail }, { stations }, { numbers, statusName, whole, wordsOf }, { token }, { place }, { wordsOfHistory }, { TaskPage }] = await Promise.all(
  ["model", "view", "filters", "trail", "timeline", "format", "token", "dom", "history", "task-page"].map((name) => import(join(folder, "page", `${name}.js`))));

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

const WEIGHTS = [0, 1, 1, 1, 2, 3, 1e-9, 1e300, 1e308];

it("a group rolls up what its tasks are and were, whatever came and went", () => {
  for (let seed = 1; seed <= 30; seed += 1) {
    const roll = dice(seed);
    const model = new Model();
    // What ended and went while others of its group stayed, by group and id.
    const former = new Map();
    for (let turn = 0; turn < 200; turn += 1) {
      const id = `t${roll(12)}`;
      if (roll(7) === 0) {
        const row = model.rows.get(id);
        const group = row?.group;
        model.change(id, undefined);
        if (row?.task.status === "failed" && group.size > 0 && group.key !== id) former.set(group, (former.get(group) ?? new Map()).set(id, row.counted));
      } else {
        model.change(id, task(id, { status: ["queued", "running", "failed"][roll(3)], root_id: `t${roll(3)}`, weight: WEIGHTS[roll(9)], ...(roll(4) ? { progress: roll(101) } : {}) }));
        for (const [group, gone] of former) {
          const counted = gone.get(id);
          // Known again elsewhere: what it was stays with the group that it left.
          if (gone.delete(id) && model.rows.get(id).group !== group) gone.set(Symbol(id), counted);
        }
      }
      for (const group of model.groups.values()) {
        const rows = [...group.children];
        const gone = [...(former.get(group)?.values() ?? [])];
        const shares = [...rows.map(({ counted }) => counted), ...gone];
        const weights = shares.reduce((sum, { weight }) => sum + weight, 0);
        const sum = shares.reduce((total, { weight, percent }) => total + weight * (percent ?? 0), 0);
        assert.equal(group.former, gone.length);
        if (weights > 0.5 && shares.some(({ percent }) => percent !== null)) assert.ok(Math.abs(group.mean - sum / weights) < 1e-6, `${group.mean} is not ${sum / weights}`);
        else assert.ok(group.mean === null || (group.mean >= 0 && group.mean <= 100), `${group.mean}`);
        for (const [status, count] of group.counts) assert.equal(count, rows.filter(({ task }) => task.status === status).length);
      }
      const all = [...model.rows.values()];
      assert.equal([...model.statuses.values()].reduce((sum, count) => sum + count, 0), all.length);
      assert.equal(model.active, all.filter(({ task }) => task.status !== "failed").length);
    }
  }
});

it("a weight beyond all measure harms no bar, and is forgotten when it is taken back", () => {
  const model = new Model();
  const say = (id, weight, progress) => model.change(id, task(id, { status: "running", root_id: "w", weight, progress }));
  for (const [id, progress] of [["a", 10], ["b", 30], ["c", 50]]) say(id, 1, progress);
  const group = model.groups.get("w");
  for (const weight of [1e300, 1e308]) {
    say("c", weight, 50);
    say("b", weight, 30);
    assert.ok(group.percent >= 30 && group.percent <= 50, `${group.percent}`);
  }
  say("b", 1, 30);
  say("c", 1, 50);
  assert.equal(whole(group.percent), "30");
});

it("the bar of a group stays where it is when the service no longer keeps a task that ended", () => {
  const model = new Model();
  for (let index = 0; index < 9; index += 1) model.change(`t${index}`, task(`t${index}`, { status: "succeeded", root_id: "r" }));
  const last = (fields) => model.change("last", task("last", { status: "running", root_id: "r", progress: 10, ...fields }));
  last({});
  const group = model.groups.get("r");
  assert.equal(group.percent, 91);
  for (let index = 0; index < 9; index += 1) model.change(`t${index}`, undefined);
  assert.deepEqual([group.percent, group.isGroup, group.face, wordsOf(group)], [91, true, null, "10 tasks: 1 running, 9 no longer kept"]);
  model.change("t0", task("t0", { status: "succeeded", root_id: "r" }));
  assert.deepEqual([group.percent, wordsOf(group)], [91, "10 tasks: 1 running, 1 succeeded, 8 no longer kept"]);
  // One that had not ended takes its share along.
  model.change("last", undefined);
  assert.equal(group.percent, 100);
  model.change("t0", undefined);
  assert.equal(model.groups.size, 0);
});

it("a bar never goes back, whatever is told", () => {
  const model = new Model();
  const drawn = [];
  for (const progress of [30, 50, 20, 60, 10, 70]) {
    model.change("t", task("t", { status: "running", progress }));
    drawn.push(model.groups.get("t").percent);
  }
  assert.deepEqual(drawn, [30, 50, 50, 60, 60, 70]);
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
    assert.ok(trail.points.length <= 16 && trail.stages.length <= 12 && trail.messages.length <= 5, `${turn}`);
  }
  assert.deepEqual([trail.points[0], trail.points.at(-2), trail.points.at(-1)], [Date.parse(at(0)), Date.parse(at(4_999)), 99.9]);
  assert.deepEqual(trail.messages.map(({ text }) => text), ["m4995", "m4996", "m4997", "m4998", "m4999"]);
  assert.equal(trail.dropped, 4_995);
  trail.study(true);
  for (let turn = 5_000; turn < 5_400; turn += 1) trail.note(task("t", { status: "running", message: `m${turn}`, updated_at: at(turn), attempt: 5 }), 99.9);
  assert.ok(trail.points.length > 700 && trail.points.length <= 1_200 && trail.messages.length === 200, `${trail.points.length}`);
  trail.study(false);
  assert.ok(trail.points.length <= 16 && trail.messages.length === 5);
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

it("a task that counts without a total keeps its line when it succeeds", () => {
  const trail = new Trail();
  const say = (second, percent, fields) => trail.note(task("t", { status: "running", updated_at: at(second), ...fields }), percent);
  for (const second of [1, 2, 3]) say(second, null, { current: second * 10 });
  say(4, 100, { status: "succeeded", current: 30 });
  assert.deepEqual([trail.isCount, trail.points.filter((_, index) => index % 2)], [true, [10, 20, 30, 30]]);
  // Once there is a total, what was counted before is on another scale.
  const later = new Trail();
  later.note(task("t", { status: "running", current: 5, updated_at: at(1) }), null);
  later.note(task("t", { status: "running", current: 6, total: 10, updated_at: at(2) }), 60);
  later.note(task("t", { status: "running", current: 1, step: "b", updated_at: at(3) }), null);
  assert.deepEqual([later.isCount, later.points], [false, [Date.parse(at(2)), 60]]);
  assert.equal(later.begins, Date.parse(at(1)));
});

/** A task's way: states with the status, progress, message and attempt of each second. */
const WAY = [
  ["queued", undefined, ""], ["running", 0, "Begun"], ["running", 10, "Begun"], ["running", 30, "Third"], ["failed", 30, ""], ["retrying", undefined, "Again", 2],
  ["running", 5, "Again", 2], ["running", 40, "Almost", 2], ["succeeded", 100, "Done", 2],
].map(([status, progress, message, attempt = 1], second) => task("t", { status, progress, message, attempt, updated_at: at(second) }));

function followed(frames) {
  const model = new Model();
  for (const frame of frames) model.change("t", frame);
  const { trail } = model.rows.get("t");
  trail.study(true);
  return trail;
}

const wayOf = ({ points, stages, messages, isCount }) => ({ points, stages, messages: messages.map(({ at, text }) => [at, text]), isCount });

it("what was told before anybody looked goes where it belongs, whatever of it was seen", () => {
  const whole = wayOf(followed(WAY));
  assert.deepEqual(whole.stages.map(({ status }) => status), ["queued", "running", "failed", "retrying", "running", "succeeded"]);
  for (let seen = 1; seen < 2 ** WAY.length; seen += 1) {
    const frames = WAY.filter((_, index) => seen & (1 << index));
    const trail = followed(frames);
    const last = WAY.indexOf(frames.at(-1));
    trail.recall(WAY);
    trail.recall(WAY);
    // The rest is on its way by itself.
    const model = followed(WAY.slice(0, last + 1));
    assert.deepEqual(wayOf(trail), wayOf(model), `seen ${seen.toString(2)}`);
  }
});

it("what was seen before that which is still kept stays", () => {
  const trail = followed(WAY.slice(0, 8));
  trail.recall(WAY.slice(4));
  assert.deepEqual(wayOf(trail), wayOf(followed(WAY.slice(0, 8))));
});

it("a line of percents stays one when counts of before are told", () => {
  const counts = [1, 2].map((current) => task("t", { status: "running", current, updated_at: at(current) }));
  const percents = [50, 60].map((progress, index) => task("t", { status: "running", progress, updated_at: at(10 + index) }));
  const line = [Date.parse(at(10)), 50, Date.parse(at(11)), 60];
  const trail = followed(percents);
  trail.recall([...counts, ...percents]);
  assert.deepEqual([trail.isCount, trail.points], [false, line]);
  trail.recall(counts);
  assert.deepEqual([trail.isCount, trail.points], [false, line]);
  const counting = followed(counts.slice(1));
  counting.recall(counts);
  assert.deepEqual([counting.isCount, counting.points.filter((_, index) => index % 2)], [true, [1, 2]]);
});

/** Frames of one second, as where dates are whole seconds. */
const inOneSecond = (...told) => told.map((fields) => task("t", { status: "running", ...fields, updated_at: at(1) }));

it("what was told within one second is there once, in its order, however often it is recalled", () => {
  const frames = inOneSecond({ message: "A", progress: 1 }, { message: "B", progress: 2, status: "paused" }, { message: "C", progress: 3 });
  const whole = wayOf(followed(frames));
  assert.deepEqual(whole.messages.map(([, words]) => words), ["A", "B", "C"]);
  for (const told of [frames, frames.slice(1), frames.slice(1, 2), [frames[0], frames[2]]]) {
    const trail = followed(frames);
    for (let turn = 0; turn < 3; turn += 1) trail.recall(told);
    assert.deepEqual(wayOf(trail), whole);
  }
  const late = followed(frames.slice(2));
  late.recall(frames);
  assert.deepEqual(wayOf(late), whole);
  const again = inOneSecond({ message: "A" }, { message: "B" }, { message: "A" });
  const trail = followed(again);
  for (let turn = 0; turn < 3; turn += 1) trail.recall(again.slice(0, 2));
  assert.deepEqual(trail.messages.map(({ text }) => text), ["A", "B", "A"]);
});

it("messages that come back each time that the task is looked at are no longer counted as dropped", () => {
  const frames = Array.from({ length: 30 }, (_, second) => task("t", { status: "running", message: `m${second}`, updated_at: at(second) }));
  const trail = followed(frames);
  trail.study(false);
  assert.equal(trail.dropped, 25);
  for (let turn = 0; turn < 4; turn += 1) {
    trail.study(true);
    trail.recall(frames.slice(14));
    assert.deepEqual([trail.messages.length, trail.dropped], [16, 14]);
    trail.study(false);
    assert.deepEqual([trail.messages.length, trail.dropped], [5, 25]);
  }
});

it("a line does not dip where what is recalled knows less of what was before", () => {
  const states = [[1, 50], [2, 40], [3, 45], [4, 60]].map(([second, progress]) => task("t", { status: "running", progress, updated_at: at(second) }));
  const valuesOf = ({ points }) => points.filter((_, index) => index % 2);
  const trail = followed(states);
  assert.deepEqual(valuesOf(trail), [50, 50, 50, 60]);
  trail.recall(states.slice(1));
  assert.deepEqual(valuesOf(trail), [50, 50, 50, 60]);
  // In another step, or attempt, it begins anew.
  const turns = [[1, 80, "a", 1], [2, 90, "a", 1], [3, 10, "b", 1], [4, 30, "b", 1], [5, 5, "b", 2], [6, 40, "b", 2]]
    .map(([second, progress, step, attempt]) => task("t", { status: "running", progress, step, attempt, updated_at: at(second) }));
  const sparse = followed(turns.filter((_, index) => index % 3 === 0 || index === 5));
  sparse.recall(turns);
  assert.deepEqual(valuesOf(sparse), [80, 90, 10, 30, NaN, 5, 40]);
});

it("of a task that was removed and told again the page asks for the past once more", async () => {
  const anything = new Proxy(() => {}, { get: (_, name) => (name === Symbol.iterator ? [][Symbol.iterator].bind([]) : name === Symbol.toPrimitive ? () => "" : anything), set: () => true, apply: () => anything });
  const [before, asked] = [globalThis.fetch, []];
  for (const name of ["document", "requestAnimationFrame", "sessionStorage"]) Object.defineProperty(globalThis, name, { value: anything, configurable: true });
  globalThis.fetch = async (address) => (asked.push(address), { ok: true, json: async () => ({ frames: WAY.slice(0, 1), from_start: true, frames_max: 16 }) });
  try {
    const model = new Model();
    const handle = { current: null, error: null, on: () => () => {} };
    const page = new TaskPage({ task: () => handle, connection: { current: { state: "live" } } }, model, () => {});
    const tell = async (task) => {
      model.change("t", (handle.current = task));
      page.draw();
      await new Promise(setImmediate);
    };
    page.open("t");
    for (const [task, count] of [[WAY[0], 1], [WAY[1], 1], [null, 1], [WAY[1], 2], [WAY[2], 2]]) {
      await tell(task);
      assert.equal(asked.length, count);
    }
    page.open(null);
  } finally {
    globalThis.fetch = before;
    for (const name of ["document", "requestAnimationFrame", "sessionStorage"]) delete globalThis[name];
  }
});

it("the page says how far back it goes, and that something may be missing", () => {
  const trail = { begins: Date.parse(at(5)) };
  const told = (frames, from_start) => wordsOfHistory(trail, { frames, from_start, frames_max: 16 });
  assert.match(wordsOfHistory(trail, null), /^Shown from [^;.]+ on\.$/);
  assert.match(told(WAY, true), /^Shown from its first event on\. .+ may be missing\.$/);
  const some = [...WAY, ...WAY].slice(0, 16);
  for (const words of [told(some, true), told(WAY, false)]) assert.match(words, /^Shown from .+ the newest 16 states of a task, .+ may be missing/);
  assert.match(wordsOfHistory(trail, { error: "HTTP 429" }), /could not be asked for \(HTTP 429\)/);
});

it("groups are open where something is looked for, so that it can be seen", () => {
  const model = new Model();
  model.change("p", task("p", { status: "running" }));
  model.change("c", task("c", { status: "failed", root_id: "p" }));
  model.change("d", task("d", { status: "running", root_id: "p" }));
  const view = new View(model, filtersOf(""));
  const shown = () => view.lines.map(({ row }) => row.id);
  assert.deepEqual(shown(), ["p"]);
  view.ask(filtersOf("?status=failed"));
  assert.deepEqual(shown(), ["p", "c"]);
  view.toggle(model.groups.get("p"));
  assert.deepEqual(shown(), ["p"]);
  view.ask(filtersOf(""));
  assert.deepEqual(shown(), ["p"]);
});

it("words and numbers say what is so", () => {
  for (const status of ["constructor", "__proto__", "toString"]) assert.equal(statusName(status), status);
  const bar = { secondsLeft: null };
  assert.deepEqual(numbers(task("t", { status: "running", current: 20, total: 120 }), bar), ["20 of 120"]);
  assert.deepEqual(numbers(task("t", { status: "succeeded", current: 20, total: 120 }), bar), []);
  assert.deepEqual(numbers(task("t", { status: "succeeded", current: 20, unit: "pages" }), bar), ["20 pages"]);
});

/** A tab that opens an address, and remembers the addresses that it was given instead. */
function tab() {
  const kept = new Map();
  const storage = { getItem: (key) => kept.get(key) ?? null, setItem: (key, value) => kept.set(key, value), removeItem: (key) => kept.delete(key) };
  const location = { pathname: "/", search: "", hash: "" };
  const globals = { sessionStorage: storage, location, history: { replaceState: (_state, _title, address) => { location.hash = address.slice(1); } } };
  for (const [name, value] of Object.entries(globals)) Object.defineProperty(globalThis, name, { value, configurable: true });
  return {
    open(hash) {
      location.hash = hash;
      token.adopt();
      return token.get();
    },
    close: () => Object.keys(globals).forEach((name) => delete globalThis[name]),
  };
}

const tokenFor = (watch) => `x.${Buffer.from(JSON.stringify({ taskcast: { watch } })).toString("base64url")}.x`;

it("a link to share is for its own pages where somebody is signed in, and for all where nobody is", () => {
  const [own, link, group] = [tokenFor(["own"]), tokenFor(["task:a"]), tokenFor(["root:g"])];
  const { open, close } = tab();
  try {
    assert.equal(open(`#token=${link}`), link);
    assert.deepEqual([location.hash, token.isLent, open("")], ["#task=a", false, link]);
    token.clear();
    assert.equal(open(`#token=${own}&task=b`), own);
    assert.equal(open(`#token=${link}`), link);
    assert.deepEqual([location.hash, token.isLent], ["#task=a", true]);
    for (const [hash, held] of [["#task=b", own], ["", own], ["#task=a", link], ["", own]]) assert.equal(open(hash), held, hash);

    // The link says nothing of another task, and the address cannot make it.
    assert.equal(open(`#token=${link}&task=mine`), own);
    assert.deepEqual([location.hash, token.isLent, open("#task=a")], ["#task=mine", false, link]);
    assert.equal(open(`#token=${group}&task=mine`), group);
    assert.deepEqual([location.hash, token.isLent, open("#task=mine")], ["#task=g", true, own]);

    assert.equal(open(`#token=${group}`), group);
    for (let index = 0; index < 300; index += 1) token.visit(`part-${index}`, "g");
    token.visit("stranger", "another");
    const held = ["g", "part-299", "part-250", "part-0", "stranger", "a", ""].map((id) => open(id && `#task=${id}`) === group);
    assert.deepEqual(held, [true, true, true, false, false, false, false]);

    open("#task=g");
    token.set("another.sign-in");
    assert.deepEqual([token.get(), token.isLent], ["another.sign-in", false]);
    open(`#token=${group}`);
    token.clear();
    assert.deepEqual([open("#task=g"), open("")], [null, null]);
    // One link after another: neither is a sign-in.
    assert.deepEqual([open(`#token=${link}`), open(`#token=${group}&task=part`)], [link, group]);
    assert.deepEqual([location.hash, token.isLent, open("#task=a"), open("")], ["#task=part", false, group, group]);
    token.clear();
    // By a cookie, which nobody can read.
    token.accepted();
    assert.equal(open(`#token=${link}`), link);
    assert.equal(open(""), null);
  } finally {
    token.clear();
    close();
  }
});

it("a token holds where a browser keeps nothing", () => {
  Object.defineProperty(globalThis, "sessionStorage", { configurable: true, get() { throw new Error("denied"); } });
  try {
    token.set(" a.b.c ");
    assert.equal(token.get(), "a.b.c");
    token.clear();
    assert.equal(token.get(), null);
  } finally {
    delete globalThis.sessionStorage;
  }
});

it("the child that has the focus is never moved, and the others come into their order around it", () => {
  for (let seed = 1; seed <= 60; seed += 1) {
    const roll = dice(seed);
    const moved = [];
    const list = listOf(moved);
    let focused = null;
    globalThis.document = { get activeElement() { return focused; } };
    try {
      const nodes = Array.from({ length: 8 }, (_, index) => nodeOf(list, `n${index}`));
      for (let turn = 0; turn < 20; turn += 1) {
        const wanted = nodes.filter((node) => node === focused || roll(3));
        for (let index = wanted.length - 1; index > 0; index -= 1) {
          const other = roll(index + 1);
          [wanted[index], wanted[other]] = [wanted[other], wanted[index]];
        }
        moved.length = 0;
        place(list, wanted);
        assert.deepEqual(list.childNodes.map(({ name }) => name), wanted.map(({ name }) => name));
        assert.ok(!moved.includes(focused), `seed ${seed}, turn ${turn}`);
        focused = wanted.length > 0 ? wanted[roll(wanted.length)] : null;
      }
    } finally {
      delete globalThis.document;
    }
  }
});

/** As much of an element as is needed to put children in their order. */
function listOf(moved) {
  const list = {
    childNodes: [],
    get firstChild() { return this.childNodes[0] ?? null; },
    contains: (node) => node !== null && node.parentNode === list,
    append: (node) => list.insertBefore(node, null),
    insertBefore(node, at) {
      if (node.parentNode === list) node.remove();
      moved.push(node);
      node.parentNode = list;
      list.childNodes.splice(at === null ? list.childNodes.length : list.childNodes.indexOf(at), 0, node);
    },
  };
  return list;
}

function nodeOf(list, name) {
  const node = {
    name, parentNode: null, contains: (other) => other === node,
    get nextSibling() { return list.childNodes[list.childNodes.indexOf(node) + 1] ?? null; },
    remove() {
      list.childNodes.splice(list.childNodes.indexOf(node), 1);
      node.parentNode = null;
    },
  };
  return node;
}
