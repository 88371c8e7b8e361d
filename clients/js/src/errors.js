// What can go wrong, as errors with a code.

/** An error of this package or of the service; `code` is for programs, `message` for people. */
export class TaskcastError extends Error {
  /**
   * @param {string} code
   * @param {string} message
   */
  constructor(code, message) {
    super(message);
    this.name = "TaskcastError";
    this.code = code;
  }
}

/** A task that ended otherwise than well; `code` is its status. */
export class TaskError extends TaskcastError {
  /** @param {import("../types/index.js").Task} task */
  constructor(task) {
    super(task.status, task.error?.message ?? task.error?.code ?? `the task is ${task.status.replace("_", " ")}`);
    this.name = "TaskError";
    this.task = task;
  }
}
