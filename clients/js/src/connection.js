// One connection kept alive: its token, greeting, cursor, ends and next attempts. What it hears of tasks goes to a sink;
// what it is about goes into a status. Knows nothing of tasks, tabs or pages.

import { Backoff } from "./backoff.js";
import { TaskcastError } from "./errors.js";
import { isOffline } from "./page.js";

/**
 * @typedef {{path: string, query: URLSearchParams, token: string | null}} Opening
 * @typedef {{onOpen: () => void, onMessage: (message: any) => void, onHeard?: () => void, onClose: (end: End) => void}} Ears
 * @typedef {{send: ((message: object) => void) | null, close: () => void}} Channel
 * @typedef {{code: number, reason?: string, retryAfterMs?: number, errorCode?: string}} End
 * @typedef {(base: URL, opening: Opening, ears: Ears) => Channel} Transport
 * @typedef {import("../types/index.js").ConnectionStatus} Status
 * @typedef {{[name in "task_id" | "root_id" | "tag"]?: string}} Selector
 * @typedef {{
 *   status: (status: Status) => void, apply: (task: any) => void, remove: (id: string) => void, supersede: () => void,
 *   settle: () => void, ready: () => void, clear: () => void, keep: (selectors: Selector[]) => void, cursor: (cursor: string | null) => void, unknown: (id: string) => void,
 *   accepted: (key: string) => void, refused: (key: string, error: TaskcastError) => void,
 * }} Sink
 */

/** A connection has to last this long before the next failure counts as the first. */
export const STABLE_MS = 5_000;
/** From the first step of an attempt, which may be to fetch a token, until the transport is open. */
export const OPEN_TIMEOUT_MS = 15_000;
/** Without a greeting for this long and without a token, the service is waiting for one. */
export const TOKENLESS_MS = 1_500;
/** From then until the greeting: tokens may have to be checked elsewhere. */
export const GREETING_TIMEOUT_MS = 60_000;
/** How long a ping may stay unanswered, and how long when somebody is looking. */
export const PONG_TIMEOUT_MS = 10_000;
export const PROBE_TIMEOUT_MS = 5_000;
/** A timer that is later than this was held up itself: timers of hidden tabs are, and sleeping machines'. */
const LATE_MS = 2_000;
/** Attempts of a transport that never brought a message before the next transport has its turn. */
const ATTEMPTS_PER_TRANSPORT = 2;
/** How long the first attempts may bring nothing before the next transport is tried beside them. */
export const SILENT_MS = 5_000;
/** How long server-sent events stand before it is tried whether a WebSocket works by now; twice as long each time. */
export const TRIAL_MIN_MS = 10_000;
const TRIAL_MAX_MS = 640_000;
/** Requests that wait for their answers; and with how many of them a further subscription waits its turn. */
const REQUESTS_MAX = 1_000;
const SUBSCRIBING_MAX = 100;

/** The longest that a timer can wait; beyond it, it would not wait at all. */
const TIMER_MAX_MS = 2 ** 31 - 1;

const HEARTBEAT_MS = 30_000;
const HEARTBEAT_MIN_MS = 1_000;

/** Closes after which another attempt would end the same way. proto/taskcast/v1/contract.json has them all. */
const FINAL_CLOSES = new Map([
  [1000, "the service ended the connection"],
  [1002, "the service could not read what was sent"],
  [1003, "the service could not read what was sent"],
  [1007, "the service could not read what was sent"],
  [1009, "too long a message was sent"],
  [4003, "this token may not watch here"],
]);
const RENEWABLE = new Set(["AUTH_REQUIRED", "EXPIRED_TOKEN"]);

export class Connection {
  #options;
  /** @type {Sink} */
  #sink;
  #backoff = new Backoff();
  /** @type {Channel | null} */
  #channel = null;
  /** Each attempt has its own; what comes late from an earlier one is nobody's. */
  #attempt = { hasTried: false, isMove: false };
  /** When the trial began: as long as it took, the connection that follows may take too. */
  #trialAt = 0;
  #isStarted = false;
  #isSuspended = false;
  /** Ended for good, until somebody starts anew. */
  #isOver = false;

  /** @type {string | null} */
  #cursor = null;
  /** @type {string | null | undefined} undefined: not asked for yet */
  #token = undefined;
  #tokenExpiresAt = Infinity;
  /** What a token's service said last, for whoever fetches the next one. */
  #tokenReason = "initial";
  /** The token was renewed since a connection stood for long. */
  #isRenewed = false;
  /** When the token in use was asked for. */
  #fetchedAt = -Infinity;
  /** The last renewal on an open connection, and when it asked for a token. */
  #renewal = {};
  #renewedAt = -Infinity;
  /** @type {{error_code?: string, message?: string} | null} */
  #refusal = null;
  /** @type {string | null | undefined} */
  #userId = undefined;

  #transport = 0;
  /** Attempts in a row of this transport that brought nothing. */
  #unheard = 0;
  /** It has brought a message before: what is wrong now is not wrong with it. That it opens proves nothing. */
  #isProven = false;
  /** Whether the first transport works by now is tried after this long; and what tries it. */
  #trialMs = TRIAL_MIN_MS;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #trialTimer;
  /** @type {Channel | null} */
  #trial = null;
  #liveSince = 0;
  #attemptedAt = -Infinity;
  #heardAt = 0;
  #heartbeatMs = HEARTBEAT_MS;
  /** Messages come in the order of the log from here on; before, a snapshot does. */
  #isCaughtUp = false;
  #isReplacing = false;
  /** What is shown goes on from before this connection. */
  #isResumed = false;
  /** @type {number | null} */
  #drainsAt = null;
  /** @type {string | null | undefined} the `fresh_until` of a `source_degraded` that is not over */
  #degraded = undefined;

  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #retry;
  #retryAt = 0;
  /** The service asked not to come before. */
  #notBefore = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #watchdog;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #tokenless;
  /** Before a token is fetched again. @type {ReturnType<typeof setTimeout> | undefined} */
  #pause;

  /** What is to be subscribed to, by name, and the keys of those who want it. @type {Map<string, {selector: Selector, keys: Set<string>}>} */
  #topics = new Map();
  /** The topic of each key. @type {Map<string, string>} */
  #wanted = new Map();
  #subscriptionsMax = Infinity;
  /** Topics that this connection is subscribed to, and whether the service said so, and what there is of them. @type {Map<string, boolean>} */
  #subscribed = new Map();
  /** What these begin with is still coming, in pages. @type {Set<string>} */
  #listing = new Set();
  #hasMorePages = false;
  /** What is to be subscribed to next. @type {Set<string>} */
  #due = new Set();
  /** What there was no room for. @type {Set<string>} */
  #crowded = new Set();
  #requests = new Map();
  #requestId = 0;

  /** @type {Status} */
  status = { state: "closed", reason: "nobody is listening yet" };

  /**
   * @param {{base: URL, path: string, query: Record<string, string>, transports: Transport[], names: string[],
   *   getToken: ((about: {reason: string}) => unknown) | null}} options
   * @param {Sink} sink
   */
  constructor(options, sink) {
    this.#options = options;
    this.#sink = sink;
  }

  get userId() {
    return this.#userId ?? null;
  }
  get isCaughtUp() {
    return this.#isCaughtUp;
  }
  get cursor() {
    return this.#cursor;
  }
  get token() {
    return this.#token ?? null;
  }

  // ---- beginning and ending ----

  start() {
    if (this.#isStarted) return;
    this.#isStarted = true;
    this.#isOver = false;
    if (!this.#isSuspended) this.#begin();
  }

  /** @param {string} reason */
  stop(reason) {
    if (!this.#isStarted && this.status.reason === reason) return;
    this.#isStarted = this.#isSuspended = false;
    this.#drop();
    this.#show({ state: "closed", reason });
  }

  /** As somebody else, perhaps: token, cursor and tasks are forgotten. */
  restart() {
    const wait = this.#isRestarted && !this.#hasLasted ? this.#attemptedAt + this.#backoff.min - Date.now() : 0;
    this.#isRestarted = true;
    this.#drop();
    this.#forgetPerson();
    this.#token = undefined;
    this.#tokenReason = "initial";
    this.#isRenewed = this.#isOver = false;
    this.#startWithFirstTransport();
    this.#backoff.reset();
    if (!this.#isStarted || this.#isSuspended) return;
    if (wait > 0) this.#retryIn(wait, "beginning anew");
    else this.#begin();
  }

  /** Once at once; a page that does it all the time keeps to the bounds. */
  #isRestarted = false;

  get #hasLasted() {
    return this.#liveSince > 0 && Date.now() - this.#liveSince >= STABLE_MS;
  }

  /**
   * Carries on where another connection was, unless the next token turns out to be somebody else's.
   * @param {string | null} cursor
   * @param {string | null | undefined} userId
   * @param {string | undefined} rights
   */
  adopt(cursor, userId, rights) {
    this.#cursor = cursor;
    this.#userId = userId;
    this.#lastRights = rights;
  }

  get rights() {
    return this.#lastRights;
  }

  /** For the page's cache: no connection, no timer. */
  suspend() {
    this.#isSuspended = true;
    if (!this.#isStarted || this.#isOver) return;
    this.#drop();
    this.#show({ state: "reconnecting", reason: "the page was put aside" });
  }

  resume() {
    this.#isSuspended = false;
    if (this.#isStarted && !this.#isOver && this.#channel === null && this.#retry === undefined) this.#begin();
  }

  /** Somebody looks again, or the network is back: worth trying soon, though never faster than the bounds. */
  wake() {
    if (!this.#isStarted || this.#isOver || this.#isSuspended) return;
    if (this.#retry !== undefined) {
      const due = Math.max(Date.now(), this.#notBefore, this.#attemptedAt + this.#backoff.min * (1 + Math.random() / 2));
      if (due < this.#retryAt) this.#retryIn(due - Date.now(), this.status.reason ?? "");
    } else if (this.#liveSince > 0) this.#probe();
  }

  /** Perhaps another network, on which the first transport works. */
  online() {
    this.#trialMs = TRIAL_MIN_MS;
    if (this.#retry !== undefined) this.#startWithFirstTransport();
    else if (this.#isCaughtUp && this.#trialTimer !== undefined) this.#tryFirstTransportLater();
    this.wake();
  }

  #startWithFirstTransport() {
    this.#transport = this.#unheard = 0;
    this.#isProven = false;
  }

  offline() {
    if (this.#retry !== undefined) this.#show({ ...this.status, state: "offline" });
    else if (this.#liveSince > 0) this.#probe();
  }

  /** Lets go of the channel without hearing of its end. */
  #drop() {
    this.#attempt = { hasTried: false, isMove: false };
    for (const timer of [this.#retry, this.#watchdog, this.#tokenless, this.#pause]) clearTimeout(timer);
    this.#retry = this.#watchdog = this.#tokenless = this.#pause = undefined;
    this.#endTrial();
    const channel = this.#channel;
    this.#channel = null;
    channel?.close();
    this.#liveSince = 0;
    this.#isCaughtUp = this.#isReplacing = this.#hasMorePages = false;
    this.#degraded = undefined;
    this.#drainsAt = null;
    this.#refusal = null;
    for (const keys of [this.#subscribed, this.#due, this.#crowded, this.#listing]) keys.clear();
    const lost = [...this.#requests.values()];
    this.#requests.clear();
    for (const { reject } of lost) reject(new TaskcastError("CONNECTION_LOST", "the connection was lost before the answer came"));
  }

  #forgetPerson() {
    this.#cursor = null;
    this.#userId = undefined;
    this.#sink.cursor(null);
    this.#sink.clear();
  }

  /** @param {Status} status */
  #show(status) {
    const withUser = this.#userId === undefined ? status : { ...status, userId: this.#userId };
    this.status = Object.freeze(withUser);
    this.#sink.status(this.status);
  }

  // ---- an attempt ----

  /**
   * A move to another transport that was just seen to work is shown only when it takes long.
   * @param {number} [moveMs] how long a move may take; 0: it is none
   */
  async #begin(moveMs = 0) {
    const isMove = moveMs > 0;
    this.#drop();
    const attempt = this.#attempt;
    const isMine = () => this.#attempt === attempt;
    attempt.isMove = isMove;
    this.#attemptedAt = Date.now();
    if (!isMove) this.#show({ state: "connecting", reason: "connecting" });
    this.#watch(isMove ? moveMs : OPEN_TIMEOUT_MS, () => this.#closed({ code: 1006, reason: "no answer" }));
    if (this.#token !== undefined && Date.now() >= this.#tokenExpiresAt) this.#forgetToken("EXPIRED_TOKEN");
    if (this.#token === undefined) {
      let token;
      try {
        token = await this.#fetchToken();
      } catch (error) {
        if (isMine()) this.#closed({ code: 1013, reason: `no token could be fetched: ${textOf(error)}` });
        return;
      }
      if (!isMine()) return;
      this.#adoptToken(token);
    }
    this.#open(isMine);
  }

  async #fetchToken() {
    this.#fetchedAt = Date.now();
    const token = (await this.#options.getToken?.({ reason: this.#tokenReason })) ?? null;
    if (token !== null && typeof token !== "string") throw new TypeError("getToken gave no text");
    // What comes from a file or a command ends with a line's end.
    return token?.trim() || null;
  }

  /** A cursor accounts for what its token could see, so one for other rights takes none along. */
  #adoptToken(token) {
    if (this.#lastRights !== undefined && this.#lastRights !== rightsOf(token)) this.#forgetPerson();
    this.#lastRights = rightsOf(token);
    this.#token = token;
    this.#tokenExpiresAt = Infinity;
  }

  /** @type {string | undefined} */
  #lastRights = undefined;

  #forgetToken(reason) {
    if (this.#options.getToken === null) return;
    this.#tokenReason = reason;
    this.#token = undefined;
  }

  #open(isMine) {
    /** @type {Ears} */
    const ears = {
      onOpen: () => isMine() && this.#opened(),
      onHeard: () => { if (isMine()) this.#heardAt = Date.now(); },
      onMessage: (message) => isMine() && this.#receive(message),
      onClose: (end) => isMine() && this.#closed(end),
    };
    this.#attempt.hasTried = true;
    try {
      this.#channel = this.#dial(this.#transport, ears);
      this.#tryNextTransportBeside();
    } catch (error) {
      this.#closed({ code: 1006, reason: `${textOf(error)}` });
    }
  }

  #dial(/** @type {number} */ transport, /** @type {Ears} */ ears) {
    const { transports, base, path, query: asked } = this.#options;
    const query = new URLSearchParams(asked);
    if (this.#cursor !== null) query.set("cursor", this.#cursor);
    return transports[transport % transports.length](base, { path, query, token: this.#token ?? null }, ears);
  }

  #opened() {
    this.#heardAt = Date.now();
    if (!this.#attempt.isMove) this.#watch(GREETING_TIMEOUT_MS, () => this.#closed({ code: 1006, reason: "no greeting" }));
    if (this.#token !== null) return;
    // The connection stays: should there be a cookie that takes long to check, the greeting still counts.
    const attempt = this.#attempt;
    this.#tokenless = setTimeout(async () => {
      if (!this.#options.getToken) return this.#show(WAITING);
      this.#tokenReason = "AUTH_REQUIRED";
      // Asked for now; when the service then says the same, another one would be no better.
      this.#isRenewed = true;
      const token = await this.#fetchToken().catch(() => null);
      if (this.#attempt !== attempt || this.#liveSince > 0) return;
      if (token === null) return this.#show(WAITING);
      this.#adoptToken(token);
      this.#channel?.send?.({ type: "auth", token });
    }, TOKENLESS_MS);
  }

  // ---- another transport ----

  /**
   * Some proxies let the handshake through and nothing else. But a service may be slow, so what waits for it goes on waiting: the transport
   * that greets first is taken.
   */
  #tryNextTransportBeside() {
    if (this.#isProven || this.#attempt.isMove || this.#options.transports.length < 2) return;
    this.#trialTimer = setTimeout(() => {
      const next = this.#transport + 1;
      this.#trialAt = Date.now();
      try {
        this.#trial = this.#dial(next, {
          onOpen: () => {},
          onMessage: (message) => message?.type === "connection_established" && this.#moveTo(next),
          // What else it says is no answer to whether this one works.
          onClose: () => {},
        });
      } catch {
        // As when it does not open.
      }
    }, SILENT_MS);
  }

  /** That it did not work may have been the service's fault, or that of a network which is another one by now. */
  #tryFirstTransportLater() {
    this.#endTrial();
    const { transports, names } = this.#options;
    if (this.#transport % transports.length === 0 || names[0] !== "websocket") return;
    this.#trialTimer = setTimeout(() => {
      this.#trialMs = Math.min(2 * this.#trialMs, TRIAL_MAX_MS);
      this.#trialTimer = setTimeout(() => this.#tryFirstTransportLater(), OPEN_TIMEOUT_MS);
      this.#trialAt = Date.now();
      try {
        this.#trial = this.#dial(0, {
          onOpen: () => {},
          onMessage: (message) => message?.type === "connection_established" && this.#moveTo(0),
          onClose: () => this.#tryFirstTransportLater(),
        });
      } catch {
        // As when it does not open: the timer goes on.
      }
    }, this.#trialMs * (1 + Math.random() / 2));
  }

  /** By a connection of its own: the trial's would tell again what was told beside it. */
  #moveTo(/** @type {number} */ transport) {
    this.#startWithFirstTransport();
    this.#transport = transport;
    // Should it bring nothing after all, the one after it is next: what worked before, where there are two.
    this.#unheard = ATTEMPTS_PER_TRANSPORT - 1;
    this.#backoff.reset();
    const moveMs = Math.max(PROBE_TIMEOUT_MS, 2 * (Date.now() - this.#trialAt));
    // Where nothing works yet, nothing is lost by waiting.
    this.#begin(this.#liveSince > 0 ? moveMs : 0);
  }

  #endTrial() {
    clearTimeout(this.#trialTimer);
    this.#trialTimer = undefined;
    this.#trial?.close();
    this.#trial = null;
  }

  // ---- silence ----

  /** Calls `onSilence` after that time, unless this is called again before; a timer that was held up proves nothing. */
  #watch(ms, onSilence, isExcused = false) {
    clearTimeout(this.#watchdog);
    const wait = Math.min(ms, TIMER_MAX_MS);
    const due = Date.now() + wait;
    this.#watchdog = setTimeout(() => {
      // Once: where every timer is late, as in a hidden tab, nothing would ever be proven.
      if (!isExcused && Date.now() - due > LATE_MS) this.#watch(PROBE_TIMEOUT_MS, onSilence, true);
      else onSilence();
    }, wait);
  }

  #listen() {
    const left = this.#heardAt + this.#heartbeatMs - Date.now();
    this.#watch(Math.max(left, 100), () => {
      if (Date.now() - this.#heardAt < this.#heartbeatMs) this.#listen();
      else this.#ping(PONG_TIMEOUT_MS);
      // To ask too late does no harm.
    }, true);
  }

  #probe() {
    this.#ping(PROBE_TIMEOUT_MS);
  }

  /** Silence alone is no sign of anything; silence after a question is. */
  #ping(patience) {
    const askedAt = Date.now();
    const send = this.#channel?.send;
    send?.({ type: "ping" });
    // Where nothing can be asked, the service speaks by itself once in a heartbeat.
    this.#watch(send ? patience : Math.max(this.#heardAt + 2 * this.#heartbeatMs - askedAt, patience), () => {
      if (this.#heardAt >= askedAt) this.#listen();
      else this.#closed({ code: 1006, reason: "the network went silent" });
    });
  }

  // ---- messages ----

  #receive(message) {
    this.#heardAt = Date.now();
    if (!this.#isProven) this.#endTrial();
    this.#isProven = true;
    switch (message?.type) {
      case "connection_established":
        return this.#greeted(message);
      case "active_tasks":
        return this.#page(message);
      case "task_progress":
      case "task_completed":
        this.#sink.apply(message);
        return this.#keepCursor(message.cursor);
      case "task_removed":
        return this.#sink.remove(message.task_id);
      case "source_degraded":
        this.#degraded = message.fresh_until ?? null;
        return this.#isCaughtUp ? this.#showLive() : undefined;
      case "source_recovered":
        this.#degraded = undefined;
        return this.#isCaughtUp ? this.#showLive() : undefined;
      case "server_draining":
        this.#drainsAt = Date.now() + (message.reconnect_after_ms > 0 ? message.reconnect_after_ms : 0);
        return undefined;
      case "token_expiring":
        return this.#renewInBand();
      case "token_refreshed":
        this.#keepExpiry(message);
        // Unasked, the provider moved its end: nothing is to be renewed.
        if (message.id === undefined) this.#renewal = {};
        return this.#answer(message);
      case "unsubscribed":
        // What was asked for has an id.
        return message.id === undefined ? this.#unsubscribed(message) : undefined;
      case "authentication_error":
        this.#refusal = message;
        return undefined;
      default:
        return this.#answer(message);
    }
  }

  #greeted(message) {
    clearTimeout(this.#tokenless);
    const userId = message.user_id ?? null;
    const isAnother = this.#userId !== undefined && this.#userId !== userId;
    this.#userId = userId;
    this.#backoff.follow(message.reconnect);
    const heartbeat = message.heartbeat_interval_ms;
    this.#heartbeatMs = heartbeat > 0 ? Math.max(heartbeat, HEARTBEAT_MIN_MS) : HEARTBEAT_MS;
    this.#keepExpiry(message);
    this.#subscriptionsMax = message.limits?.subscriptions_max ?? Infinity;
    if (isAnother) {
      this.#forgetPerson();
      this.#userId = userId;
      // A cookie may change hands between two connections; what was resumed was the other one's.
      if (message.resumed === true) return this.#closed({ code: 1006, reason: "somebody else is signed in" });
    }
    this.#liveSince = Date.now();
    this.#listen();
    this.#isResumed = message.resumed === true;
    if (this.#isResumed) {
      this.#keepCursor(message.cursor);
      return this.#caughtUp();
    }
    // Nothing of before is promised any more; what is shown stays until its replacement is here.
    this.#cursor = null;
    this.#isReplacing = true;
    this.#show({ state: "connecting", reason: "catching up", transport: this.#transportName });
  }

  #page(message) {
    const isAnswer = message.id !== undefined;
    if (!isAnswer && (message.reset || this.#isReplacing)) {
      this.#isReplacing = this.#isCaughtUp = this.#isResumed = false;
      this.#sink.supersede();
    }
    for (const task of Array.isArray(message.tasks) ? message.tasks : []) this.#sink.apply(task);
    this.#keepCursor(message.cursor);
    if (!isAnswer) this.#hasMorePages = message.more === true;
    if (!isAnswer && !message.more) for (const name of this.#listing) this.#accept(name);
    if (!isAnswer && !message.more && !this.#isCaughtUp) this.#caughtUp();
  }

  #caughtUp() {
    this.#isCaughtUp = true;
    // The rest of a snapshot that broke off comes as single frames.
    if (!this.#isResumed) this.#sink.settle();
    this.#showLive();
    this.#due = new Set(this.#topics.keys());
    this.#subscribe();
    this.#sink.ready();
    this.#tryFirstTransportLater();
  }

  get #transportName() {
    return /** @type {"websocket" | "sse"} */ (this.#options.names[this.#transport % this.#options.names.length]);
  }

  #showLive() {
    const transport = this.#transportName;
    if (this.#degraded === undefined) return this.#show({ state: "live", transport });
    const reason = "updates are delayed: the service waits for its event log";
    this.#show({ state: "degraded", reason, freshUntil: this.#degraded, transport });
  }

  #keepCursor(cursor) {
    if (typeof cursor !== "string") return;
    this.#cursor = cursor;
    this.#sink.cursor(cursor);
  }

  /** By the service's clock, which tells the time with each message. */
  #keepExpiry({ token_expires_at: expires, timestamp }) {
    const left = Date.parse(expires) - Date.parse(timestamp);
    this.#tokenExpiresAt = Number.isFinite(left) ? Date.now() + left : Infinity;
  }

  // ---- the token ----

  /** A failing `getToken` is asked again for as long as the connection lasts; one that gives nothing new as well. */
  async #renewInBand() {
    if (!this.#options.getToken) return;
    const attempt = this.#attempt;
    const renewal = (this.#renewal = {});
    const isMine = () => this.#attempt === attempt && this.#renewal === renewal;
    const { min, max } = this.#backoff;
    const pauses = new Backoff();
    pauses.follow({ min_ms: min, max_ms: max });
    this.#tokenReason = "expiring";
    // The service may say the same of each new token at once.
    let pause = this.#renewedAt + min - Date.now();
    // Once more if the first one is refused; then the connection ends at its time, and the next one fetches its own.
    for (let refusals = 0; refusals < 2; pause = pauses.next()) {
      clearTimeout(this.#pause);
      // One that is dropped with the connection goes on never.
      if (pause > 0) await new Promise((resolve) => (this.#pause = setTimeout(resolve, pause)));
      if (!isMine()) return;
      this.#renewedAt = Date.now();
      const token = await this.#fetchToken().catch(() => undefined);
      if (!isMine() || token === null) return;
      if (token === undefined || token === this.#token) continue;
      if (!this.#channel?.send) {
        this.#adoptToken(token);
        return void this.#begin();
      }
      try {
        await this.request({ type: "refresh_token", token });
        // The rights may be others: the service sends a new snapshot then, in which the cursor is good again.
        this.#lastRights = rightsOf(token);
        this.#token = token;
        return;
      } catch (error) {
        refusals += 1;
        if (!isMine()) return;
        this.#tokenReason = error instanceof TaskcastError ? error.code : "TOKEN_REFUSED";
      }
    }
  }

  #refused(code, message) {
    // One that is refused as soon as it is new is followed by none; one that an outage outlived may have been good.
    const isNew = this.#isRenewed && Date.now() - this.#fetchedAt <= GREETING_TIMEOUT_MS;
    if (RENEWABLE.has(code) && this.#options.getToken && !isNew) {
      this.#isRenewed = true;
      this.#refusedToken = this.token;
      this.#forgetToken(code);
      return void this.#renewAndBegin(code, message);
    }
    this.#isOver = true;
    this.#show(unauthorised(code, message));
  }

  /** @type {string | null} */
  #refusedToken = null;

  /** One new token, one reconnect; the same token again would only be refused again. */
  async #renewAndBegin(code, message) {
    const attempt = this.#attempt;
    this.#show({ state: "connecting", reason: "fetching a token" });
    this.#watch(OPEN_TIMEOUT_MS, () => this.#closed({ code: 1013, reason: "no token could be fetched in time" }));
    try {
      const token = await this.#fetchToken();
      if (this.#attempt !== attempt) return;
      if (token !== null && token === this.#refusedToken) {
        this.#drop();
        this.#isOver = true;
        return this.#show(unauthorised(code, message));
      }
      this.#adoptToken(token);
      this.#begin();
    } catch (error) {
      if (this.#attempt === attempt) this.#closed({ code: 1013, reason: `no token could be fetched: ${textOf(error)}` });
    }
  }

  // ---- the end of a connection ----

  /** @param {End} end */
  #closed({ code, reason = "", retryAfterMs = 0, errorCode }) {
    const refusal = this.#refusal ?? (errorCode ? { error_code: errorCode, message: reason } : null);
    const drainsAt = this.#drainsAt;
    const hadLasted = this.#hasLasted;
    const { hasTried } = this.#attempt;
    this.#drop();
    if (hadLasted) {
      this.#backoff.reset();
      this.#isRenewed = this.#isRestarted = false;
    }
    if (code === 4001 || refusal) return this.#refused(refusal?.error_code ?? "INVALID_TOKEN", refusal?.message || reason);
    const final = FINAL_CLOSES.get(code);
    if (final !== undefined) {
      this.#isOver = true;
      return this.#show({ state: "closed", reason: reason || final, code });
    }
    // Without a token it was not even tried.
    if (hasTried && !this.#isProven) this.#tryAnotherTransport();
    this.#retryIn(this.#delay({ code, drainsAt, hadLasted, retryAfterMs }), reason || (code === 1012 ? "the service restarts" : "the connection was lost"));
  }

  #tryAnotherTransport() {
    this.#unheard += 1;
    if (this.#unheard < ATTEMPTS_PER_TRANSPORT || this.#options.transports.length < 2) return;
    this.#unheard = 0;
    this.#transport += 1;
  }

  /** A service that drains has told when to come back, and spreads that itself; one that does nothing else is waited for. */
  #delay({ code, drainsAt, hadLasted, retryAfterMs }) {
    const { min, max } = this.#backoff;
    this.#notBefore = Date.now() + retryAfterMs;
    const isDrained = code === 1012 && drainsAt !== null;
    const turn = isDrained ? Math.min(Math.max(drainsAt - Date.now(), 0), max) + Math.random() * min : 0;
    if (isDrained && hadLasted) return turn;
    const delay = Math.max(turn, this.#backoff.next());
    return retryAfterMs > 0 ? Math.max(delay, retryAfterMs + Math.random() * min) : delay;
  }

  #retryIn(delay, reason) {
    clearTimeout(this.#retry);
    const wait = Math.min(delay, TIMER_MAX_MS);
    this.#retryAt = Math.round(Date.now() + wait);
    this.#retry = setTimeout(() => {
      this.#retry = undefined;
      this.#begin();
    }, wait);
    const state = isOffline() ? "offline" : "reconnecting";
    this.#show({ state, reason, nextTryAt: this.#retryAt, attempt: this.#backoff.failures });
  }

  // ---- what is asked ----

  /**
   * Subscribed to on this connection and on those that follow.
   * @param {string} key
   * @param {Selector} selector
   */
  want(key, selector) {
    const name = nameOf(selector);
    const topic = this.#topics.get(name) ?? { selector, keys: new Set() };
    this.#topics.set(name, topic);
    topic.keys.add(key);
    this.#wanted.set(key, name);
    if (this.isAnswered(key)) return this.#sink.accepted(key);
    this.#due.add(name);
    this.#subscribe();
  }

  /** The service said that it tells of it. */
  isAnswered(/** @type {string} */ key) {
    return this.#subscribed.get(this.#wanted.get(key) ?? "") === true;
  }

  /** @param {string} key */
  unwant(key) {
    const name = this.#wanted.get(key) ?? "";
    const topic = this.#topics.get(name);
    this.#wanted.delete(key);
    topic?.keys.delete(key);
    if (!topic || topic.keys.size > 0) return;
    for (const names of [this.#topics, this.#due, this.#crowded, this.#listing]) names.delete(name);
    // Taking away what the address itself names would leave the cursor wrong, and more than this topic without news.
    if (!this.#subscribed.delete(name) || this.#addressMayName(topic.selector)) return;
    this.#channel?.send?.({ type: "unsubscribe", ...topic.selector, id: "u" });
    // There is room for one more.
    const [next] = this.#crowded;
    if (next !== undefined && this.#crowded.delete(next)) this.#due.add(next);
    this.#subscribe();
  }

  /** What is due, a part at a time. */
  #subscribe() {
    if (!this.#isCaughtUp) return;
    for (const name of this.#due) {
      if (this.#requests.size >= SUBSCRIBING_MAX) return;
      this.#due.delete(name);
      this.#subscribeTo(name);
    }
  }

  #subscribeTo(/** @type {string} */ name) {
    const selector = this.#topics.get(name)?.selector;
    const channel = this.#channel;
    if (!selector || !channel || this.#subscribed.has(name)) return;
    if (!channel.send) return this.#cannotSubscribe(name, selector);
    if (this.#subscribed.size >= this.#subscriptionsMax) {
      const message = `a connection may hold ${this.#subscriptionsMax} subscriptions`;
      return this.#notSubscribed(name, new TaskcastError("LIMIT_REACHED", message));
    }
    this.#crowded.delete(name);
    this.#subscribed.set(name, false);
    this.#ask({ type: "subscribe", ...selector }, {
      resolve: () => (selector.task_id === undefined ? this.#awaitList(name) : this.#accept(name)),
      reject: (error) => this.#channel === channel && this.#notSubscribed(name, error),
    });
    // Whether there is nothing to tell is told by nothing else.
    const { task_id: id } = selector;
    if (id === undefined) return;
    // Taken at its place in the order of messages: a frame may be right behind it.
    this.#ask({ type: "get_task_status", task_id: id }, {
      // Behind a resume, one that is only let go of for its age stays as it was told.
      resolve: ({ task }) => task === null && (this.#isResumed ? this.#sink.unknown(id) : this.#sink.remove(id)),
      reject: () => {},
    });
  }

  /** What there is of a group or a tag follows the answer, if there is anything: behind another one, or its first page, is. */
  #awaitList(/** @type {string} */ name) {
    this.#ask({ type: "ping" }, {
      resolve: () => (this.#hasMorePages ? this.#listing.add(name) : this.#accept(name)),
      reject: () => this.#accept(name),
    });
  }

  #accept(/** @type {string} */ name) {
    this.#listing.delete(name);
    if (!this.#subscribed.has(name)) return;
    this.#subscribed.set(name, true);
    for (const key of this.#keysOf(name)) this.#sink.accepted(key);
  }

  #keysOf(/** @type {string} */ name) {
    return [...(this.#topics.get(name)?.keys ?? [])];
  }

  #notSubscribed(/** @type {string} */ name, /** @type {TaskcastError} */ error) {
    this.#subscribed.delete(name);
    this.#listing.delete(name);
    if (error.code === "LIMIT_REACHED" && this.#topics.has(name)) this.#crowded.add(name);
    for (const key of this.#keysOf(name)) this.#sink.refused(key, error);
  }

  /** A fresh token does not allow it any more. */
  #unsubscribed(message) {
    for (const [name, { selector }] of this.#topics) {
      if (!Object.entries(selector).every(([kind, value]) => message[kind] === value) || !this.#subscribed.has(name)) continue;
      this.#notSubscribed(name, new TaskcastError("FORBIDDEN", "the token does not allow this subscription any more"));
    }
  }

  /** A task may well be one that the address shows. Of a group or a tag nobody could tell what is missing. */
  #cannotSubscribe(/** @type {string} */ name, /** @type {Selector} */ selector) {
    if (selector.task_id !== undefined && this.#addressMayName(selector)) return;
    const message = "server-sent events have no subscriptions: give the client the task or group as its scope, or watch: 'all'";
    this.#notSubscribed(name, new TaskcastError("UNSUPPORTED", message));
  }

  /** A token to share names nobody; other tokens say what their address shows, if they say anything. */
  #addressMayName(selector) {
    if (this.#userId === null) return true;
    const watch = claimsOf(this.#token)?.taskcast?.watch;
    if (!Array.isArray(watch) || watch.includes("own")) return false;
    const [[kind, name]] = Object.entries(selector);
    return watch.includes(`${kind.replace("_id", "")}:${name}`);
  }

  /**
   * Sends a message and waits for the answer with its id.
   * @param {{type: string, [field: string]: unknown}} message
   * @returns {Promise<any>}
   */
  request(message) {
    return new Promise((resolve, reject) => this.#ask(message, { resolve, reject }));
  }

  #ask(message, { resolve, reject }) {
    if (this.#liveSince === 0) return reject(new TaskcastError("NOT_CONNECTED", "there is no connection at the moment"));
    const send = this.#channel?.send;
    if (!send) return reject(new TaskcastError("UNSUPPORTED", `${message.type} needs a WebSocket, which could not be opened`));
    if (this.#requests.size >= REQUESTS_MAX) return reject(new TaskcastError("LIMIT_REACHED", "too many requests are waiting"));
    this.#requestId += 1;
    const id = `r${this.#requestId}`;
    this.#requests.set(id, { resolve, reject });
    send({ ...message, id });
  }

  #answer(message) {
    const request = this.#requests.get(message?.id);
    if (!request) return;
    this.#requests.delete(message.id);
    if (message.type === "error") request.reject(new TaskcastError(message.error_code, message.message));
    else request.resolve(message);
    this.#subscribe();
  }
}

/** @returns {Status} */
function unauthorised(code, message) {
  return { state: "unauthorised", code, reason: message || "the token was refused" };
}

/** Nothing is refused yet: a greeting may still come. @type {Status} */
const WAITING = { ...unauthorised("AUTH_REQUIRED", "the service waits for a token"), isWaiting: true };

const textOf = (error) => (error instanceof Error ? error.message : String(error));

/** What a JSON Web Token says, unverified; undefined for any other token. */
function claimsOf(token) {
  try {
    const part = token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
    return JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(part), (byte) => byte.charCodeAt(0))));
  } catch {
    return undefined;
  }
}

/** Equal for tokens that show the same; of tokens that cannot be read it is assumed. */
function rightsOf(token) {
  const claims = claimsOf(token);
  return claims && JSON.stringify([claims.sub ?? claims.user_id, claims.taskcast?.watch]);
}

const nameOf = (/** @type {Selector} */ selector) => JSON.stringify(selector);
