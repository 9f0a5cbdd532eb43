// The dashboard in headless Chromium, against a real queen, hive and workers. RBEE_BIN names the binary (default:
// target/debug/rbee), CHROMIUM the browser; with SHOTS set, screenshots are left in that folder.

import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";
import { Fleet, until } from "./fleet.mjs";

const binary = process.env.RBEE_BIN ?? fileURLToPath(new URL("../../target/debug/rbee", import.meta.url));
const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
const args = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
const SEEN_MS = 10_000;
const fleet = new Fleet(binary);
const elsewhere = [];
const errors = [];
let browser;
let page;

const find = (id, within = page) => within.locator(`[data-testid="${id}"]`);
const row = (name) => page.locator(`[data-testid="worker-row"][data-worker="${name}"]`);
const cell = (name, column) => find(`cell-${column}`, row(name)).innerText();
const phase = () => find("status").getAttribute("data-phase");
const names = () => find("worker-row").evaluateAll((rows) => rows.map((r) => r.dataset.worker).sort());
const shot = (name) => process.env.SHOTS && page.screenshot({ path: join(process.env.SHOTS, `${name}.png`) });

before(async () => {
  if (process.env.SHOTS) mkdirSync(process.env.SHOTS, { recursive: true });
  await fleet.start();
  browser = await chromium.launch({ executablePath, headless: true, args });
  const context = await browser.newContext({ viewport: { width: 1440, height: 800 }, colorScheme: "dark" });
  page = await context.newPage();
  page.on("request", (request) => new URL(request.url()).origin === fleet.url || elsewhere.push(request.url()));
  page.on("pageerror", (error) => errors.push(error.message));
  page.on("console", (message) => message.type() === "error" && !/Failed to load resource/.test(message.text()) && errors.push(message.text()));
  await page.goto(fleet.url);
});

after(async () => {
  await browser?.close();
  await fleet.end();
});

test("an empty fleet is live and says that no worker runs", async () => {
  await until("live", async () => (await phase()) === "live", SEEN_MS);
  await until("the hive is listed", async () => (await page.locator('[data-testid="hive-row"][data-hive="box"][data-freshness="live"]').count()) === 1, SEEN_MS);
  assert.match(await find("empty").innerText(), /No worker runs/);
  assert.equal(await find("total-workers").locator("b").innerText(), "0");
});

test("workers appear as they start, without a reload", async () => {
  await fleet.work("llm", "8080", "llama-3.2-1b", true);
  await fleet.work("llm", "8081", "qwen2.5-7b", false);
  await row("box/llm/8080").waitFor({ timeout: SEEN_MS });
  await row("box/llm/8081").waitFor({ timeout: SEEN_MS });
  await until("both are online", async () => (await find("total-workers").locator("b").innerText()) === "2", SEEN_MS);
  assert.equal(await cell("box/llm/8080", "model"), "llama-3.2-1b");
  assert.equal(await cell("box/llm/8080", "hive"), "box");
});

test("numbers move", async () => {
  const seen = { cpu: new Set(), uptime: new Set() };
  await until("three CPU values and three uptimes", async () => {
    for (const column of ["cpu", "uptime"]) seen[column].add(await cell("box/llm/8080", column));
    return seen.cpu.size >= 3 && seen.uptime.size >= 3;
  });
  await until("the busy one is busy", async () => (await cell("box/llm/8080", "activity")) === "busy", SEEN_MS);
  assert.ok(Number(await cell("box/llm/8080", "cpu")) > 5);
  assert.match(await cell("box/llm/8080", "memory"), /^[\d.]+ [KMG]iB$/);
  await shot("live");
});

test("the page shows the same workers as rbee ps", async () => {
  const listed = await fleet.ps();
  assert.deepEqual(await names(), listed.map(({ spec }) => `${spec.hive}/${spec.group}/${spec.instance}`).sort());
  for (const { spec } of listed) {
    const name = `${spec.hive}/${spec.group}/${spec.instance}`;
    assert.equal(await cell(name, "pid"), String(spec.pid));
    assert.equal(await cell(name, "model"), spec.model);
    assert.equal(await cell(name, "endpoint"), `${spec.endpoint.host}:${spec.endpoint.port}`);
  }
});

test("what is not measured is a dash that says unknown, never zero", async () => {
  const worker = (await fleet.ps()).find((w) => w.spec.instance === "8080");
  if (worker.stats.gpuUtilPct === undefined) {
    const gpu = find("cell-gpu", row("box/llm/8080"));
    assert.equal(await gpu.innerText(), "–");
    assert.match(await gpu.getAttribute("title"), /unknown|no GPU/);
  }
});

test("filter, sort and keyboard", async () => {
  await page.keyboard.press("/");
  await page.keyboard.type("QWEN");
  await until("one matches", async () => (await names()).join() === "box/llm/8081", SEEN_MS);
  await page.keyboard.press("Escape");
  await until("both again", async () => (await names()).length === 2, SEEN_MS);
  await find("sort-cpu").click();
  const header = page.locator('[role="columnheader"]', { has: find("sort-cpu") });
  assert.equal(await header.getAttribute("aria-sort"), "descending");
  const first = () => page.locator('[aria-rowindex="2"]').getAttribute("data-worker");
  await until("the busy one is first", async () => (await first()) === "box/llm/8080", SEEN_MS);
  await page.locator('[role="grid"]').focus();
  await page.keyboard.press("End");
  assert.equal(await page.locator('[aria-selected="true"]').getAttribute("data-worker"), "box/llm/8081");
  await page.keyboard.press("Home");
  assert.equal(await page.locator('[aria-selected="true"]').getAttribute("data-worker"), "box/llm/8080");
});

test("a silent hive and its workers are stale, with the age of the last sample, while the page is live", async () => {
  const marks = (id) => find(id).evaluateAll((rows) => rows.map((r) => r.dataset.freshness).join());
  fleet.hive.kill("SIGSTOP");
  try {
    await until("stale", async () => (await marks("hive-row")) === "stale" && (await marks("worker-row")) === "stale,stale", SEEN_MS);
    assert.equal(await phase(), "live");
    assert.match(await cell("box/llm/8080", "sample"), /^stale [3-9] s$/);
    assert.equal(await find("total-workers").locator("b").innerText(), "0");
    await shot("stale");
  } finally {
    fleet.hive.kill("SIGCONT");
  }
  await until("live again", async () => (await marks("hive-row")) === "live" && (await marks("worker-row")) === "live,live", SEEN_MS);
});

test("without the queen the page says reconnecting and nothing looks fresh", async () => {
  await fleet.killQueen();
  await until("reconnecting", async () => (await phase()) === "reconnecting", SEEN_MS);
  await until("it says since when and why", async () => /reconnecting\s+since \d+ s\s+the queen cannot be reached/.test(await find("status").innerText()), SEEN_MS);
  await until("every worker is stale", async () => {
    const marks = await find("worker-row").evaluateAll((rows) => rows.map((r) => r.dataset.freshness));
    return marks.length === 2 && marks.every((m) => m === "stale" || m === "lost");
  }, SEEN_MS);
  assert.match(await page.title(), /reconnecting/);
  await until("the age is told", async () => /^stale [1-9]\d* s$/.test(await cell("box/llm/8080", "sample")), SEEN_MS);
  const frozen = await cell("box/llm/8080", "uptime");
  await until("it grows older", async () => /^stale ([4-9]|\d\d+) s$/.test(await cell("box/llm/8080", "sample")), SEEN_MS);
  assert.equal(await cell("box/llm/8080", "uptime"), frozen);
  await shot("reconnecting");
});

test("with the queen back the page is whole again, and was never empty", async () => {
  await page.evaluate(() => {
    window.fewest = Infinity;
    const look = () => {
      // The table is emptied only by a snapshot in which the hive has not yet reported.
      if (document.querySelector('[data-testid="status"]').dataset.phase !== "live") window.fewest = Math.min(window.fewest, document.querySelectorAll('[data-testid="worker-row"]').length);
      requestAnimationFrame(look);
    };
    look();
  });
  const pids = (await Promise.all(["8080", "8081"].map((i) => cell(`box/llm/${i}`, "pid")))).join();
  await fleet.startQueen();
  await until("live", async () => (await phase()) === "live", SEEN_MS);
  await until("both are live", async () => (await page.locator('[data-testid="worker-row"][data-freshness="live"]').count()) === 2, SEEN_MS);
  assert.equal((await Promise.all(["8080", "8081"].map((i) => cell(`box/llm/${i}`, "pid")))).join(), pids);
  assert.equal(await page.evaluate(() => window.fewest), 2);
});

test("a killed worker leaves the page", async () => {
  const worker = (await fleet.ps()).find((w) => w.spec.instance === "8081");
  fleet.kill(worker.spec.pid);
  await until("its row is gone", async () => (await names()).join() === "box/llm/8080", SEEN_MS);
  await until("and its count", async () => (await find("total-workers").locator("b").innerText()) === "1", SEEN_MS);
  assert.deepEqual((await fleet.ps()).map((w) => w.spec.instance), ["8080"]);
});

test("narrow and light screens show the same fleet", async () => {
  await page.emulateMedia({ colorScheme: "light" });
  await page.setViewportSize({ width: 390, height: 844 });
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 390);
  assert.deepEqual(await names(), ["box/llm/8080"]);
  await shot("narrow");
  await page.setViewportSize({ width: 1440, height: 800 });
  await shot("light");
});

test("axe finds nothing to object to, dark and light", async () => {
  const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
  await page.evaluate(axe);
  for (const colorScheme of ["dark", "light"]) {
    await page.emulateMedia({ colorScheme });
    const { violations } = await page.evaluate(() => window.axe.run());
    assert.deepEqual(violations.map((v) => `${v.id}: ${v.nodes[0].html}`), []);
  }
});

test("the page loaded nothing from elsewhere and raised no error", () => {
  assert.deepEqual(elsewhere, []);
  assert.deepEqual(errors, []);
});
