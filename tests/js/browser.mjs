// The dashboard in headless Chromium, driven by the Python test through JSON lines.
// Usage: node browser.mjs FOLDER_WITH_NODE_MODULES CHROMIUM URL EMPTY_PROFILE_FOLDER

import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const [folder, executablePath, url, profile] = process.argv.slice(2);
const require = createRequire(`${folder}/`);
const { chromium } = require("playwright-core");

const report = (what, more = {}) => console.log(JSON.stringify({ what, ...more }));

const context = await chromium.launchPersistentContext(profile, {
  executablePath,
  args: [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ],
});
const page = context.pages()[0];
page.setDefaultTimeout(240_000);
const requests = [];
page.on("request", (request) => requests.push(request.url()));
const errors = [];
// Longer than the tests wait for a report: they say what is missing.
page.setDefaultTimeout(300_000);
page.on("pageerror", (error) => errors.push(error.message));
page.on("console", (message) => {
  // A lost server is reported there, too; refusals by the content policy are what matters.
  if (message.text().includes("Content Security Policy")) errors.push(message.text());
});

let debug;
let begun;

async function metrics() {
  const { metrics: list } = await debug.send("Performance.getMetrics");
  return Object.fromEntries(list.map(({ name, value }) => [name, value]));
}

const commands = {
  async wait({ selector, text }) {
    await page.locator(selector).filter({ hasText: text }).first().waitFor();
    report("shown", { selector, text });
  },
  async read({ expression }) {
    report("value", { expression, value: await page.evaluate(expression) });
  },
  async press({ keys }) {
    for (const key of keys) await page.keyboard.press(key);
    report("pressed", { keys });
  },
  async type({ text }) {
    await page.keyboard.type(text);
    report("typed", { text });
  },
  async look({ scheme, width, height }) {
    await page.emulateMedia({ colorScheme: scheme });
    await page.setViewportSize({ width, height });
    report("looking");
  },
  async axe() {
    await page.evaluate(require("axe-core").source); // by the debugger, which the page's policy does not bind
    const { violations } = await page.evaluate("axe.run()");
    report("faults", {
      faults: violations.map(({ id, impact, nodes }) => ({ id, impact, where: nodes.map((node) => node.html) })),
    });
  },
  // From now on: tasks of the page of 50 ms and more, and the CPU time of its main thread.
  async measure() {
    debug = await context.newCDPSession(page);
    await debug.send("Performance.enable");
    begun = await metrics();
    await page.evaluate(() => {
      window.longTasks = [];
      new PerformanceObserver((list) => {
        window.longTasks.push(...list.getEntries().map((entry) => entry.duration));
      }).observe({ type: "longtask" });
    });
    report("measuring");
  },
  async measured() {
    const { Timestamp, ThreadTime } = await metrics();
    const longTasks = await page.evaluate("window.longTasks");
    const elements = await page.evaluate("document.querySelectorAll('*').length");
    const cpu = (ThreadTime - begun.ThreadTime) / (Timestamp - begun.Timestamp);
    report("measured", { longest: Math.max(0, ...longTasks), cpu, elements });
  },
  async screenshot({ path }) {
    await page.screenshot({ path, animations: "disabled" }); // those that end are shown at their end
    report("screenshot", { path });
  },
  async errors() {
    report("errors", { messages: errors });
  },
  async requests() {
    report("requests", { urls: requests });
  },
};

await page.goto(url);
report("loaded");
for await (const line of createInterface({ input: process.stdin })) {
  const { command, ...options } = JSON.parse(line);
  await commands[command](options);
}
await context.close();
