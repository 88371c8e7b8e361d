// The service that the script came from is the one to connect to, whatever site the page is of.

import { setHome } from "./client.js";

setHome(new URL(".", import.meta.url).href);
