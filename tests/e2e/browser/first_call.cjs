// A person's first minutes in real Chromium: signs in, generates a key, calls the edge with it, reads the usage
// page, filters, copies, deletes. Exits with 0 if all holds.
const assert = require('node:assert/strict');
const session = require('./session.cjs');

const { accessible, refusalsWereMeant, UI_URL, EDGE_URL, PASSWORD, PATIENCE, ZONE } = session;

let page;

session.run(async (opened) => {
  page = opened;
  await signIn();
  const secret = await generateKey();
  const requestIds = await callTheEdge(secret);
  await readUsage(requestIds);
  await filter();
  await editColumns();
  await copyKey(secret);
  await deleteKey(secret);
});

async function signIn() {
  await page.goto(UI_URL);
  await accessible('sign-in');
  await page.getByLabel('E-mail address').fill('nobody@example.com');
  await page.getByLabel('Password').fill('wrong');
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.getByRole('alert').waitFor();
  refusalsWereMeant();
  await session.signIn();
  await page.getByRole('navigation').getByRole('link', { name: 'API Keys' }).click();
  await page.getByRole('heading', { name: 'API Keys' }).waitFor();
  await accessible('empty key list');
}

async function generateKey() {
  await page.getByRole('link', { name: 'Generate API Key' }).first().click();
  const dialog = page.getByRole('dialog', { name: 'Generate API Key' });
  await dialog.getByLabel('Name').fill('Orders, production');
  await dialog.getByLabel('Description').fill('The order service');
  await accessible('generate dialog');
  await dialog.getByRole('button', { name: 'Generate API Key' }).click();
  const secret = await page.locator('#secret').textContent();
  assert.match(secret, /^km_live_[0-9A-Za-z]{36}$/);
  await accessible('new key');
  await page.getByRole('link', { name: 'Done' }).click();
  const row = page.getByRole('row', { name: 'Orders, production' });
  await row.getByText('The order service').waitFor();
  await row.getByText('Never').waitFor();
  assert.ok(!(await page.content()).includes(secret), 'the list must not hold a secret');
  return secret;
}

// One call of each outcome; the first may come before the edge has heard of the key.
async function callTheEdge(secret) {
  const call = (path, method) => fetch(`${EDGE_URL}${path}`, { method, headers: { authorization: `Bearer ${secret}` } });
  const deadline = Date.now() + PATIENCE;
  let first = await call('/v1/orders/17', 'GET');
  while (first.status === 401 && Date.now() < deadline) {
    await page.waitForTimeout(100);
    first = await call('/v1/orders/17', 'GET');
  }
  const answers = [first, await call('/v1/orders?status=404', 'POST'), await call('/v1/orders?status=429', 'POST')];
  assert.deepEqual(answers.map((answer) => answer.status), [200, 404, 429]);
  return answers.map((answer) => answer.headers.get('x-request-id'));
}

async function readUsage(requestIds) {
  await page.getByRole('link', { name: 'Usage statistics of Orders, production' }).click();
  await page.getByRole('heading', { name: 'Orders, production' }).waitFor();
  await untilCards({ 'Total Requests': '3', Completed: '1', Failed: '1', 'Rate Limited': '1' });
  // The panels of a page are asked for at once: only now that all calls are counted must all of them show all.
  await page.reload();
  await page.getByText('Complete up to').waitFor();
  await page.waitForLoadState();
  const legend = (title) => page.getByRole('region', { name: title }).locator('.legend li').allInnerTexts();
  assert.equal((await legend('By HTTP Method')).length, 2);
  assert.equal((await legend('By Response Status')).length, 3);
  const endpoints = await page.getByRole('region', { name: 'Top Endpoints' }).getByRole('rowheader').allInnerTexts();
  assert.deepEqual(endpoints.map((text) => text.trim()), ['/v1/orders', '/v1/orders/{id}']);
  const rows = await log();
  assert.deepEqual(rows.map((row) => row['Request ID']).sort(), [...requestIds].sort());
  assert.deepEqual(rows.map((row) => row.Response), ['429', '404', '200'], 'newest first');
  assert.deepEqual(rows.map((row) => row.Status), ['Rate limited', 'Failed', 'Completed']);
  assert.deepEqual(rows.map((row) => row.Method), ['POST', 'POST', 'GET']);
  await inReadersZone();
  await accessible('usage page');
  await page.getByRole('link', { name: 'Back to API Keys' }).click();
  await page.getByRole('row', { name: 'Orders, production' }).locator('[data-label="Last used"] time').waitFor();
  await page.getByRole('link', { name: 'Usage statistics of Orders, production' }).click();
}

// The times of the log are those of a clock in the reader's zone.
async function inReadersZone() {
  const time = page.locator('table.log time').first();
  const at = new Date(await time.getAttribute('datetime'));
  const clock = new Intl.DateTimeFormat('en-GB', { timeZone: ZONE, hour: '2-digit', minute: '2-digit' }).format(at);
  assert.ok((await time.textContent()).includes(clock), `${await time.textContent()} should be ${clock} in ${ZONE}`);
}

async function filter() {
  const form = page.getByRole('form', { name: 'Filter requests' });
  assert.match(await form.getByLabel('API key ID').inputValue(), /^key_/);
  const narrow = async (change, expected) => {
    await change();
    await form.getByRole('button', { name: 'Apply' }).click();
    await cards(expected);
    assert.equal((await log()).length, Number(expected['Total Requests']), 'the log agrees with the cards');
    await form.getByRole('link', { name: 'Clear filters' }).click();
    await cards({ 'Total Requests': '3' });
  };
  const one = { 'Total Requests': '1' };
  await narrow(() => form.getByRole('checkbox', { name: 'Failed' }).check(), { ...one, Failed: '1' });
  await narrow(() => form.getByRole('checkbox', { name: 'GET' }).check(), { ...one, Completed: '1' });
  await narrow(() => form.getByLabel('Response status').fill('429'), { ...one, 'Rate Limited': '1' });
  await narrow(() => form.getByLabel('API endpoint').fill('/v1/orders/{id}'), { ...one, Completed: '1' });
  await narrow(() => form.getByLabel('Resource ID').fill('17'), { ...one, Completed: '1' });
  await narrow(() => form.getByLabel('API key ID').fill(''), { 'Total Requests': '3' });
  await narrow(() => form.getByLabel('Date').selectOption({ index: 0 }), { 'Total Requests': '3' });
  await form.getByRole('checkbox', { name: 'Failed' }).check();
  await form.getByLabel('Response status').fill('404');
  await form.getByRole('button', { name: 'Apply' }).click();
  await cards({ 'Total Requests': '1' });
  await page.goto(page.url());
  await cards({ 'Total Requests': '1' });
  await form.getByRole('link', { name: 'Clear filters' }).click();
  await cards({ 'Total Requests': '3' });
}

async function editColumns() {
  await page.getByText('Edit columns').click();
  await page.getByRole('checkbox', { name: 'Latency' }).check();
  await page.getByLabel('Method', { exact: true }).uncheck();
  await page.locator('#log').getByRole('button', { name: 'Save' }).click();
  await page.locator('table.log th', { hasText: 'Latency' }).waitFor();
  await page.reload();
  const columns = await page.locator('table.log th').allInnerTexts();
  assert.ok(columns.some((text) => text.startsWith('Latency')) && !columns.includes('Method'), `${columns}`);
}

async function copyKey(secret) {
  await page.getByRole('link', { name: 'Back to API Keys' }).click();
  await page.getByRole('button', { name: 'Copy key Orders, production' }).click();
  await page.getByText('Copied').waitFor();
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), secret);
  assert.ok(!(await page.content()).includes(secret), 'a copied secret stays out of the page');
  await copyWithPassword(secret);
}

// Five minutes after the sign-in keys asks for the password again; the first answer here says that it does.
async function copyWithPassword(secret) {
  const again = { title: '', text: '', reference: '', reason: 'REAUTHENTICATION_REQUIRED' };
  await page.route('**/reveal', (route) => route.fulfill({ status: 403, json: again }), { times: 1 });
  await page.evaluate(() => navigator.clipboard.writeText(''));
  await page.getByRole('button', { name: 'Copy key Orders, production' }).click();
  const dialog = page.getByRole('dialog', { name: 'Your password, please' });
  await dialog.getByLabel('Password').fill('wrong');
  await accessible('password dialog');
  await dialog.getByRole('button', { name: 'Copy key' }).click();
  await dialog.getByRole('alert').getByText('That is not your password.').waitFor();
  await dialog.getByLabel('Password').fill(PASSWORD);
  await dialog.getByRole('button', { name: 'Copy key' }).click();
  await dialog.waitFor({ state: 'hidden' });
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), secret);
  refusalsWereMeant();
}

async function deleteKey(secret) {
  await page.getByRole('link', { name: 'Delete key Orders, production' }).click();
  const dialog = page.getByRole('dialog');
  await dialog.getByText('cannot be undone').waitFor();
  await accessible('delete dialog');
  await dialog.getByLabel('Type the key’s name to confirm').fill('Orders, production');
  await dialog.getByRole('button', { name: 'Delete key' }).click();
  await page.getByRole('heading', { name: 'was deleted' }).waitFor();
  await page.getByRole('status').getByText(/refuse|Refused/).waitFor();
  await accessible('receipt');
  const deadline = Date.now() + PATIENCE;
  let status;
  do {
    status = (await fetch(`${EDGE_URL}/v1/orders`, { headers: { authorization: `Bearer ${secret}` } })).status;
  } while (status !== 401 && Date.now() < deadline);
  assert.equal(status, 401);
  await page.getByRole('link', { name: 'See its usage' }).click();
  await page.getByText('This key was deleted').waitFor();
}

async function cards(expected) {
  for (const [title, value] of Object.entries(expected)) {
    const card = page.locator('dl.cards > div', { has: page.getByText(title, { exact: true }) });
    await card.locator('.value', { hasText: new RegExp(`^${value}$`) }).waitFor();
  }
}

// Calls appear about a second after they were made.
async function untilCards(expected) {
  const deadline = Date.now() + PATIENCE;
  const total = page.locator('dl.cards > div').first().locator('.value');
  while ((await total.textContent()) !== expected['Total Requests'] && Date.now() < deadline) {
    await page.waitForTimeout(200);
    await page.reload();
  }
  await cards(expected);
}

// The log as one object a row, by the titles of its columns.
async function log() {
  // The frame of a page comes first.
  await page.waitForLoadState();
  const clean = (texts) => texts.map((text) => text.trim());
  const titles = clean(await page.locator('table.log th').allInnerTexts()).map((title) => title.split('\n')[0]);
  const rows = await page.locator('table.log tbody tr').all();
  return Promise.all(rows.map(async (row) => {
    const cells = clean(await row.locator('td').allInnerTexts());
    return Object.fromEntries(cells.map((cell, i) => [titles[i], cell]));
  }));
}
