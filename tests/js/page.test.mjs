// The chat page in a real browser: what a person sees in the first minute.

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { after, before, describe, test } from "node:test";

import { chromium } from "playwright-core";

import { PATIENCE_MS, URL_BASE, publish } from "./support.mjs";

const CHANNEL = "public:lobby";
const BROWSERS = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];

let browser;

/** A tab of its own browser profile, with the page connected. Anything the page logs is a failure. */
async function newTab(t, options = {}) {
  const context = await browser.newContext(options);
  t.after(() => context.close());
  context.setDefaultTimeout(PATIENCE_MS);
  const page = await context.newPage();
  const problems = [];
  page.on("pageerror", (error) => problems.push(error.message));
  page.on("console", (message) => message.type() === "error" && problems.push(message.text()));
  page.on("request", (request) => {
    if (!request.url().startsWith(URL_BASE) && !request.url().startsWith("data:")) problems.push(request.url());
  });
  t.after(() => assert.deepEqual(problems, [], "the page has no errors and asks nobody else"));
  await page.goto(URL_BASE);
  await connected(page);
  return page;
}

const connected = (page) => page.locator("#state", { hasText: /^connected$/ }).waitFor();
const messages = (page, text) => page.locator("#messages li:not(.note)", { hasText: text });

async function say(page, text) {
  await page.fill("#text", text);
  await page.press("#text", "Enter");
}

/** A text that no earlier run has left in the channel. */
const unique = (text) => `${text} ${Date.now().toString(36)}`;

describe("the chat page", () => {
  before(async () => {
    const executablePath = BROWSERS.find((path) => path && existsSync(path));
    assert(executablePath, "no Chromium: `make test-tools` installs it, or name one with CHROMIUM=PATH");
    browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-dev-shm-usage"] });
  });

  after(() => browser?.close());

  test("lets two tabs talk", async (t) => {
    const [ann, bob] = [await newTab(t), await newTab(t)];
    await ann.fill("#name", "Ann");
    await bob.fill("#name", "Bob");
    const [question, answer] = [unique("hello?"), unique("hello!")];
    await say(ann, question);
    await messages(bob, question).waitFor();
    assert.match(await messages(bob, question).innerText(), /^Ann/);
    await say(bob, answer);
    await messages(ann, answer).waitFor();
    assert.match(await messages(ann, question).innerText(), /^you/);
    assert.equal(await messages(ann, question).count(), 1);
  });

  test("shows who is here, and who is not any more", async (t) => {
    const ann = await newTab(t);
    const name = unique("Bob");
    const here = (text) => ann.locator("#here", { hasText: text });
    const context = await browser.newContext();
    t.after(() => context.close());
    const bob = await context.newPage();
    await bob.goto(URL_BASE);
    await bob.fill("#name", name);
    await bob.press("#name", "Tab");
    await here(name).waitFor();
    assert.match(await ann.locator("#here").innerText(), /^\d+ here: /);
    await bob.close();
    await ann.waitForFunction((name) => !document.querySelector("#here").textContent.includes(name), name);
  });

  test("has the history on load, in order", async (t) => {
    const run = unique("history");
    for (let n = 1; n <= 5; n++) await publish(CHANNEL, { name: "backend", text: `${run} #${n}` });
    const page = await newTab(t);
    await messages(page, `${run} #5`).waitFor();
    const texts = await messages(page, run).allInnerTexts();
    assert.deepEqual(texts.map((text) => text.at(-1)), ["1", "2", "3", "4", "5"]);
  });

  test("resumes after it was offline and counts what it recovered", async (t) => {
    const page = await newTab(t);
    const run = unique("missed");
    await page.check("#offline");
    await page.locator("#state", { hasText: "offline" }).waitFor();
    for (let n = 1; n <= 3; n++) await publish(CHANNEL, { name: "backend", text: `${run} #${n}` });
    assert.equal(await messages(page, run).count(), 0);

    await page.uncheck("#offline");
    await page.locator(".note.good", { hasText: "recovered 3 messages" }).waitFor();
    await messages(page, `${run} #3`).waitFor();
    assert.equal(await messages(page, run).count(), 3);
    assert.match(await page.locator("#position").innerText(), /^offset [1-9][0-9]* · epoch \S+$/);
  });

  test("keeps what was written offline and sends it once", async (t) => {
    const [ann, bob] = [await newTab(t), await newTab(t)];
    const text = unique("written offline");
    await ann.check("#offline");
    await say(ann, text);
    await ann.locator("#pending li", { hasText: text }).waitFor();
    await ann.uncheck("#offline");
    await messages(bob, text).waitFor();
    await messages(ann, text).waitFor();
    assert.equal(await messages(ann, text).count(), 1);
    assert.equal(await ann.locator("#pending li").count(), 0);
  });

  test("shows markup as text", async (t) => {
    const page = await newTab(t);
    const text = unique('<img src=x onerror="document.title=`hacked`"><b>bold</b>');
    await publish(CHANNEL, { name: "<i>eve</i>", text });
    await messages(page, text).waitFor();
    assert.equal(await page.locator("#messages img, #messages b, #messages i").count(), 0);
    assert.equal(await page.title(), "Slipstream");
  });

  test("shows any JSON that a backend publishes", async (t) => {
    const page = await newTab(t);
    const mark = unique("any");
    for (const data of [[mark, 1], { mark: `${mark} 2` }, `${mark} 3`]) await publish(CHANNEL, data);
    await publish(CHANNEL, null);
    await messages(page, `${mark} 3`).waitFor();
    assert.equal(await messages(page, mark).count(), 3);
    await connected(page);
  });

  for (const [colorScheme, width, height] of [["light", 1280, 800], ["dark", 360, 640]]) {
    test(`fits a ${colorScheme} window of ${width} by ${height}`, async (t) => {
      const page = await newTab(t, { colorScheme, viewport: { width, height } });
      await say(page, unique("a rather long message that has to wrap on a narrow screen ".repeat(3)));
      const { wide, low } = await page.evaluate(() => ({
        wide: document.documentElement.scrollWidth > innerWidth,
        low: document.querySelector("form").getBoundingClientRect().bottom > innerHeight + 1,
      }));
      assert.deepEqual({ wide, low }, { wide: false, low: false });
      if (process.env.SCREENSHOTS) await page.screenshot({ path: `${process.env.SCREENSHOTS}/${colorScheme}.png` });
    });
  }

  test("can be used from the keyboard and names its controls", async (t) => {
    const page = await newTab(t);
    await page.getByRole("textbox", { name: "Name" }).waitFor();
    await page.getByRole("textbox", { name: "Message" }).focus();
    const text = unique("typed");
    await page.keyboard.type(text);
    await page.keyboard.press("Tab");
    await page.keyboard.press("Enter");
    await messages(page, text).waitFor();
    await page.getByRole("switch", { name: "Go offline" }).press("Space");
    await page.locator("#state", { hasText: "offline" }).waitFor();
  });
});
