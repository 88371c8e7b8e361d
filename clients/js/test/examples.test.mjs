// The examples are bundled as an application would, so that they use nothing that is not there.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { it } from "node:test";
import { fileURLToPath } from "node:url";

import { build } from "esbuild";

const path = (name) => fileURLToPath(new URL(`../${name}`, import.meta.url));
const scriptOf = (name) => readFileSync(path(`examples/${name}`), "utf8").match(/<script[^>]*>(.*?)<\/script>/s)[1];

for (const [name, code] of [
  ["plain.html", () => scriptOf("plain.html").replace("http://localhost:6161/client.js", "taskcast-client")],
  ["react.jsx", () => readFileSync(path("examples/react.jsx"), "utf8")],
  ["vue.vue", () => scriptOf("vue.vue")],
]) {
  it(`the example ${name} uses what there is`, async () => {
    const { warnings, outputFiles } = await build({
      stdin: { contents: code(), loader: "jsx", resolveDir: path("examples"), sourcefile: name }, bundle: true, format: "esm", write: false,
      jsx: "automatic", external: ["react", "react/jsx-runtime", "vue"], logLevel: "silent",
      alias: { taskcast: path("src/index.js"), "taskcast/react": path("src/react.js"), "taskcast-client": path("src/bundle.js") },
    });
    assert.deepEqual(warnings.map(({ text }) => text), []);
    assert.ok(outputFiles[0].text.includes("TaskcastClient"));
  });
}
