// Drives the admin page in Chromium: node page.mjs SCENARIO. Fails with what was wrong.

import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";

import { chromium } from "playwright-core";

const { ADMIN, CALLERS, KEY, FILE, SCREENSHOTS } = process.env;
const PATIENCE = 60_000;
const axe = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});

const ask = (path, key = KEY) => fetch(`${CALLERS}${path}`, { headers: key ? { "X-API-Key": key } : {} });

// A page that notes what went wrong in it, and what it asked for elsewhere.
const open = async (options = {}) => {
  const page = await browser.newPage({ viewport: { width: 1280, height: 900 }, ...options });
  page.setDefaultTimeout(PATIENCE);
  const wrong = [];
  page.on("console", (message) => message.type() === "error" && wrong.push(message.text()));
  page.on("pageerror", (error) => wrong.push(String(error)));
  page.on("dialog", (dialog) => wrong.push(`dialog: ${dialog.message()}`));
  page.on("request", (request) => !request.url().startsWith(ADMIN) && wrong.push(`asked elsewhere: ${request.url()}`));
  const answer = await page.goto(ADMIN);
  return { page, wrong, answer };
};

const ready = (page) => page.locator("#ready", { hasText: /^ready$/ }).waitFor();
const row = (page) => page.locator("#list tbody tr");

const accessible = async (page, what) => {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
  assert.deepEqual(violations.map((one) => [one.id, one.nodes.map((node) => node.html)]), [], `${what} is not accessible`);
};

const scenarios = {
  async tokens() {
    const { page, wrong, answer } = await open();
    assert.match(answer.headers()["content-security-policy"], /^default-src 'none'/);
    await ready(page);
    await page.getByText("No token is live.").waitFor();
    assert.equal((await ask("/hello")).status, 200);
    const asked = performance.now();
    await row(page).waitFor();
    console.log(`a new token was shown after ${Math.round(performance.now() - asked)} ms`);
    assert.match(await row(page).innerText(), /app\s+alice/);
    assert.equal(await page.locator("#chart .life").count(), 1);
    assert.equal(await page.locator("#chart .renewal").count(), 1);
    await page.screenshot({ path: `${SCREENSHOTS}/light.png`, fullPage: true });

    // Cancelled, nothing happens; Escape cancels too.
    const revoke = row(page).getByRole("button", { name: "Revoke the token of alice" });
    await revoke.click();
    await page.getByRole("dialog").getByRole("button", { name: "Cancel" }).click();
    await revoke.focus();
    await page.keyboard.press("Enter");
    await page.getByRole("dialog").waitFor();
    await page.screenshot({ path: `${SCREENSHOTS}/confirm.png` });
    await page.keyboard.press("Escape");
    await page.getByRole("dialog").waitFor({ state: "hidden" });
    assert.equal(await row(page).count(), 1);

    const minted = async () => Number((await (await fetch(`${ADMIN}/metrics`)).text()).match(/^bearerd_mints_total.* (\d+)$/m)[1]);
    assert.equal(await minted(), 1);
    await revoke.click();
    await page.getByRole("dialog").getByRole("button", { name: "Revoke" }).click();
    await row(page).waitFor({ state: "detached" });
    assert.equal((await ask("/hello")).status, 200);
    assert.equal(await minted(), 2, "the next request mints anew");
    await row(page).waitFor();
    await row(page).getByRole("button", { name: "Invalidate the token of alice" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Invalidate" }).click();
    await row(page).waitFor({ state: "detached" });
    assert.equal((await ask("/hello")).status, 200);
    assert.equal(await minted(), 3);
    await row(page).waitFor();

    // Search and sort, by keyboard.
    await page.getByLabel("Search by route").fill("nobody");
    await page.getByText("0 found").waitFor();
    await page.getByLabel("Search by route").fill("ALI");
    await page.getByText("1 found").waitFor();
    const column = page.getByRole("columnheader", { name: "Uses" });
    await column.getByRole("button").focus();
    await page.keyboard.press("Enter");
    await page.keyboard.press("Enter");
    assert.equal(await column.getAttribute("aria-sort"), "descending");

    await page.locator("#routes tbody tr", { hasText: "app" }).first().waitFor();
    const told = await page.content();
    assert.ok(!told.includes(KEY) && !told.includes("eyJ"), "a secret is on the page");
    await accessible(page, "the light page");
    await page.emulateMedia({ colorScheme: "dark" });
    await accessible(page, "the dark page");
    await page.screenshot({ path: `${SCREENSHOTS}/dark.png`, fullPage: true });
    await page.setViewportSize({ width: 375, height: 800 });
    assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), "a small screen has to scroll sideways");
    await page.screenshot({ path: `${SCREENSHOTS}/small.png`, fullPage: true });
    assert.deepEqual(wrong, []);
  },

  async refusals() {
    const { page, wrong } = await open();
    await ready(page);
    await page.getByText("None since the start.").waitFor();
    assert.equal((await ask("/<img%20src=x%20onerror=alert(1)>", "unknown-canary")).status, 401);
    const refused = page.locator("#refused li").first();
    await refused.getByText("401 denied").waitFor();
    await refused.getByText("The token service does not know this key.").waitFor();
    await refused.getByText("img").waitFor();
    assert.equal(await page.locator("#refused img").count(), 0, "what callers send is text");
    assert.equal((await ask("/", null)).status, 401);
    await page.getByText("401 missing_credential").waitFor();

    const good = await readFile(FILE, "utf8");
    await writeFile(FILE, good.replace("upstream: app", "upstrem: app"));
    await page.locator("#mistakes", { hasText: "did you mean `upstream`" }).waitFor();
    await page.screenshot({ path: `${SCREENSHOTS}/refused.png`, fullPage: true });
    await accessible(page, "the page with refusals");
    await writeFile(FILE, `${good}cache: { negative: { ttl: 7s } }\n`);
    await page.getByRole("button", { name: "Reload the file" }).click();
    await page.locator("#reloaded", { hasText: "Reloaded" }).waitFor();
    await page.locator("#mistakes").waitFor({ state: "hidden" });
    await page.getByText("Every value, and where it comes from").click();
    const value = page.locator("#values tr", { hasText: "cache.negative.ttl" });
    await value.getByText("7s").waitFor();
    assert.match(await value.innerText(), /bearerd\.yaml:\d+/);
    assert.ok(!(await page.content()).includes("canary"));
    await page.screenshot({ path: `${SCREENSHOTS}/configuration.png`, fullPage: true });
    assert.deepEqual(wrong, []);
  },

  async login() {
    const { page, wrong } = await open();
    const dialog = page.getByRole("dialog", { name: "Log in" });
    await dialog.waitFor();
    await dialog.getByLabel("Admin token").fill("wrong");
    await page.keyboard.press("Enter");
    await dialog.getByText("this is not the admin token").waitFor();
    await page.screenshot({ path: `${SCREENSHOTS}/login.png` });
    await accessible(page, "the dialog to log in");
    await dialog.getByLabel("Admin token").fill("admin-canary");
    await dialog.getByRole("button", { name: "Log in" }).click();
    await ready(page);
    await dialog.waitFor({ state: "hidden" });
    assert.ok(!(await page.content()).includes("admin-canary"));
    assert.equal(await page.evaluate(() => document.cookie), "", "no script reads the session");
    await page.reload();
    await ready(page);
    assert.equal((await ask("/hello")).status, 200);
    await row(page).waitFor();
    await page.getByRole("button", { name: "Log out" }).click();
    await dialog.waitFor();
    // Chromium itself tells of each 401 that was met on purpose.
    assert.deepEqual(wrong.filter((text) => !text.includes("401")), []);
  },
};

try {
  await scenarios[process.argv[2]]();
} finally {
  await browser.close();
}
