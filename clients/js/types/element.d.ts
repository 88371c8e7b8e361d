import type { ClientOptions, Task, TaskcastClient } from "./index.js";

/** `<task-progress task-id="…">`. Attributes: `task-id`, `url` (of the service), `label`. */
export class TaskProgressElement extends HTMLElement {
  /** The client of all such elements that have none of their own; made of `options` when it is first needed. Setting it ends that one. */
  static client: TaskcastClient | null;
  static options: ClientOptions;
  /** This element's own. */
  client: TaskcastClient | null;
  taskId: string | null;
  readonly task: Task | null | undefined;
}

declare global {
  interface HTMLElementTagNameMap {
    "task-progress": TaskProgressElement;
  }
  interface HTMLElementEventMap {
    /** `detail` is the task, as with `task-end`. */
    "task-update": CustomEvent<Task>;
    /** An end that was seen to happen. */
    "task-end": CustomEvent<Task>;
  }
}
