// Everything but React in one file, for pages without a build step: the service gives it out at /client.js.

// First: elements that are in the page already connect as soon as they are defined.
import "./origin.js";

export { TaskProgressElement } from "./element.js";
export * from "./index.js";
