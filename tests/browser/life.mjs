// What people come to the Dashboard for, from signing in to a key's end, with scripts and without; what developers do
// not get; and what an operator is told when the policies are edited badly.
import { unlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { check, examine, open, run, signIn, told } from "./browser.mjs";

/// Status and reason of a call with a token.
async function call(token, method = "GET") {
  const question = { token, method, path: "/v1/resources" };
  const answer = await fetch(`${told.decision}/v1/authorize`, {
    method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(question),
  });
  const verdict = await answer.json();
  return `${verdict.status} ${verdict.reason}`;
}

async function holds(token, expected, method) {
  const found = await call(token, method);
  check(found === expected, `a call gets ${found}, not ${expected}`);
}

const shown = async (page) => (await page.textContent("#fresh-token")).trim();

async function life(browser, scripts) {
  const words = scripts ? "with scripts" : "without scripts";
  const page = await signIn(browser, "W", { javaScriptEnabled: scripts });
  const text = async (what) => check((await page.textContent("main")).includes(what), `${words}: ${page.url()} does not say “${what}”`);

  // Create, by links alone.
  await page.click("nav.side >> text=API keys");
  await page.click("a.primary >> text=Create a key");
  const name = `Worker ${words}`;
  await page.fill("#name", name);
  await page.check("input[name=kind][value=restricted]");
  await page.check("input[value='resources:read']");
  await page.selectOption("select[name=expires]", "90");
  await page.fill("#note", "made by a test");
  await page.click("button >> text=Create the key");
  const token = await shown(page);
  check(token.startsWith("rk_live_"), `${words}: the token is ${token.slice(0, 8)}…`);
  await text(`The key “${name}” was created.`);
  await text("made by a test");
  const key = page.url();
  const copy = page.locator("button[data-copy=fresh-token]");
  check(await copy.isVisible() === scripts, `${words}: the copy button`);
  if (scripts) {
    await page.context().grantPermissions(["clipboard-read", "clipboard-write"]);
    await copy.click();
    await page.waitForSelector("button[data-copy=fresh-token] >> text=Copied");
    check(await page.evaluate(() => navigator.clipboard.readText()) === token, "what was copied is not the token");
  }
  await page.reload();
  check(await page.locator("#fresh-token").count() === 0, `${words}: the token is shown again`);
  check(!(await page.content()).includes(token), `${words}: the token is somewhere in the page`);

  // Use, and see it.
  await holds(token, "200 allowed");
  await holds(token, "403 scope_missing", "POST");
  await page.reload();
  const rows = page.locator("#decisions tbody tr");
  check(await rows.count() === 2, `${words}: the key's page shows ${await rows.count()} decisions`);
  await page.selectOption("#decisions select", "forbidden");
  await page.click("#decisions button");
  check(await rows.count() === 1, `${words}: of refused ones it shows ${await rows.count()}`);
  await page.click("#decisions tbody a");
  await text("scope_missing");
  await text("POST /v1/resources");
  await page.click("nav.side >> text=Decisions");
  check(await page.isVisible("#live-button") === scripts, `${words}: the watch button`);
  if (scripts) {
    const own = page.locator("tr.arrived", { hasText: key.split("/").pop() });
    const begun = page.waitForResponse((response) => response.url().includes("/decisions/live"));
    await page.click("#live-button");
    check((await begun).ok(), "watching is refused");
    await holds(token, "200 allowed");
    await own.locator("text=GET /v1/resources").waitFor();
    check(await own.count() === 1, "one call is one row");
    await own.locator("td[data-label=When] a").click();
    await text("allowed");
  }

  // Rotate, with an overlap.
  await page.goto(key);
  await page.click(".head >> text=Rotate");
  await text("Both secrets work for a day");
  await page.check("input[name=overlap][value='24h']");
  await page.click("button >> text=Rotate the key");
  const second = await shown(page);
  check(second !== token && second.startsWith("rk_live_"), `${words}: a new token`);
  await holds(token, "200 allowed");
  await holds(second, "200 allowed");
  const left = await page.textContent("[data-until]");
  const expected = scripts ? /^in (1 d 0 h|23 h 59 min)$/ : /^in 2[34] hours$/;
  check(expected.test(left), `${words}: the countdown says “${left}”`);
  await text("Rotating");

  // Change it, switch it off and on.
  await page.click(".head >> text=Edit");
  await page.fill("#note", "changed by a test");
  await page.click("button >> text=Save");
  await text("changed by a test");
  await page.click("button >> text=Disable");
  await text("is disabled");
  await holds(second, "401 key_disabled");
  await page.click("button >> text=Enable");
  await text("is enabled");
  await holds(second, "200 allowed");

  // Revoke, by typing its name.
  await page.click("a.danger >> text=Revoke");
  await page.fill("#name", "another name");
  await page.click("button.danger");
  await text("That is not the key's name. Nothing was done.");
  await holds(second, "200 allowed");
  await page.fill("#name", name);
  await page.fill("#reason", "the test is over");
  await page.click("button.danger");
  await text("is revoked");
  await text("the test is over");
  for (const secret of [token, second]) await holds(secret, "401 key_revoked");
  await page.click(".crumbs a");
  const row = page.locator("tr.is-gone", { hasText: name });
  check(await row.count() === 1, `${words}: a revoked key is listed, greyed`);
  await page.fill("input[name=search]", "no such key");
  await page.click("form button >> text=Show");
  await text("No key matches");

  // The test mode is one click away, and looks different.
  await page.click("nav.modes >> text=Test");
  check(page.url().includes("/test/keys") && await page.isVisible(".band"), `${words}: the test mode`);

  await page.click("details.menu summary");
  await page.click("details.menu >> text=Sign out >> nth=0");
  await page.waitForSelector("#password");
  await page.goto(key);
  check(page.url().includes("/sign-in?next="), `${words}: signed out`);
  await page.context().close();
}

/// By the keyboard alone.
async function keyboard(browser) {
  const page = await open(browser);
  await page.goto("/sign-in");
  await page.keyboard.type(told.people.W);
  await page.keyboard.press("Tab");
  await page.keyboard.type(told.password);
  await page.keyboard.press("Enter");
  await page.waitForSelector("nav.side");
  await page.keyboard.press("Tab");
  const first = () => page.evaluate(() => document.activeElement.textContent);
  check(await first() === "Skip to the content", `the first stop is “${await first()}”`);
  check(await page.locator("a.skip").isVisible(), "the first stop can be seen");
  await page.keyboard.press("Enter");
  check(page.url().endsWith("#main"), "and it leads to the content");
  await page.context().close();
}

async function developer(browser) {
  const page = await signIn(browser, "D");
  const links = await page.locator("nav.side a").allTextContents();
  check(!links.some((link) => ["Policies", "People", "Settings"].includes(link)), `a developer is offered ${links}`);
  check(await page.locator("nav.side h2 >> text=Installation").count() === 0, "a developer is offered the installation");
  for (const path of ["/installation", "/policies", "/policies/routes", "/policies/guarantees", "/policies/history", "/policies/try", "/policies/playground", "/people", "/installation/decisions", "/installation/events"]) {
    const answer = await page.goto(path);
    check(answer.status() === 403, `${path} answers a developer ${answer.status()}`);
    check(await page.isVisible("text=You may not do this"), `${path} says nothing`);
  }
  await page.goto(`/keys/${told.words.key}`);
  for (const name of ["Rotate", "Edit", "Disable", "Revoke…"]) {
    check(await page.locator(`main >> text="${name}"`).count() === 0, `a developer is offered to ${name} a live key`);
  }
  await page.goto(`/accounts/${told.account}/live/keys`);
  check(await page.locator("text=Create a key").count() === 0, "a developer is offered to create a live key");
  await page.goto(`/keys/${told.words.key}/rotate`);
  if (await page.locator("button >> text=Rotate the key").count() > 0) {
    const answer = page.waitForResponse((response) => response.request().method() === "POST");
    await page.click("button >> text=Rotate the key");
    check((await answer).status() === 403, "a developer rotates a live key");
  }
  // Test keys are theirs.
  await page.goto(`/accounts/${told.account}/test/keys`);
  await page.click("a.primary >> text=Create a key");
  await page.fill("#name", "A developer's");
  await page.check("input[value='resources:read']");
  await page.click("button >> text=Create the key");
  check((await shown(page)).startsWith("rk_test_"), "a developer makes a test key");
  await page.context().close();
}

/// What is wrong with the policies is told on whatever page the operator is, until it is mended.
async function badEdit(browser) {
  const page = await signIn(browser, "O");
  const developer = await signIn(browser, "D");
  const file = join(told.policies, "mistake.cedar");
  const banner = page.locator(".banner", { hasText: "An edit of the policies was refused" });
  const until = async (count) => {
    for (let left = 300; left > 0; left -= 1) {
      await page.goto("/accounts");
      if (await banner.count() === count) return true;
    }
    return check(false, count ? "the banner never came" : "the banner never went");
  };
  check(await banner.count() === 0, "there is a banner before");
  await writeFile(file, "@id(\"mistake\")\npermit (principal, action, resource) when { principal.nothing };\n");
  if (await until(1)) {
    const said = await banner.textContent();
    check(said.includes("mistake.cedar") && said.includes("nothing"), `the banner says ${said}`);
    await examine(page, "the banner", false);
    await developer.reload();
    check(await developer.locator(".banner >> text=was refused").count() === 0, "a developer is told of it");
    await banner.locator("a").click();
    check(page.url().endsWith("/policies"), "the banner leads to the policies");
  }
  await unlink(file);
  await until(0);
  await page.context().close();
}

await run(async (browser) => {
  await Promise.all([life(browser, true), life(browser, false)]);
  await Promise.all([developer(browser), keyboard(browser), badEdit(browser)]);
});
