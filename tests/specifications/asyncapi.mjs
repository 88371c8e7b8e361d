// Checks proto/asyncapi.json with the parser of AsyncAPI itself (npm @asyncapi/parser). Then it breaks the document in known
// ways and fails if a breakage goes unnoticed. Exit 0: all is well; 1: mistakes.
//
// Environment: TESTS_NODE_MODULES (where npm put the parser).

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../..", import.meta.url));
const modules = process.env.TESTS_NODE_MODULES ?? join(root, "target/tests/node_modules");
const { Parser } = createRequire(join(modules, "taskcast.js"))("@asyncapi/parser");

const text = readFileSync(join(root, "proto/asyncapi.json"), "utf8");
const parser = new Parser();

/** 0 is an error, 1 a warning; what is below is advice, such as to use a later version, which fewer tools can read. */
const WARNING = 1;

async function mistakesIn(document) {
  const { diagnostics } = await parser.parse(JSON.stringify(document));
  return diagnostics.filter(({ severity }) => severity <= WARNING).map(({ path, code, message }) => `${path.join("/")}: ${code}: ${message}`);
}

const BREAKAGES = {
  "a message that a channel does not have": (broken) => delete broken.channels.tasks.messages.pong,
  "a field that AsyncAPI does not know": (broken) => (broken.channels.task.adress = "/"),
  "an operation of a channel that is not there": (broken) => (broken.operations.ping.channel.$ref = "#/channels/none"),
  "a server without a protocol": (broken) => delete broken.servers.redis.protocol,
};

const document = JSON.parse(text);
const found = await mistakesIn(document);
for (const [what, breakIt] of Object.entries(BREAKAGES)) {
  const broken = JSON.parse(text);
  breakIt(broken);
  if ((await mistakesIn(broken)).length === 0) found.push(`nobody noticed ${what}`);
}
for (const mistake of found) console.log(`asyncapi.json: ${mistake}`);
if (found.length === 0) {
  const { messages } = document.components;
  console.log(`asyncapi.json: ${Object.keys(messages).length} messages, all as AsyncAPI ${document.asyncapi} has it`);
}
process.exit(found.length > 0 ? 1 : 0);
