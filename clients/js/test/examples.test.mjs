// The examples are checked against the types, so that they use nothing that is not there, and bundled as an application would.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { it } from "node:test";
import { fileURLToPath } from "node:url";

import { build } from "esbuild";

const path = (name) => fileURLToPath(new URL(`../${name}`, import.meta.url));
const scriptOf = (name) => readFileSync(path(`examples/${name}`), "utf8").match(/<script[^>]*>(.*?)<\/script>/s)[1];

const EXAMPLES = {
  "plain.html": scriptOf("plain.html").replace("http://localhost:6161/client.js", "taskcast-client"),
  "react.jsx": readFileSync(path("examples/react.jsx"), "utf8"),
  "vue.vue": scriptOf("vue.vue"),
};
/** Of what is not installed, as much as the examples use. */
const VUE = `declare module "vue" {
  export const onScopeDispose: (then: () => void) => void;
  export const shallowRef: () => { value: any };
  export const watchEffect: (effect: (onCleanup: (then: () => void) => void) => void) => void;
}
declare const defineProps: (props: object) => { id: string };`;

/** What the compiler says of these scripts. */
function complaintsAbout(scripts) {
  const folder = mkdtempSync(join(tmpdir(), "taskcast-examples-"));
  const put = (name, text) => writeFileSync(join(folder, name), text);
  try {
    for (const [name, code] of Object.entries(scripts)) put(`${name}.jsx`, code);
    put("vue.d.ts", VUE);
    put("client.d.ts", `export * from ${JSON.stringify(path("types/index.js"))};\nexport * from ${JSON.stringify(path("types/element.js"))};`);
    put("tsconfig.json", JSON.stringify({
      compilerOptions: {
        target: "es2023", module: "esnext", moduleResolution: "bundler", jsx: "react-jsx", lib: ["es2023", "dom", "dom.iterable"],
        allowJs: true, checkJs: true, noEmit: true, strict: false, skipLibCheck: true, types: [],
        paths: {
          taskcast: [path("types/index.d.ts")], "taskcast/react": [path("types/react.d.ts")], "taskcast-client": [join(folder, "client.d.ts")],
          react: [path("node_modules/@types/react")], "react/jsx-runtime": [path("node_modules/@types/react/jsx-runtime")],
        },
      },
    }));
    execFileSync(path("node_modules/.bin/tsc"), ["--project", folder], { encoding: "utf8" });
    return "";
  } catch (error) {
    return error.stdout || String(error);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

it("the examples use what the types have, and what they do not have is noticed", () => {
  assert.equal(complaintsAbout(EXAMPLES), "");
  const wrong = Object.entries({ "plain.html": [".tasks(", ".jobs("], "react.jsx": ["throttleMs", "throttle"], "vue.vue": [".close()", ".end()"] });
  const complaints = complaintsAbout(Object.fromEntries(wrong.map(([name, [word, other]]) => [name, EXAMPLES[name].replace(word, other)])));
  for (const [name] of wrong) assert.match(complaints, new RegExp(`${name}.jsx\\(`), complaints);
});

for (const [name, contents] of Object.entries(EXAMPLES)) {
  it(`the example ${name} can be bundled`, async () => {
    const { warnings, outputFiles } = await build({
      stdin: { contents, loader: "jsx", resolveDir: path("examples"), sourcefile: name }, bundle: true, format: "esm", write: false,
      jsx: "automatic", external: ["react", "react/jsx-runtime", "vue"], logLevel: "silent",
      alias: { taskcast: path("src/index.js"), "taskcast/react": path("src/react.js"), "taskcast-client": path("src/bundle.js") },
    });
    assert.deepEqual(warnings.map(({ text }) => text), []);
    assert.ok(outputFiles[0].text.includes("TaskcastClient"));
  });
}
