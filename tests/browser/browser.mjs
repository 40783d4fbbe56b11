// A headless Chromium, people who sign in with it, and what is noticed on each of their pages.
import { createRequire } from "node:module";

const require = createRequire(`${process.env.MODULES}/`);
const { chromium } = require("playwright-core");

const axe = require("axe-core").source;
export const told = JSON.parse(process.env.TOLD);
export const modules = process.env.MODULES;

const failures = [];

/// Notes what is wrong, and goes on.
export function check(holds, what) {
  if (!holds) failures.push(what);
  return holds;
}

/// A browser's window, in which whatever a page does wrong by itself is noticed.
export async function open(browser, options = {}) {
  const context = await browser.newContext({ baseURL: told.dashboard, reducedMotion: "reduce", ...options });
  context.setDefaultTimeout(15_000);
  const page = await context.newPage();
  page.on("pageerror", (error) => check(false, `${page.url()}: a script failed: ${error}`));
  page.on("dialog", (dialog) => { check(false, `${page.url()}: a dialog`); dialog.dismiss(); });
  page.on("console", (message) => {
    // A page that is answered by 400 or 404 is told of on the console, and is meant so.
    const isMeant = /Failed to load resource: the server responded with a status of 4\d\d/.test(message.text());
    check(message.type() !== "error" || isMeant, `${page.url()}: ${message.text()}`);
  });
  page.on("request", (request) => check(request.url().startsWith(told.dashboard), `${page.url()} asks for ${request.url()}`));
  return page;
}

/// The same, with this person signed in.
export async function signIn(browser, who, options) {
  const page = await open(browser, options);
  await page.goto("/sign-in");
  await page.fill("#email", told.people[who]);
  await page.fill("#password", told.password);
  await page.click("button.primary");
  await page.waitForSelector("nav.side");
  return page;
}

/// What axe-core finds that keeps somebody from using the page. In other colours, colours alone can be wrong.
export async function examine(page, how, coloursAlone) {
  await page.evaluate(axe);
  const found = await page.evaluate(async (coloursAlone) => {
    const options = coloursAlone ? { runOnly: ["color-contrast"] } : {};
    const { violations } = await window.axe.run(document, { resultTypes: ["violations"], ...options });
    const grave = violations.filter((violation) => ["serious", "critical"].includes(violation.impact));
    return grave.flatMap(({ id, nodes }) => nodes.slice(0, 3).map((node) => `${id}: ${node.html.slice(0, 200)} (${node.any[0]?.message ?? node.failureSummary})`));
  }, coloursAlone);
  for (const violation of found) check(false, `${how}: ${violation}`);
}

/// Runs `walk` with a browser, and says what failed.
export async function run(walk) {
  const tooLong = setTimeout(() => {
    console.log(failures.join("\n"), "\ntook too long");
    process.exit(2);
  }, 240_000);
  const browser = await chromium.launch({
    executablePath: "/usr/bin/chromium",
    args: [
      "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
      "--disable-background-networking", "--disable-component-update", "--disable-sync",
    ],
  });
  try {
    await walk(browser);
  } catch (error) {
    failures.push(error.stack);
  }
  await browser.close();
  clearTimeout(tooLong);
  for (const failure of failures) console.log(`- ${failure}`);
  if (failures.length === 0) console.log("all held");
  process.exitCode = failures.length === 0 ? 0 : 1;
}
