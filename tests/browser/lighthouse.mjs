// What Lighthouse says of the dashboard (with the demo's tasks) and of `/docs/`: accessibility must be without a fault; the rest is
// told, with what takes points. Not a part of `tests/run`: Lighthouse is 176 MB of packages, and axe-core, which is behind its
// accessibility, looks at every state of the pages there anyway.
//
// Usage: npm install --prefix DIRECTORY lighthouse
//        LIGHTHOUSE=DIRECTORY/node_modules/lighthouse/core/index.js node tests/browser/lighthouse.mjs [BINARY]
// Environment and result: as page.mjs. Measure with a release build, on a machine without other work.

import assert from "node:assert/strict";
import { pathToFileURL } from "node:url";

import { freePorts, judge, start } from "./support.mjs";

const CATEGORIES = ["accessibility", "best-practices", "performance", "seo"];
const [debugPort] = await freePorts(1);

async function walk(browser, step) {
  const [port, operationsPort] = await freePorts(2);
  assert.ok(process.env.LIGHTHOUSE, "LIGHTHOUSE names no core/index.js: see the head of this file");
  const { default: lighthouse } = await import(pathToFileURL(process.env.LIGHTHOUSE).href);
  await start(["demo", "--listen", `127.0.0.1:${port}`, "--operations-listen", `127.0.0.1:${operationsPort}`], port, operationsPort);
  const faults = [];
  for (const [path, formFactor] of [["/", "desktop"], ["/", "mobile"], ["/docs/", "desktop"], ["/docs/", "mobile"]]) {
    step(`${path}, ${formFactor}`);
    const screen = formFactor === "desktop"
      ? { screenEmulation: { mobile: false, width: 1350, height: 940, deviceScaleFactor: 1, disabled: false }, throttling: { rttMs: 40, throughputKbps: 10_240, cpuSlowdownMultiplier: 1 } }
      : {};
    const { lhr } = await lighthouse(`http://127.0.0.1:${port}${path}`, { port: debugPort, onlyCategories: CATEGORIES, formFactor, ...screen, logLevel: "error" });
    const score = ([name, category]) => `${name} ${Math.round(category.score * 100)}`;
    console.log(`browser: ${Object.entries(lhr.categories).map(score).join(", ")}`);
    for (const name of ["first-contentful-paint", "largest-contentful-paint", "total-blocking-time", "cumulative-layout-shift", "total-byte-weight"]) {
      console.log(`browser:   ${name}: ${lhr.audits[name]?.displayValue}`);
    }
    for (const [name, { auditRefs }] of Object.entries(lhr.categories)) {
      const missed = auditRefs.filter(({ id, weight }) => weight > 0 && lhr.audits[id].score !== null && lhr.audits[id].score < 1);
      for (const { id } of missed) {
        const { title, displayValue = "", details } = lhr.audits[id];
        console.log(`browser:   ${name}: ${id}: ${title} ${displayValue}`);
        if (name === "accessibility") faults.push(`${path} ${formFactor} ${id}: ${JSON.stringify(details?.items?.[0] ?? {}).slice(0, 300)}`);
      }
    }
  }
  assert.deepEqual(faults, []);
}

await judge("Lighthouse", walk, { args: [`--remote-debugging-port=${debugPort}`] });
