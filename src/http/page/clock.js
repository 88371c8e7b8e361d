// The time by the service's clock, as its dates are. Refuses to know: what is dated.

/** A header tells whole seconds, and its way takes time: what differs less than this is the same. */
const TOLERANCE_MS = 2_000;

let ahead = 0;

/** Milliseconds since 1970. */
export const now = () => Date.now() + ahead;

/** Asks the service for its time: a file of the page comes with a date. */
export async function adjust() {
  const from = Date.now();
  const answer = await fetch(new URL("../theme.css", import.meta.url), { method: "HEAD", cache: "no-store" }).catch(() => null);
  const told = Date.parse(answer?.headers.get("date") ?? "");
  if (!Number.isFinite(told)) return;
  const differs = told + 500 - (from + Date.now()) / 2;
  ahead = Math.abs(differs) < TOLERANCE_MS ? 0 : differs;
}
