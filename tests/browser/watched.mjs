// What the tests of the dashboard share: pages that remember whatever must not happen on them, events, and what axe-core says.

import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

import { AXE_OPTIONS, modules, run, screenshots } from "./support.mjs";

const axe = readFileSync(createRequire(join(modules, "taskcast.js")).resolve("axe-core/axe.min.js"), "utf8");

export const SECRET = { TASKCAST_AUTH_SECRET: "a-secret-of-the-tests-32-bytes-long-or-more" };
export const LIVE = '[data-connection-state="live"]';
/** Longer than the longest pause between two attempts to reconnect. */
export const PATIENCE = { timeout: 30_000 };
export const PHONE = { width: 360, height: 740 };
export const DESK = { width: 1100, height: 800 };

export const tokenFor = (...words) => run(["token", ...words], SECRET);

/** A token that `taskcast token` would not mint. */
export function signed(claims) {
  const body = [{ alg: "HS256", typ: "JWT" }, claims].map((part) => Buffer.from(JSON.stringify(part)).toString("base64url")).join(".");
  return `${body}.${createHmac("sha256", SECRET.TASKCAST_AUTH_SECRET).update(body).digest("base64url")}`;
}

export async function publish(port, token, events) {
  const answer = await fetch(`http://127.0.0.1:${port}/api/v1/events`, {
    method: "POST", headers: { authorization: `Bearer ${token}`, "content-type": "application/json" }, body: JSON.stringify(events),
  });
  assert.equal(answer.status, 202, await answer.text());
}

/** A page, and what it complained of or asked of anybody else. */
export async function watch(browser, own, settings = {}) {
  const context = await browser.newContext({ viewport: DESK, colorScheme: "light", reducedMotion: "no-preference", ...settings });
  const page = await context.newPage();
  const seen = { complaints: [], sockets: [], bytes: 0 };
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && seen.complaints.push(message.text()));
  page.on("pageerror", (error) => seen.complaints.push(error.message));
  page.on("request", (request) => new URL(request.url()).origin === own || seen.complaints.push(`asked ${request.url()}`));
  page.on("websocket", (socket) => seen.sockets.push(socket));
  await page.addInitScript(() => {
    window.violations = [];
    addEventListener("securitypolicyviolation", (event) => window.violations.push(event.effectiveDirective));
  });
  return { page, context, seen };
}

/** Nothing keeps anybody out, in light and in the dark, on a desk and on a phone; and a screenshot of each. */
export async function show(page, name) {
  const told = [];
  await page.evaluate(() => scrollTo(0, 0));
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme });
    await page.evaluate(`${axe}; undefined`);
    const { violations } = await page.evaluate((options) => axe.run(options), AXE_OPTIONS);
    told.push(...violations.map(({ id, nodes }) => `${name} ${colorScheme} ${id}: ${nodes.length}, first ${nodes[0].html.slice(0, 200)} ${nodes[0].failureSummary}`));
    await page.screenshot({ path: join(screenshots, `dashboard-${name}-${colorScheme}.png`) });
  }
  await page.emulateMedia({ colorScheme: "light" });
  await page.setViewportSize(PHONE);
  const wide = await page.evaluate(() => document.documentElement.scrollWidth);
  if (wide > PHONE.width) told.push(`${name}: ${wide} pixels wide on a phone`);
  await page.screenshot({ path: join(screenshots, `dashboard-${name}-phone.png`) });
  await page.setViewportSize(DESK);
  assert.deepEqual(told, []);
}
