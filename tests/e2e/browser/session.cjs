// What every script in a real browser shares: starting Chromium, watching for errors and foreign requests, signing
// in, and looking at a state of a page for who can not see it well. Settings come by environment: UI_URL, EDGE_URL,
// EMAIL, PASSWORD, CHROMIUM; PROVIDER_URL where pages may lead to one; PICTURES is a folder for pictures of every state that was looked at, if somebody wants
// them.
const assert = require('node:assert/strict');
const { chromium } = require('playwright-core');
const axe = require('axe-core').source;

const { UI_URL, EDGE_URL, EMAIL, PASSWORD, PROVIDER_URL, CHROMIUM, PICTURES } = process.env;
const OWN = [UI_URL, PROVIDER_URL, 'data:'].filter(Boolean);
const PATIENCE = 60_000;
// Half an hour off the full hour, so that a clock in UTC can not pass for the reader's.
const ZONE = 'Asia/Kolkata';
const WIDE = { width: 1280, height: 800 };
// The narrowest screen that pages are made for.
const NARROW = { width: 360, height: 740 };

const problems = [];
let page;

// Runs a script on a page of its own; the process fails if the script or anything that the page loaded does.
function run(script) {
  main(script).catch(async (error) => {
    console.error(error);
    console.error('problems so far:', problems);
    if (page && !page.isClosed()) console.error(`at ${page.url()}:\n${(await page.innerText('body').catch(() => '')).slice(0, 2000)}`);
    process.exitCode = 1;
  });
}

async function main(script) {
  const browser = await chromium.launch({
    executablePath: CHROMIUM,
    args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
      '--disable-component-update', '--disable-sync'],
  });
  try {
    const context = await browser.newContext({ timezoneId: ZONE, locale: 'en-GB', viewport: WIDE });
    await context.grantPermissions(['clipboard-read', 'clipboard-write'], { origin: UI_URL });
    context.setDefaultTimeout(PATIENCE);
    context.on('page', watch);
    page = await context.newPage();
    await script(page);
    assert.deepEqual(problems, []);
  } catch (error) {
    if (PICTURES) await page?.screenshot({ path: `${PICTURES}/failed.png` }).catch(() => {});
    if (page) error.message += `\nat ${page.url()}`;
    throw error;
  } finally {
    await browser.close();
  }
}

function watch(page) {
  page.on('console', (message) => message.type() === 'error' && problems.push(`console: ${message.text()}`));
  page.on('pageerror', (error) => problems.push(`script: ${error.message}`));
  page.on('request', (request) => {
    if (!OWN.some((start) => request.url().startsWith(start))) problems.push(`foreign request: ${request.url()}`);
  });
}

async function signIn(on = page, email = EMAIL, password = PASSWORD) {
  await on.getByLabel('E-mail address').fill(email);
  await on.getByLabel('Password').fill(password);
  await on.getByRole('button', { name: 'Sign in' }).click();
  await on.getByRole('navigation', { name: 'Main' }).waitFor();
}

// The page of somebody else, who is not signed in.
async function another() {
  const context = await page.context().browser().newContext({ timezoneId: ZONE, locale: 'en-GB', viewport: WIDE });
  await context.grantPermissions(['clipboard-read', 'clipboard-write'], { origin: UI_URL });
  context.setDefaultTimeout(PATIENCE);
  context.on('page', watch);
  return context.newPage();
}

// Chromium reports the status of a refusal as an error of the console; whoever provokes one says so.
function refusalsWereMeant() {
  const others = problems.filter((problem) => !problem.startsWith('console: Failed to load resource'));
  problems.splice(0, problems.length, ...others);
}

// No violation of what axe knows, light and dark.
async function accessible(state, on = page) {
  for (const colorScheme of ['dark', 'light']) {
    await on.emulateMedia({ colorScheme });
    await on.evaluate(`${axe}; undefined`).catch((error) => problems.push(`axe: ${error.message}`));
    const { violations } = await on.evaluate(() => globalThis.axe.run());
    for (const { id, nodes } of violations) problems.push(`${state}, ${colorScheme}: ${id}: ${nodes.map((node) => node.html).join(' ')}`);
    if (PICTURES) await on.screenshot({ path: `${PICTURES}/${state.replaceAll(/\W+/g, '-')}-${colorScheme}.png`, fullPage: true });
  }
}

// Nothing goes beyond the edge of the narrowest screen, and axe has nothing to say there either.
async function fits(state, on = page) {
  await on.setViewportSize(NARROW);
  const [content, screen] = await on.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
  if (content > screen) problems.push(`${state}: ${content} px wide on a screen of ${screen}`);
  await accessible(`${state}, narrow`, on);
  await on.setViewportSize(WIDE);
}

module.exports = {
  run, signIn, another, refusalsWereMeant, accessible, fits, UI_URL, EDGE_URL, EMAIL, PASSWORD, PROVIDER_URL,
  PATIENCE, ZONE,
};
