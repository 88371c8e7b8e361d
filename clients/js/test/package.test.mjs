// What is given out: the file for pages without a build step, its size, and what a bundler can leave out.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { it } from "node:test";
import { gzipSync } from "node:zlib";
import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";

import { build } from "esbuild";

import { contract } from "./support.mjs";

const path = (name) => fileURLToPath(new URL(`../${name}`, import.meta.url));
const LIMITS = { everything: 16_000, client: 13_000, errors: 600 };

/** What a page would load that uses this of the package. */
async function sizeOf(code) {
  const { outputFiles } = await build({
    stdin: { contents: code, resolveDir: path("src"), loader: "js" }, bundle: true, format: "esm", target: "es2022", minify: true, write: false,
  });
  return gzipSync(outputFiles[0].contents, { level: 9 }).length;
}

it("the file that the service gives out is what the sources say", () => {
  execFileSync(process.execPath, [path("build.mjs"), "--check"], { stdio: "inherit" });
});

it("the package stays small, and what is not used is left out", async () => {
  const sizes = {
    everything: gzipSync(readFileSync(path("dist/client.js")), { level: 9 }).length,
    client: await sizeOf('import { TaskcastClient } from "./index.js"; window.client = new TaskcastClient();'),
    errors: await sizeOf('import { TaskError } from "./index.js"; window.error = TaskError;'),
  };
  console.log("gzipped bytes:", sizes);
  for (const [name, limit] of Object.entries(LIMITS)) assert.ok(sizes[name] <= limit, `${name}: ${sizes[name]} of ${limit}`);
});

it("nothing is needed at run time but what the browser has", () => {
  const { dependencies, peerDependencies } = JSON.parse(readFileSync(path("package.json"), "utf8"));
  assert.deepEqual([dependencies, Object.keys(peerDependencies)], [undefined, ["react"]]);
});

it("the types and the code know the statuses of the contract", async () => {
  const { hasEnded } = await import("../src/index.js");
  const types = readFileSync(path("types/index.d.ts"), "utf8").match(/type Status =([^;]*);/)[1];
  assert.deepEqual([...types.matchAll(/"(\w+)"/g)].map(([, name]) => name).sort(), contract.statuses.map(({ name }) => name).sort());
  for (const { name, terminal } of contract.statuses) assert.equal(hasEnded({ status: name }), terminal, name);
});
