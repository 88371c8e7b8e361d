// What stands where tasks would be while there are none: nothing yet, nothing that fits, nothing known. Refuses to know: how that
// came about.

import { byId, write } from "./dom.js";
import { amount, sentence, tasksOf } from "./format.js";

/** The client keeps no more. */
const TASKS_MAX = 20_000;

/** @param {{state: string, reason?: string, known: number, wanted: number, isAsked: boolean}} now */
export function drawStates({ state, reason, known, wanted, isAsked, userId }) {
  const isLive = state === "live" || state === "degraded";
  const isEmpty = known === 0 && isLive;
  const isLoading = known === 0 && !isLive && !isAsked && !["closed", "unauthorised"].includes(state);
  byId("empty").hidden = !isEmpty;
  byId("loading").hidden = !isLoading;
  byId("nothing-fits").hidden = known === 0 || wanted > 0;
  byId("closed").hidden = state !== "closed" || known > 0;
  if (isEmpty) drawExamples(userId);
  if (state === "closed") write(byId("closed-reason"), sentence(reason ?? ""));
  byId("toolbar").hidden = known === 0;
  byId("summary").hidden = known === 0;
}

/** How many tasks there are, and how many of them are shown. */
export function drawSummary({ known, wanted }) {
  const beyond = known >= TASKS_MAX ? `; the ${amount(TASKS_MAX)} that were heard of last are kept here` : "";
  write(byId("summary"), wanted === known ? `${tasksOf(known)}${beyond}` : `${amount(wanted)} of ${tasksOf(known)}${beyond}`);
}

/** Commands that make a bar appear for this very user. */
function drawExamples(userId) {
  const event = { task_id: "hello", progress: 40, message: "it works" };
  if (userId) event.user_id = userId;
  const quoted = `'${JSON.stringify(event).replaceAll("'", String.raw`'\''`)}'`;
  write(byId("example-redis"), `redis-cli XADD taskcast:events MAXLEN '~' 1000000 '*' event ${quoted}`);
  const address = new URL("api/v1/events", location.href);
  address.search = address.hash = "";
  write(
    byId("example-curl"),
    `curl ${address} \\\n  -H "Authorization: Bearer $TOKEN" \\\n  -H 'Content-Type: application/json' \\\n  -d ${quoted}`,
  );
}
