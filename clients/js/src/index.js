// What the package gives out.

export { TaskcastClient } from "./client.js";
export { TaskcastError, TaskError } from "./errors.js";
export { Bar, hasEnded, percentOf } from "./progress.js";
