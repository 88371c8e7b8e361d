// What is said of the connection, and as of when that holds which is shown. Refuses to know: how connections are made.

import { byId, mark, write } from "./dom.js";
import { time } from "./format.js";
import { NO_USER } from "./sign-in.js";

const NO_USER_WORDS = "The service runs without authentication and has no user: set auth.user (TASKCAST_AUTH_USER).";

/** Why what is shown may be old. */
const WHY = { degraded: "The service waits for its event log.", unauthorised: "You are no longer signed in." };

/** What to say of it; the second part changes every second, so it is kept from screen readers. */
export function wordsOf({ state, reason, code, nextTryAt, freshUntil }) {
  const seconds = Math.max(1, Math.ceil((nextTryAt - Date.now()) / 1000));
  const next = Number.isFinite(nextTryAt) ? ` in ${seconds} s` : "";
  switch (state) {
    case "live":
      return ["Live"];
    case "degraded":
      return [freshUntil ? "Updates are delayed" : "The service has not reached its event log yet"];
    case "connecting":
      return [reason === "catching up" ? "Catching up…" : "Connecting…"];
    case "offline":
      return ["Offline; trying again", next];
    case "reconnecting":
      return [reason === "the service restarts" ? "The service restarts; reconnecting" : "Connection lost; reconnecting", next];
    case "unauthorised":
      return [code === NO_USER ? NO_USER_WORDS : "Not signed in"];
    default:
      return [`Closed: ${reason}`];
  }
}

export class ConnectionBadge {
  #client;
  /** When what is shown was last known to hold. */
  #heldAt = NaN;

  /** @param {() => void} onAnew begins anew what is closed */
  constructor(client, onAnew) {
    this.#client = client;
    byId("retry").addEventListener("click", () => {
      if (client.connection.current.state === "closed") onAnew();
      else client.retry();
    });
  }

  /** @param {{hasTasks: boolean}} shown */
  draw({ hasTasks }) {
    const status = this.#client.connection.current;
    const { state } = status;
    if (state === "live") this.#heldAt = Date.now();
    const [words, countdown = ""] = wordsOf(status);
    mark(byId("connection"), "data-connection-state", state);
    write(byId("connection-text"), words);
    write(byId("connection-countdown"), countdown);
    byId("retry").hidden = !["reconnecting", "offline", "closed"].includes(state);
    mark(document.body, "data-fresh", state === "live");
    this.#drawNotice(status, hasTasks);
  }

  /** What is on the page stays there while the connection is away, and says how old it is. */
  #drawNotice({ state, freshUntil }, hasTasks) {
    const notice = byId("stale");
    const at = state === "degraded" && freshUntil ? Date.parse(freshUntil) : this.#heldAt;
    const isStale = state !== "live" && hasTasks && Number.isFinite(at);
    notice.hidden = !isStale;
    if (!isStale) return;
    write(notice, `${WHY[state] ?? "There is no connection at the moment."} What you see is as of ${time(at)}.`);
  }

  forget() {
    this.#heldAt = NaN;
  }
}
