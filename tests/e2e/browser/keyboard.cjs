// Everything by keyboard alone, in real Chromium: signing in, generating, copying, reading usage, filtering, choosing a
// period, one call, columns, deleting. At each stop of the Tab key the focus can be seen. Nothing moves for those who
// want no motion, and what is printed has what was read.
const assert = require('node:assert/strict');
const session = require('./session.cjs');

const { UI_URL, EDGE_URL, EMAIL, PASSWORD, PATIENCE } = session;
const NAME = 'By keyboard';
// No page has more stops than that.
const STOPS_MAX = 150;

let page;

session.run(async (opened) => {
  page = opened;
  await page.goto(UI_URL);
  await signIn();
  const secret = await generate();
  await copy(secret);
  await call(secret);
  await readUsage();
  await filter();
  await choosePeriod();
  await openCall();
  await editColumns();
  await lookAtEveryStop();
  await printed();
  await remove();
});

async function signIn() {
  await tabTo({ tag: 'INPUT', name: 'E-mail address' });
  await page.keyboard.type(EMAIL);
  await tabTo({ tag: 'INPUT', name: 'Password' });
  await page.keyboard.type(PASSWORD);
  await page.keyboard.press('Enter');
  await page.getByRole('navigation', { name: 'Main' }).waitFor();
}

async function generate() {
  await page.keyboard.press('Tab');
  assert.equal((await focused()).name, 'Skip to content', 'the first stop');
  await page.keyboard.press('Enter');
  await tabTo({ name: 'Generate API Key' });
  await page.keyboard.press('Enter');
  await page.getByRole('dialog', { name: 'Generate API Key' }).waitFor();
  await tabTo({ tag: 'INPUT', name: 'Name' });
  await page.keyboard.type(NAME);
  await page.keyboard.press('Enter');
  const secret = await page.locator('#secret').textContent();
  await tabTo({ name: 'Done' });
  await page.keyboard.press('Enter');
  await page.getByRole('row', { name: NAME }).waitFor();
  return secret;
}

async function copy(secret) {
  await tabTo({ name: `Copy key ${NAME}` });
  await page.keyboard.press('Enter');
  await page.getByRole('status').getByText('Copied').waitFor();
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), secret);
}

async function call(secret) {
  const send = (path) => fetch(EDGE_URL + path, { headers: { authorization: `Bearer ${secret}` } });
  const deadline = Date.now() + PATIENCE;
  while ((await send('/v1/orders/1')).status !== 200 && Date.now() < deadline) await page.waitForTimeout(100);
  await send('/v1/orders/2?status=404');
}

async function readUsage() {
  await tabTo({ name: `Usage statistics of ${NAME}` });
  await page.keyboard.press('Enter');
  await page.getByRole('heading', { level: 1, name: NAME }).waitFor();
  const deadline = Date.now() + PATIENCE;
  while ((await total()) !== '2' && Date.now() < deadline) await page.reload();
  await page.reload();
  await page.locator('.latencies').waitFor();
}

const total = () => page.locator('dl.cards .value').first().textContent();

async function filter() {
  await tabTo({ tag: 'INPUT', name: 'Response status' });
  await page.keyboard.type('404');
  await page.keyboard.press('Enter');
  await page.getByRole('link', { name: 'Remove Response 404' }).waitFor();
  assert.equal(await total(), '1');
  await tabTo({ name: 'Remove Response 404' });
  await page.keyboard.press('Enter');
  await page.waitForURL((url) => !url.search.includes('404'));
  await page.waitForLoadState();
  await tabTo({ tag: 'A', name: 'GET' });
  await page.keyboard.press('Enter');
  await page.waitForURL(/method=GET/);
  await page.goBack();
  await page.waitForLoadState();
}

// The last two bars: the calls are in one of them.
async function choosePeriod() {
  await tabTo({ name: 'Bars: arrow keys go from one to the next' });
  await page.keyboard.press('ArrowLeft');
  await page.getByRole('status').getByText(/\d+ requests, \d+ completed/).waitFor();
  await page.keyboard.press('Escape');
  await page.locator('[data-tip]').waitFor({ state: 'hidden' });
  await page.keyboard.press('ArrowLeft');
  await page.keyboard.press('Shift+ArrowLeft');
  const [from, to] = await page.locator('[data-brush] g').evaluateAll((all) => [all.at(-2).dataset.from, all.at(-1).dataset.to]);
  await page.keyboard.press('Enter');
  await page.waitForURL((url) => url.searchParams.get('from') === from && url.searchParams.get('to') === to);
  await page.waitForLoadState();
  assert.equal(await total(), '2');
  await page.goBack();
  await page.waitForLoadState();
}

async function openCall() {
  await page.locator('table.log').waitFor();
  const id = await page.locator('table.log [data-request]').first().innerText();
  await tabTo({ name: id });
  await page.keyboard.press('Enter');
  const drawer = page.getByRole('dialog', { name: 'Request' });
  await drawer.getByRole('heading', { name: id }).waitFor();
  await page.keyboard.press('Tab');
  assert.ok(await page.evaluate(() => Boolean(document.activeElement.closest('dialog'))), 'focus stays in the dialog');
  await page.keyboard.press('Escape');
  await drawer.waitFor({ state: 'hidden' });
  assert.equal((await focused()).name, id, 'focus goes back to where it was');
}

async function editColumns() {
  await tabTo({ name: 'Edit columns' });
  await page.keyboard.press('Enter');
  await tabTo({ name: 'Region' });
  await page.keyboard.press('Space');
  await page.keyboard.press('Enter');
  await page.locator('table.log th', { hasText: 'Region' }).waitFor();
}

// Of the pages that people are on most.
async function lookAtEveryStop() {
  const usage = new URL(page.url()).pathname;
  for (const address of ['/keys', '/keys/new', '/overview', usage, '/members', '/audit', '/settings', '/settings/service-tokens']) {
    await page.goto(UI_URL + address);
    await page.emulateMedia({ reducedMotion: 'reduce' });
    const moving = await page.evaluate(() => [...document.querySelectorAll('*')].filter((element) => {
      const style = getComputedStyle(element);
      return parseFloat(style.transitionDuration) > 0 || style.animationName !== 'none';
    }).length);
    assert.equal(moving, 0, `${address}: what moves`);
    const seen = new Set();
    for (let stops = 0; stops < STOPS_MAX; stops += 1) {
      await page.keyboard.press('Tab');
      const stop = await focused();
      if (!stop || seen.has(stop.place)) break;
      seen.add(stop.place);
      assert.ok(stop.isSeen, `${address}: the focus on "${stop.name}" can not be seen`);
    }
    assert.ok(seen.size > 8, `${address}: only ${seen.size} stops`);
    await page.emulateMedia({ reducedMotion: null });
  }
  await page.goto(UI_URL + usage);
}

async function printed() {
  await page.emulateMedia({ media: 'print' });
  for (const gone of ['.side', '.filters']) await page.locator(gone).first().waitFor({ state: 'hidden' });
  for (const there of ['dl.cards', '.chart', 'table.log']) assert.ok(await page.locator(there).isVisible(), there);
  if (process.env.PICTURES) await page.pdf({ path: `${process.env.PICTURES}/usage.pdf`, format: 'A4' });
  await page.emulateMedia({ media: null });
}

async function remove() {
  await page.goto(`${UI_URL}/keys`);
  await tabTo({ name: `Delete key ${NAME}` });
  await page.keyboard.press('Enter');
  const dialog = page.getByRole('dialog');
  await dialog.waitFor();
  await page.keyboard.press('Escape');
  await dialog.waitFor({ state: 'hidden' });
  assert.equal((await focused()).name, `Delete key ${NAME}`);
  await page.keyboard.press('Enter');
  await tabTo({ tag: 'INPUT', name: 'Type the key’s name to confirm' });
  await page.keyboard.type(NAME);
  await page.keyboard.press('Enter');
  await page.getByRole('status').getByText(/Refused by 1 of 1/).waitFor();
}

// What has the focus: its tag, its accessible name, its place among all elements, and whether one sees that it has it.
// Null outside of the page.
function focused() {
  return page.evaluate(() => {
    const element = document.activeElement;
    if (!element || element === document.body) return null;
    const labels = element.labels ? [...element.labels].map((label) => label.innerText) : [];
    const named = document.getElementById(element.getAttribute('aria-labelledby'))?.innerText;
    const name = element.getAttribute('aria-label') ?? named ?? (labels.join(' ') || element.innerText || element.title);
    // A hidden box of a pill shows its focus on the pill.
    const drawn = [element, element.nextElementSibling, element.parentElement].filter(Boolean);
    const hasRing = drawn.some((one) => {
      const { outlineStyle, outlineWidth } = getComputedStyle(one);
      return outlineStyle !== 'none' && parseFloat(outlineWidth) >= 2;
    });
    const { top, bottom, width } = element.getBoundingClientRect();
    const isOnScreen = width > 0 && bottom > 0 && top < innerHeight;
    const isSeen = element.id === 'main' || (hasRing && isOnScreen);
    return { tag: element.tagName, name: name.trim(), place: [...document.querySelectorAll('*')].indexOf(element), isSeen };
  });
}

async function tabTo({ tag, name }) {
  await page.waitForLoadState();
  const seen = [];
  for (let stops = 0; stops < STOPS_MAX; stops += 1) {
    await page.keyboard.press('Tab');
    const stop = await focused();
    if (stop && stop.name === name && (!tag || stop.tag === tag)) return;
    seen.push(stop?.name);
  }
  assert.fail(`no stop is ${tag ?? ''} "${name}"; there are: ${[...new Set(seen)].join(' | ')}`);
}
