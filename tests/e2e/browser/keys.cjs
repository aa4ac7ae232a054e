// A key's life in real Chromium: generated with everything it can be told, found among others, rotated while both
// secrets work, cut, switched off and on, edited against somebody else's change, deleted by its name. Exits with 0
// if all holds.
const assert = require('node:assert/strict');
const session = require('./session.cjs');

const { accessible, fits, refusalsWereMeant, UI_URL, EDGE_URL, PATIENCE } = session;
const NAME = 'Billing, production';
const LONG = `${'An exceptionally long name of a key that says everything '.repeat(2).slice(0, 99)}!`;
const UNBROKEN = 'key-of-the-nightly-invoice-exporter-in-frankfurt';
const RIGHT_TO_LEFT = 'مفتاح الفواتير';

let page;

session.run(async (opened) => {
  page = opened;
  await page.goto(UI_URL);
  await session.signIn();
  const first = await generateWithAllOptions();
  await generateShortly([['analytics', 'Test'], [LONG, 'Live'], [UNBROKEN, 'Live'], [RIGHT_TO_LEFT, 'Test']]);
  await find();
  await seeTheDay(first);
  const second = await rotate(first);
  await cut(first, second);
  await disableAndEnable(second);
  await edit();
  await remove(second);
  await withoutScripts();
});

async function generateWithAllOptions() {
  await page.getByRole('link', { name: 'Generate API Key' }).first().click();
  const dialog = page.getByRole('dialog', { name: 'Generate API Key' });
  await dialog.getByLabel('Name').fill(NAME);
  await dialog.getByRole('button', { name: 'More options' }).click();
  await page.getByRole('heading', { name: 'Generate API Key' }).waitFor();
  assert.equal(await page.getByLabel('Name', { exact: true }).inputValue(), NAME, 'what was typed comes along');
  await page.getByLabel('Description').fill('The nightly run');
  await page.getByRole('radio', { name: 'On a date…' }).check();
  await page.getByLabel('Date', { exact: true }).fill('2099-12-31');
  await limit(1, 'burst', '1000', '1', 'minutes');
  await page.getByRole('button', { name: 'Add a limit' }).click();
  await limit(4, 'monthly', '1000000', '30', 'days');
  await page.getByLabel('Scopes').fill('orders:read orders:write');
  await page.getByLabel('Allowed networks').fill('127.0.0.1');
  await page.getByLabel('Tags').fill('team=payments\nrun=nightly');
  await page.getByRole('button', { name: 'Generate API Key' }).click();
  await page.getByText('is an address; write the network 127.0.0.1/32').waitFor();
  refusalsWereMeant();
  assert.equal(await page.getByLabel('What limit 2 is called').inputValue(), 'monthly', 'what was typed stays');
  await accessible('refused form');
  await fits('refused form');
  await page.getByLabel('Allowed networks').fill('127.0.0.0/8');
  await page.getByRole('button', { name: 'Generate API Key' }).click();
  const secret = await page.locator('#secret').textContent();
  assert.match(secret, /^km_live_[0-9A-Za-z]{36}$/);
  await fits('new key');
  await answers(secret, 200);
  await page.getByRole('link', { name: 'Done' }).click();
  return secret;
}

async function limit(row, name, requests, window, unit) {
  await page.getByLabel(`What limit ${row} is called`).fill(name);
  await page.getByLabel(`Requests of limit ${row}`).fill(requests);
  await page.getByLabel(`Window of limit ${row}`).fill(window);
  await page.getByLabel(`Unit of limit ${row}`).selectOption(unit);
}

async function generateShortly(keys) {
  for (const [name, environment] of keys) {
    await page.getByRole('link', { name: 'Generate API Key' }).first().click();
    const dialog = page.getByRole('dialog', { name: 'Generate API Key' });
    await dialog.getByLabel('Name').fill(name);
    await dialog.getByRole('radio', { name: environment }).check();
    if (name === LONG) await fits('short form');
    await dialog.getByRole('button', { name: 'Generate API Key' }).click();
    await page.getByRole('link', { name: 'Done' }).click();
  }
}

async function find() {
  const all = [RIGHT_TO_LEFT, UNBROKEN, LONG, 'analytics', NAME];
  await names(all);
  await accessible('key list');
  await fits('key list');
  const form = page.getByRole('search', { name: 'Find keys' });
  const narrow = async (change, expected, address) => {
    await change();
    await form.getByRole('button', { name: 'Find' }).click();
    await page.waitForURL(`${UI_URL}/keys?${address}`);
    await names(expected);
    await page.goto(page.url());
    await names(expected);
    await form.getByRole('link', { name: 'Clear' }).click();
    await names(all);
  };
  await narrow(() => form.getByLabel('Search').fill('bill'), [NAME], 'search=bill');
  await narrow(() => form.getByLabel('Environment').selectOption('Test'), [RIGHT_TO_LEFT, 'analytics'], 'environment=test');
  await narrow(() => form.getByLabel('Tag').fill('team=payments'), [NAME], 'tag=team%3Dpayments');
  await narrow(() => form.getByLabel('State').selectOption('Disabled'), [], 'state=disabled');
  await narrow(() => form.getByLabel('Sort by').selectOption('Name'), [LONG, 'analytics', NAME, UNBROKEN, RIGHT_TO_LEFT], 'sort=name');
  await page.goto(`${UI_URL}/keys?tag=payments&sort=size&search=--`);
  await page.getByText('Write a tag as name=value').waitFor();
  refusalsWereMeant();
  await accessible('refused search');
  await page.goto(`${UI_URL}/keys?search=--`);
  await page.getByText('Must have a letter or a digit.').waitFor();
  refusalsWereMeant();
  await page.goto(`${UI_URL}/keys?search=nothing`);
  await page.getByRole('heading', { name: 'No key fits' }).waitFor();
  await accessible('nothing found');
  await page.goto(`${UI_URL}/keys`);
}

// The call to the edge is in the drawing about a second after it was made.
async function seeTheDay(secret) {
  const missing = await fetch(`${EDGE_URL}/v1/orders?status=404`, { headers: { authorization: `Bearer ${secret}` } });
  assert.equal(missing.status, 404);
  const row = page.getByRole('row', { name: NAME });
  await reloadUntil(row.getByRole('img', { name: /2 calls in the last 24 hours, 50% errors/ }));
  await row.getByText('50% errors', { exact: true }).waitFor();
  await page.getByRole('row', { name: 'analytics' }).getByText('Never used').waitFor();
}

async function choose(action) {
  await page.getByLabel(`More actions for ${NAME}`).click();
  const menu = page.getByRole('row', { name: NAME }).locator('.menu-body');
  await menu.waitFor();
  if (action === 'Rotate') {
    await accessible('row menu');
    await fits('row menu');
  }
  await menu.getByRole('link', { name: action }).click();
}

async function rotate(first) {
  await choose('Rotate');
  await page.getByRole('heading', { name: 'Rotate' }).waitFor();
  await page.getByRole('radio', { name: '1 hour' }).check();
  await accessible('rotate');
  await fits('rotate');
  await page.getByRole('button', { name: 'Rotate key' }).click();
  const second = await page.locator('#secret').textContent();
  assert.notEqual(second, first);
  await page.getByText('The secrets before it work').waitFor();
  await accessible('rotated');
  await answers(second, 200);
  await answers(first, 200);
  await page.getByRole('link', { name: 'See its secrets' }).click();
  const split = page.getByRole('img', { name: `${second.slice(0, 12)}…: 1 (` });
  await reloadUntil(split);
  await page.getByText('3 calls in the last hour').or(page.getByText('4 calls in the last hour')).first().waitFor();
  await page.getByText('Still works').waitFor();
  await accessible('secrets');
  await fits('secrets');
  await answers(second, 200);
  // Nobody reloads: the numbers come by themselves.
  await page.getByRole('img', { name: `${second.slice(0, 12)}…: 2 (` }).waitFor();
  await page.getByRole('link', { name: 'Last 24 hours' }).click();
  await page.getByText('calls in the last 24 hours').waitFor();
  assert.ok(!(await page.content()).includes(second), 'no page of secrets has a secret');
  return second;
}

async function cut(first, second) {
  await page.getByRole('link', { name: `Cut now: ${first.slice(0, 12)}` }).click();
  await page.getByRole('heading', { name: 'Cut the old secret' }).waitFor();
  await accessible('cut');
  await page.getByRole('button', { name: 'Cut the old secret now' }).click();
  await page.getByRole('status').getByText(/Refused by 1 of 1/).waitFor();
  await accessible('cut receipt');
  await answers(first, 401);
  await answers(second, 200);
  await page.getByRole('link', { name: 'Done' }).click();
}

async function disableAndEnable(secret) {
  await choose('Disable');
  await accessible('disable');
  await page.getByRole('button', { name: 'Disable key' }).click();
  await page.getByRole('status').getByText(/Refused by 1 of 1/).waitFor();
  await answers(secret, 401);
  await page.getByRole('link', { name: 'Done' }).click();
  await page.getByRole('row', { name: NAME }).getByText('Disabled', { exact: true }).waitFor();
  await choose('Enable');
  await page.getByRole('button', { name: 'Enable key' }).click();
  await page.getByRole('heading', { name: 'is switched on' }).waitFor();
  await answers(secret, 200);
  await page.getByRole('link', { name: 'Done' }).click();
}

async function edit() {
  await choose('Edit');
  await page.getByRole('heading', { name: 'Edit' }).waitFor();
  await accessible('edit');
  await fits('edit');
  await page.getByLabel('Description').fill('Mine');
  const other = await page.context().newPage();
  await other.goto(page.url());
  await other.getByLabel('Description').fill('Theirs');
  await other.getByRole('button', { name: 'Save' }).click();
  await other.getByRole('status').getByText('Saved.').waitFor();
  await other.close();
  await page.getByRole('button', { name: 'Save' }).click();
  await page.getByText('Somebody changed this key after you opened this page.').waitFor();
  await page.getByText('differs from it in: description').waitFor();
  refusalsWereMeant();
  assert.equal(await page.getByLabel('Description').inputValue(), 'Mine');
  await accessible('conflict');
  await page.getByRole('button', { name: 'Save' }).click();
  await page.getByRole('status').getByText('Saved.').waitFor();
  await page.getByRole('link', { name: 'Back to API Keys' }).click();
  await page.getByRole('row', { name: NAME }).getByText('Mine').waitFor();
  await page.getByRole('row', { name: NAME }).getByText('team=payments').waitFor();
}

async function remove(secret) {
  const dialog = page.getByRole('dialog');
  const confirm = async (name) => {
    await dialog.getByLabel('Type the key’s name to confirm').fill(name);
    await dialog.getByRole('button', { name: 'Delete key' }).click();
  };
  await page.getByRole('link', { name: `Delete key ${NAME}` }).click();
  await confirm('Billing');
  await page.getByText('This is not the key’s name. Nothing was deleted.').waitFor();
  refusalsWereMeant();
  await accessible('wrong name');
  await fits('wrong name');
  await answers(secret, 200);
  await page.getByRole('link', { name: 'Cancel' }).click();
  await page.getByRole('link', { name: `Delete key ${NAME}` }).click();
  await fits('delete dialog');
  await confirm(NAME);
  await page.getByRole('status').getByText(/Refused by 1 of 1/).waitFor();
  await fits('deleted');
  await answers(secret, 401);
  await page.goto(`${UI_URL}/keys?state=deleted`);
  await reloadUntil(page.getByRole('row', { name: NAME }).getByText('Deleted but still called'));
  await accessible('deleted keys');
  await fits('deleted keys');
}

// The same by plain links and forms.
async function withoutScripts() {
  const context = await page.context().browser().newContext({ javaScriptEnabled: false });
  const plain = await context.newPage();
  const press = (name) => plain.getByRole('button', { name }).click();
  await plain.goto(UI_URL);
  await session.signIn(plain);
  await plain.getByRole('link', { name: 'Generate API Key' }).click();
  await plain.getByLabel('Name', { exact: true }).fill('By hand');
  await plain.getByLabel('What limit 3 is called').fill('burst');
  await plain.getByLabel('Requests of limit 3').fill('5');
  await plain.getByLabel('Window of limit 3').fill('10');
  await press('Generate API Key');
  const secret = await plain.locator('#secret').textContent();
  await answers(secret, 200);
  await plain.getByRole('link', { name: 'Done' }).click();
  await plain.getByLabel('More actions for By hand').click();
  await plain.getByRole('link', { name: 'Rotate', exact: true }).click();
  await plain.getByRole('radio', { name: 'Not at all' }).check();
  await press('Rotate key');
  await plain.getByText('refused from now on').waitFor();
  await answers(secret, 401);
  await plain.getByRole('link', { name: 'Done' }).click();
  await plain.getByRole('link', { name: 'Delete key By hand' }).click();
  await plain.getByLabel('Type the key’s name to confirm').fill('By hand');
  await press('Delete key');
  await plain.getByRole('heading', { name: 'was deleted' }).waitFor();
  await context.close();
}

// The edge answers so as soon as it has heard of the change.
async function answers(secret, status) {
  const deadline = Date.now() + PATIENCE;
  const call = async () => (await fetch(`${EDGE_URL}/v1/orders/17`, { headers: { authorization: `Bearer ${secret}` } })).status;
  let answer = await call();
  while (answer !== status && Date.now() < deadline) {
    await page.waitForTimeout(100);
    answer = await call();
  }
  assert.equal(answer, status);
}

// The listed keys are these, in this order.
async function names(expected) {
  await page.locator('.keys, .blank').first().waitFor();
  const listed = await page.locator('.keys .what > a:first-child').allInnerTexts();
  assert.deepEqual(listed.map((name) => name.trim()), expected);
}

async function reloadUntil(place) {
  const deadline = Date.now() + PATIENCE;
  while (!(await place.first().isVisible()) && Date.now() < deadline) {
    await page.waitForTimeout(200);
    await page.reload();
  }
  await place.first().waitFor({ timeout: 1000 });
}
