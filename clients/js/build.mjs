// Makes dist/client.js, which the service gives out at /client.js; `--check` fails when it is not what src/ says.

import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

import { build } from "esbuild";

const path = (name) => fileURLToPath(new URL(name, import.meta.url));
const { version } = JSON.parse(readFileSync(path("package.json"), "utf8"));

const { outputFiles } = await build({
  entryPoints: [path("src/bundle.js")], bundle: true, format: "esm", target: "es2022", minify: true, charset: "utf8", write: false,
  legalComments: "none", banner: { js: `/* taskcast ${version} | MIT OR Apache-2.0 | the source is in clients/js */` },
});
const [{ text }] = outputFiles;
const target = path("dist/client.js");
if (process.argv.includes("--check")) {
  if (readFileSync(target, "utf8") !== text) {
    console.error("dist/client.js is not what src/ says: run `npm run build` in clients/js");
    process.exit(1);
  }
} else writeFileSync(target, text);
