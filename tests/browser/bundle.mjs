// Makes of a module what a browser runs, as an application's own build would: with React and Vue from npm, and the client from
// its sources.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { modules } from "./support.mjs";

const require = createRequire(join(modules, "taskcast.js"));
const { build } = require("esbuild");
const sfc = require("vue/compiler-sfc");

export const root = fileURLToPath(new URL("../..", import.meta.url));
const client = join(root, "clients/js/src");

/** A single-file component as the module that Vue's own tools make of it. */
const vue = {
  name: "vue",
  setup(build) {
    build.onLoad({ filter: /\.vue$/ }, ({ path }) => {
      const { descriptor, errors } = sfc.parse(readFileSync(path, "utf8"), { filename: path });
      if (errors.length > 0) throw errors[0];
      return { contents: sfc.compileScript(descriptor, { id: "example", inlineTemplate: true }).content, loader: "js" };
    });
  },
};

/**
 * @param {string} contents a module; paths are relative to the project's root
 * @returns {Promise<string>}
 */
export async function bundle(contents) {
  const { outputFiles, warnings } = await build({
    stdin: { contents, resolveDir: root, loader: "jsx" }, bundle: true, format: "esm", write: false, jsx: "automatic",
    nodePaths: [modules], plugins: [vue], logLevel: "silent",
    alias: { taskcast: join(client, "index.js"), "taskcast/react": join(client, "react.js") },
    define: {
      "process.env.NODE_ENV": '"development"', __VUE_OPTIONS_API__: "false", __VUE_PROD_DEVTOOLS__: "false", __VUE_PROD_HYDRATION_MISMATCH_DETAILS__: "false",
    },
  });
  if (warnings.length > 0) throw new Error(warnings.map(({ text }) => text).join("; "));
  return outputFiles[0].text;
}
