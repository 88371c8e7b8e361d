/** The client of taskcast: live, correct progress of background tasks. */

export type Status =
  | "queued" | "running" | "waiting" | "retrying" | "cancelling"
  | "succeeded" | "failed" | "cancelled" | "timed_out" | "expired" | "lost";

/** The whole state of a task, as the service told it last. Frozen; a change makes another object. */
export interface Task {
  readonly task_id: string;
  readonly status: Status;
  readonly attempt: number;
  readonly created_at: string;
  readonly updated_at: string;
  readonly started_at?: string;
  readonly completed_at?: string;
  readonly user_id?: string;
  readonly name?: string;
  readonly title?: string;
  /** Percent, 0 to 100; absent while unknown. */
  readonly progress?: number;
  readonly current?: number;
  readonly total?: number;
  readonly unit?: string;
  readonly step?: string;
  readonly message?: string;
  readonly parent_id?: string;
  readonly root_id?: string;
  readonly weight?: number;
  readonly tags?: readonly string[];
  readonly result?: unknown;
  readonly error?: { readonly code?: string; readonly message?: string; readonly type?: string; readonly retryable?: boolean };
  readonly metadata?: { readonly [key: string]: unknown };
  readonly worker?: string;
}

/**
 * `connecting` (a snapshot under way included), `live`, `degraded` (connected, while the service waits for its event log),
 * `reconnecting` and `offline` (with the time of the next try), `unauthorised` and `closed` (nothing is tried any more, or
 * nobody is listening).
 */
export type ConnectionState = "connecting" | "live" | "degraded" | "reconnecting" | "offline" | "unauthorised" | "closed";

export interface ConnectionStatus {
  readonly state: ConnectionState;
  /** Why, for people. */
  readonly reason?: string;
  /** Why, for programs: a close code, or the `error_code` of a refusal. */
  readonly code?: number | string;
  /** When the next attempt is made, in milliseconds since 1970. */
  readonly nextTryAt?: number;
  /** How many attempts in a row have failed. */
  readonly attempt?: number;
  /** While `degraded`: what is shown is as of then; null when the service has read nothing yet. */
  readonly freshUntil?: string | null;
  /** What the connection runs over. */
  readonly transport?: "websocket" | "sse";
  /** While `unauthorised`: the connection is open, and the service still waits for a token, or looks for one in a cookie. */
  readonly isWaiting?: boolean;
  /** Whom the service takes the caller for, once it said so. */
  readonly userId?: string | null;
}

export interface ClientOptions {
  /** The service's address; relative to the page, and the page's own folder by default. */
  url?: string | URL;
  /**
   * Fetches a token; null where a cookie does. Called when one is needed and only then: first, before the last one expires
   * (`expiring`), and after a refusal, with its code.
   */
  getToken?: (about: { reason: string }) => string | null | undefined | Promise<string | null | undefined>;
  /** Tried in this order; the next one when one never opens. Both by default. */
  transports?: readonly ("websocket" | "sse")[];
  /**
   * One connection for all tabs of the browser that have the same address. Where several people may be signed in in one
   * browser, give a text that names who it is.
   */
  shareAcrossTabs?: boolean | string;
  /** Watch one task or one group, and nothing else. */
  scope?: { task: string; root?: undefined } | { root: string; task?: undefined };
  /** The caller's own tasks (the default), or everything that the token allows. */
  watch?: "own" | "all";
  /** The newest state of each task (the default), or every frame that the service still holds. */
  deliver?: "latest" | "every";
  /** No more than one delivery in that time; ends are not delayed. */
  throttleMs?: number;
}

export interface TasksQuery {
  /** One status or several; `active` and `ended` stand for many. */
  status?: Status | "active" | "ended" | readonly (Status | "active" | "ended")[];
  /** A task and what belongs to it; subscribed to. */
  root?: string;
  /** Subscribed to. */
  tag?: string;
  name?: string;
  filter?: (task: Task) => boolean;
  /** How many, the newest first. */
  limit?: number;
}

/** Something that changes. Whoever listens keeps the connection, and the subscription that it takes. */
export interface Watched<T> {
  /** What holds now; the same object until it changes. */
  readonly current: T;
  getSnapshot: () => T;
  subscribe: (listener: () => void) => () => void;
  on(event: "update", listener: (current: T) => void): () => void;
}

export interface TaskHandle extends Watched<Task | null | undefined>, AsyncIterable<Task> {
  readonly id: string;
  /** Undefined: not known yet. Null: the service knows no such task, or does not show it to this caller. */
  readonly current: Task | null | undefined;
  /** Why the service tells nothing of it, if it said so. */
  readonly error: TaskcastError | null;
  /** Resolves when it succeeded; rejects with a TaskError when it ended otherwise. */
  done(options?: { signal?: AbortSignal }): Promise<Task>;
  /** Asks its worker to stop; true when the request was passed on. */
  cancel(): Promise<boolean>;
}

export interface TasksHandle extends Watched<readonly Task[]>, AsyncIterable<readonly Task[]> {
  readonly error: TaskcastError | null;
  /** Whether an empty list means that there is nothing: connected, and all that there is of it was told. */
  readonly isComplete: boolean;
}

export class TaskcastClient {
  constructor(options?: ClientOptions);
  readonly connection: Watched<ConnectionStatus>;
  readonly isClosed: boolean;
  task(id: string): TaskHandle;
  tasks(query?: TasksQuery): TasksHandle;
  /**
   * Calls the listener with each change of each task that is known here, as it comes: what a view of thousands of tasks follows
   * without going through a list. `now` is undefined when the task is not known or not shown any more, `before` when it was not
   * before. What is known already is not told again (`tasks().current` has it), and nothing connects for it: see `connect()`.
   * Returns what stops it.
   */
  watch(listener: (id: string, now: Task | undefined, before: Task | undefined) => void): () => void;
  /** Connects, whether anything is listened to or not, until the function that it returns is called. */
  connect(): () => void;
  /** Tries soon what would be tried later. */
  retry(): void;
  /** Begins anew, as somebody else perhaps: tasks and token are forgotten, and `getToken` is asked again. */
  restart(): void;
  /** For good. */
  close(): void;
}

/**
 * `code` is one of the service's error codes, or `CLOSED`, `CONNECTION_LOST`, `NOT_CONNECTED`, `REMOVED`, `UNSUPPORTED`.
 */
export class TaskcastError extends Error {
  constructor(code: string, message: string);
  readonly code: string;
}

/** A task that ended otherwise than well; `code` is its status. */
export class TaskError extends TaskcastError {
  constructor(task: Task);
  readonly task: Task;
}

export function hasEnded(task: { readonly status: string }): boolean;
/** 0 to 100, or null when nobody knows. Full only when it succeeded. */
export function percentOf(task: Task): number | null;

/** One task's bar: it never goes back within an attempt and a step, and knows how long the rest may take. */
export class Bar {
  show(task: Task): number | null;
  readonly percent: number | null;
  /** Seconds that are left at the pace seen so far, or null when that says nothing. */
  readonly secondsLeft: number | null;
}
