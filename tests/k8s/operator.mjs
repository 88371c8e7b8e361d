// Validates objects of the Prometheus operator (a JSON array on standard input) against its own schemas, strictly: a
// field that the schema does not know is a mistake. Prints one line for each mistake and exits 1 if there is any.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const modules = process.env.TESTS_NODE_MODULES ?? new URL("../../target/tests/node_modules", import.meta.url).pathname;
const kinds = createRequire(join(modules, "taskcast.js"))("@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1");

// The validators are compiled and let unknown fields pass. But they read every field that they know, and list the keys
// of objects where any key is allowed: what was neither read nor listed is unknown.
function watched(value, path, unread) {
  if (typeof value !== "object" || value === null) return value;
  for (const key of Object.keys(value)) unread.add(`${path}/${key}`);
  return new Proxy(value, {
    get(target, key) {
      unread.delete(`${path}/${String(key)}`);
      return Object.hasOwn(target, key) ? watched(target[key], `${path}/${String(key)}`, unread) : target[key];
    },
    ownKeys(target) {
      for (const key of Object.keys(target)) unread.delete(`${path}/${key}`);
      return Reflect.ownKeys(target);
    },
  });
}

function mistakesOf(manifest) {
  const { apiVersion, kind, metadata, spec, ...others } = manifest;
  const Kind = kinds[kind];
  if (apiVersion !== "monitoring.coreos.com/v1" || Kind === undefined) return [`unknown kind ${kind} in ${apiVersion}`];
  const unread = new Set();
  // Set afterwards: the constructor copies what it is given, and the copy would be read in place of this.
  const model = Object.assign(new Kind({ apiVersion, kind, metadata }), { spec: watched(spec, "/spec", unread) });
  try {
    model.validate();
  } catch (error) {
    return [error.message.replaceAll("\n", "; ")];
  }
  return [...Object.keys(others).map((key) => `/${key}`), ...unread].map((path) => `unknown field ${path}`);
}

let mistakes = 0;
for (const manifest of JSON.parse(readFileSync(0, "utf8"))) {
  for (const mistake of mistakesOf(manifest)) {
    mistakes += 1;
    console.log(`${manifest.kind}/${manifest.metadata?.name}: ${mistake}`);
  }
}
process.exit(mistakes === 0 ? 0 : 1);
