// The examples of clients/js, as they stand there, in a real browser: on a site of another origin, whose back end issues tokens
// and starts tasks. Only the service's address is another one.
//
// Usage and environment: as page.mjs. Screenshots: example-plain.png, example-react.png, example-vue.png. Prints PASS or FAIL and why.

import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

import { bundle, root } from "./bundle.mjs";
import { judge, screenshots, stop } from "./support.mjs";
import { PATIENCE, jwt, newWorld } from "./world.mjs";

const page = (script) => `<!doctype html><html lang="en"><meta charset="utf-8"><title>An example</title><main id="app"></main>
<script type="module" src="/${script}.js"></script></html>`;

const SCRIPTS = {
  react: `import { StrictMode } from "react"; import { createRoot } from "react-dom/client"; import { App } from "./clients/js/examples/react.jsx";
    createRoot(document.querySelector("#app")).render(<StrictMode><App /></StrictMode>);`,
  vue: `import { createApp } from "vue"; import Task from "./clients/js/examples/vue.vue"; createApp(Task, { id: "t1" }).mount("#app");`,
};

async function walk(browser, step) {
  step("the examples are bundled");
  const bundles = {};
  for (const [name, script] of Object.entries(SCRIPTS)) bundles[name] = await bundle(script);
  const plain = readFileSync(join(root, "clients/js/examples/plain.html"), "utf8");
  let exports = 0;
  const world = await newWorld({
    site: async (path, { port, publish }, method) => {
      const here = (text) => text.replaceAll("http://localhost:6161", `http://127.0.0.1:${port}`).replaceAll("https://tasks.example.com", `http://127.0.0.1:${port}`);
      if (path === "/api/task-token") return jwt("u1", 3600);
      if (path === "/api/exports" && method === "POST") {
        exports += 1;
        const task_id = `export${exports}`;
        await publish([{ task_id, user_id: "u1", title: "Export of all customers", progress: 20 }]);
        return JSON.stringify({ task_id });
      }
      if (path === "/plain") return here(plain);
      const [, name, isScript] = path.match(/^\/(react|vue)(\.js)?$/) ?? [];
      return name && (isScript ? here(bundles[name]) : page(name));
    },
  });
  const { publish } = world;
  const context = await browser.newContext({ viewport: { width: 640, height: 400 } });
  const showing = async (path) => {
    const { page, seen } = await world.open(context, path);
    const holds = (look, about) => page.waitForFunction(look, about, PATIENCE);
    const done = async (name, progress) => {
      await page.screenshot({ path: join(screenshots, `example-${name}.png`) });
      // A service that restarts is away, and is said to be; then all is well again.
      await Promise.all([
        holds(() => /connecting/.test(document.querySelector("[role=status]")?.textContent ?? "")), world.restart(stop),
      ]);
      await publish([{ task_id: "t1", user_id: "u1", progress }, { task_id: "t2", user_id: "u1", progress: progress + 1 }]);
      return async (look) => {
        await holds(look);
        assert.equal(await page.evaluate(() => window.mostOpen), 1);
        assert.deepEqual(seen.complaints, []);
        await page.close();
      };
    };
    return { page, holds, done };
  };
  const begin = () => publish([
    { task_id: "t1", user_id: "u1", title: "Nightly import", progress: 40 }, { task_id: "t2", user_id: "u1", title: "Thumbnails", progress: 41 },
  ]);

  step("the plain page");
  await begin();
  const first = await showing(`/plain#token=${jwt("u1", 3600)}`);
  await first.holds(() => document.querySelector("#state").textContent === "live" && document.querySelectorAll("#tasks task-progress").length === 2);
  await first.holds(() => [...document.querySelectorAll("task-progress")].some((bar) => bar.shadowRoot.querySelector("[aria-valuenow='40']")));
  await (await first.done("plain", 80))(() =>
    document.querySelector("#state").textContent === "live" && document.querySelector("task-progress[task-id=t1]").shadowRoot.querySelector("[aria-valuenow='80']"));

  step("React");
  await publish([{ task_id: "t1", progress: 90 }, { task_id: "t3", user_id: "u1", title: "Third", status: "succeeded" }]);
  const second = await showing("/react");
  await second.holds(() => document.querySelectorAll("#app li").length === 2 && /Nightly import: 90 %/.test(document.querySelector("#app").textContent));
  await second.page.getByRole("button", { name: "Export" }).click();
  await second.holds(() => /Export of all customers\s+running/.test(document.querySelector("label")?.textContent) && document.querySelector("progress").value === 20);
  await publish([{ task_id: "export1", status: "failed", error: { message: "the disk is full" } }]);
  await second.holds(() => document.querySelector("[role=alert]")?.textContent === "the disk is full" && document.querySelectorAll("#app li").length === 2);
  await (await second.done("react", 93))(() => !document.querySelector("[role=status]") && /Thumbnails: 94 %/.test(document.querySelector("#app").textContent));

  step("Vue");
  const third = await showing("/vue");
  await third.holds(() => /Nightly import\s+running/.test(document.querySelector("label")?.textContent) && document.querySelector("progress").value === 93);
  await (await third.done("vue", 95))(() => !document.querySelector("[role=status]") && document.querySelector("progress")?.value === 95);

  await context.close();
  await world.close();
}

mkdirSync(screenshots, { recursive: true });
await judge("the examples in a browser", walk);
