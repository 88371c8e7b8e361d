// Everything but React in one file, for pages without a build step: the service gives it out at /client.js.

import { setHome } from "./client.js";

export { TaskProgressElement } from "./element.js";
export * from "./index.js";

// The service that the script came from is the one to connect to, whatever site the page is of.
setHome(new URL(".", import.meta.url).href);
