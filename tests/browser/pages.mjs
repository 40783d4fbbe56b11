// Every page, in light and dark, wide and narrow: what axe-core finds, whether it can be read without scrolling
// sideways, and a picture of it to be looked at.
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { check, examine, modules, open, run, signIn, told } from "./browser.mjs";

const shots = join(modules, "shots");
const WIDTHS = { wide: { width: 1280, height: 900 }, narrow: { width: 375, height: 800 } };

/// A narrow page is read without scrolling sideways. What widens it is what cures it by being hidden.
async function sideways(page, how) {
  const wide = await page.evaluate(() => {
    const root = document.documentElement;
    const [is, most] = [root.scrollWidth, root.clientWidth];
    if (is <= most) return null;
    const cures = (node) => {
      node.hidden = true;
      const cured = root.scrollWidth <= most;
      node.hidden = false;
      return cured;
    };
    const culprit = [...document.querySelectorAll("body *")].reverse().find(cures);
    return `${is} of ${most}, by ${culprit?.outerHTML.slice(0, 200)}`;
  });
  check(wide === null, `${how} is wider than the window: ${wide}`);
}

/// Tables fit a wide window. What is cut there is seldom found.
async function cut(page, how) {
  const found = await page.evaluate(() => [...document.querySelectorAll(".scroll")].filter((node) => node.scrollWidth > node.clientWidth + 1)
    .map((node) => `${node.scrollWidth} of ${node.clientWidth}: ${node.innerText.slice(0, 60)}`));
  check(found.length === 0, `${how}: a table is cut: ${found}`);
}

async function look(page, place) {
  await page.setViewportSize(WIDTHS.wide);
  await page.emulateMedia({ colorScheme: "light" });
  await page.goto(place.path);
  for (const [selector, value] of place.acts) {
    if (value) {
      await page.fill(selector, value);
    } else if (await page.locator(selector).getAttribute("type") === "radio") {
      await page.check(selector);
    } else {
      const answered = page.waitForResponse((response) => response.request().method() === "POST");
      await page.click(selector);
      await answered;
      await page.waitForLoadState("load");
    }
  }
  const expected = { "error-forbidden": "may not", "error-not-found": "nothing here" }[place.name];
  const title = await page.textContent("h1");
  check(expected ? title.includes(expected) : !/may not do|nothing here|did not work/.test(title), `${place.name}: ${title}`);
  for (const width of ["wide", "narrow"]) {
    await page.setViewportSize(WIDTHS[width]);
    for (const colorScheme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme });
      const how = `${place.name} (${width}, ${colorScheme})`;
      // Colours are the same in a narrow window.
      if (width === "wide" || colorScheme === "light") await examine(page, how, colorScheme === "dark");
      if (colorScheme === "light") await sideways(page, how);
      if (colorScheme === "light" && width === "wide") await cut(page, how);
      if ((width === "wide") === (colorScheme === "light")) {
        await page.screenshot({ path: join(shots, `${place.name}-${width}-${colorScheme}.png`), fullPage: true });
      }
    }
  }
}

await run(async (browser) => {
  await mkdir(shots, { recursive: true });
  const letters = [...new Set(told.pages.map((place) => place.by))];
  // Two windows at a time, because there are machines with two processors.
  const lanes = [[], []];
  const heaviest = letters.map((letter) => told.pages.filter((place) => place.by === letter)).sort((one, other) => other.length - one.length);
  for (const group of heaviest) lanes.sort((one, other) => one.flat().length - other.flat().length)[0].push(group);
  await Promise.all(lanes.map(async (groups) => {
    for (const group of groups) {
      const page = group[0].by === "-" ? await open(browser) : await signIn(browser, group[0].by);
      for (const place of group) {
        try {
          await look(page, place);
        } catch (error) {
          check(false, `${place.name}: ${error.message}`);
        }
      }
      await page.context().close();
    }
  }));
});
