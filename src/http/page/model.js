// The tasks that are known and the groups that they form, with what follows for each: where its bar is, counts by status, mean
// progress. Told of one change at a time, and does no more for it than that change asks. Refuses to know: connections, filters,
// the page.

import { Bar, hasEnded } from "../client.js";
import { placeOf } from "./format.js";
import { Trail } from "./trail.js";

/** A task that weighs more than this weighs this: beside it others are nothing, and sums stay exact enough. */
const WEIGHT_MAX = 1e6;
/** Tasks that are no longer kept while their group is: should one be told again, it is not counted twice. */
const FORMER_MAX = 20_000;

/** The group that a task belongs to: its root, else its parent, else itself. */
export const groupOf = (task) => task.root_id ?? task.parent_id ?? task.task_id;

/** How many there are of each of many values. */
export class Counts extends Map {
  /** Grows when a value comes or goes, not when its number changes. */
  version = 0;

  count(value, by) {
    if (value === undefined || value === null || value === "") return;
    const before = this.get(value) ?? 0;
    if (before + by > 0) this.set(value, before + by);
    else this.delete(value);
    if (before === 0 || before + by <= 0) this.version += 1;
  }
}

/** One task. */
class Row {
  /** @type {Group | null} */
  group = null;
  isGone = false;
  bar = new Bar();
  trail = new Trail();
  /** What its group and the counts have of it. */
  counted = { status: "", percent: /** @type {number | null} */ (null), weight: 0 };
  /** What filters made of it. */
  isWanted = false;
  countedIn = 0;
  line = null;

  constructor(task) {
    this.id = task.task_id;
    this.task = task;
    this.begun = task.created_at ?? "";
  }
}

/** A task with those that belong to it; or a task alone. */
class Group {
  /** The task that the others belong to, once it is known. @type {Row | null} */
  root = null;
  /** All others. @type {Set<Row>} */
  children = new Set();
  /** Of the children. */
  counts = new Counts();
  /** How many children ended and are no longer kept. Their share of the bar stays, or it would fall without anybody's doing. */
  former = 0;
  #formerSucceeded = 0;
  #formerWeights = 0;
  #formerProgress = 0;
  #formerKnown = 0;
  #weights = 0;
  #progress = 0;
  #known = 0;
  /** How many of all of them the filters want. */
  wanted = 0;
  line = null;

  constructor(key, begun) {
    this.key = key;
    this.begun = begun;
  }

  get size() {
    return this.children.size + (this.root ? 1 : 0);
  }

  /** The task to show for all; null where several belong to one that is not known. */
  get face() {
    if (this.root) return this.root;
    if (this.children.size + this.former !== 1) return null;
    const [only] = this.children;
    return only;
  }

  /** Whether it is more than a task alone. */
  get isGroup() {
    return this.children.size + this.former > (this.root ? 0 : 1);
  }

  /** The mean of the children by their weights, unknown ones at nothing; null while nothing is known of any. */
  get mean() {
    const weights = this.#weights + this.#formerWeights;
    if (this.#known + this.#formerKnown === 0 || weights <= 0) return null;
    return Math.min(100, Math.max(0, (this.#progress + this.#formerProgress) / weights));
  }

  /** Where the bar of all of it is: full only when all have succeeded, or the root has. */
  get percent() {
    if (!this.isGroup) return this.face.bar.percent;
    if (this.root?.task.status === "succeeded") return 100;
    const { mean } = this;
    if (mean === null) return this.root?.bar.percent ?? null;
    const succeeded = (this.counts.get("succeeded") ?? 0) + this.#formerSucceeded;
    return succeeded === this.children.size + this.former && !this.root ? 100 : Math.min(mean, 99.9);
  }

  /** The root's status; without one, the most pressing of those of the children. */
  get status() {
    if (this.root || !this.isGroup) return this.face.task.status;
    return [...this.counts.keys()].sort((a, b) => placeOf(a) - placeOf(b))[0] ?? "";
  }

  /** @param {Row["counted"]} counted @param {1 | -1} sign */
  weigh({ status, percent, weight }, sign) {
    this.counts.count(status, sign);
    this.#weights += sign * weight;
    this.#progress += sign * weight * (percent ?? 0);
    if (percent !== null) this.#known += sign;
    // What is left of roundings is no progress.
    if (this.#known === 0) this.#progress = 0;
  }

  /** Adds up what was moved by differences: beside a great weight they lose what the others had. */
  weighAnew() {
    this.#weights = this.#progress = 0;
    for (const { counted: { percent, weight } } of this.children) {
      this.#weights += weight;
      this.#progress += weight * (percent ?? 0);
    }
  }

  /** A child is no longer kept, or is told again. @param {Row["counted"]} counted @param {1 | -1} sign */
  remember({ status, percent, weight }, sign) {
    this.former += sign;
    if (status === "succeeded") this.#formerSucceeded += sign;
    if (percent !== null) this.#formerKnown += sign;
    this.#formerWeights += sign * weight;
    this.#formerProgress += sign * weight * (percent ?? 0);
    if (this.#formerKnown === 0) this.#formerProgress = 0;
    if (this.former === 0) this.#formerWeights = 0;
  }
}

export class Model {
  /** @type {Map<string, Row>} */
  rows = new Map();
  /** @type {Map<string, Group>} */
  groups = new Map();
  statuses = new Counts();
  names = new Counts();
  owners = new Counts();
  tags = new Counts();
  active = 0;
  /** By their id, with the group that remembers them, the oldest first. @type {Map<string, {group: Group, counted: Row["counted"]}>} */
  #former = new Map();
  /** Rows and groups since they were last taken. */
  #rows = new Set();
  #groups = new Set();

  /** @param {string} id @param {import("../client.js").Task | undefined} now undefined: it is not known any more */
  change(id, now) {
    const known = this.rows.get(id);
    if (!now) return known && this.#remove(known);
    const row = known ?? this.#add(now);
    if (known) this.#count(row, -1);
    row.task = now;
    const key = groupOf(now);
    if (row.group?.key !== key) {
      if (row.group) this.#leave(row);
      this.#join(row, key);
    }
    const { status } = row.counted;
    row.bar.show(now);
    row.trail.note(now, row.bar.percent);
    this.#weigh(row);
    this.#count(row, 1);
    if (status !== now.status) this.#countStatus(status, now.status);
    this.#rows.add(row);
    this.#groups.add(row.group);
  }

  /** What changed since this was last called. */
  take() {
    const taken = { rows: this.#rows, groups: this.#groups };
    this.#rows = new Set();
    this.#groups = new Set();
    return taken;
  }

  #add(task) {
    const row = new Row(task);
    this.rows.set(row.id, row);
    return row;
  }

  #remove(row) {
    this.rows.delete(row.id);
    row.isGone = true;
    this.#count(row, -1);
    this.#countStatus(row.counted.status, "");
    this.#rows.add(row);
    this.#groups.add(row.group);
    const { group } = row;
    this.#leave(row);
    if (hasEnded(row.task) && group.size > 0 && group.root !== row && group.key !== row.id) this.#remember(row, group);
    if (this.rows.size === 0) this.#former.clear();
  }

  #remember({ id, counted }, group) {
    group.remember(counted, 1);
    this.#former.delete(id);
    this.#former.set(id, { group, counted });
    if (this.#former.size > FORMER_MAX) this.#former.delete(this.#former.keys().next().value);
  }

  #join(row, key) {
    let group = this.groups.get(key);
    if (!group) this.groups.set(key, (group = new Group(key, row.begun)));
    row.group = group;
    const former = this.#former.get(row.id);
    if (former?.group === group) group.remember(former.counted, -1);
    this.#former.delete(row.id);
    if (row.id === key) {
      group.root = row;
      group.begun = row.begun;
    } else {
      group.children.add(row);
      group.weigh(row.counted, 1);
    }
  }

  #leave(row) {
    const { group } = row;
    this.#groups.add(group);
    if (group.root === row) group.root = null;
    else if (group.children.delete(row)) group.weigh(row.counted, -1);
    if (row.isWanted) group.wanted -= 1;
    row.isWanted = false;
    if (group.size === 0) this.groups.delete(group.key);
  }

  #weigh(row) {
    const { group, task, bar, counted } = row;
    const isChild = group.root !== row;
    if (isChild) group.weigh(counted, -1);
    const weight = Number.isFinite(task.weight) && task.weight >= 0 ? Math.min(task.weight, WEIGHT_MAX) : 1;
    const isOther = counted.status !== "" && weight !== counted.weight;
    Object.assign(counted, { status: task.status, percent: bar.percent, weight });
    if (!isChild) return;
    group.weigh(counted, 1);
    if (isOther) group.weighAnew();
  }

  #count({ task }, by) {
    this.names.count(task.name, by);
    this.owners.count(task.user_id, by);
    if (Array.isArray(task.tags)) for (const tag of task.tags) this.tags.count(tag, by);
  }

  #countStatus(before, now) {
    for (const [status, by] of [[before, -1], [now, 1]]) {
      if (status === "") continue;
      this.statuses.count(status, by);
      if (!hasEnded({ status })) this.active += by;
    }
  }
}
