// The usage page in real Chromium, point by point as it was described, and what goes beyond: each check says its name.
// Numbers are held against calls that the script itself sends through the edge.
const assert = require('node:assert/strict');
const { readFileSync } = require('node:fs');
const { createServer } = require('node:http');
const {
  run, signIn, refusalsWereMeant, accessible, fits, UI_URL, EDGE_URL, PATIENCE, ZONE,
} = require('./session.cjs');

// What the first load of the page may weigh, compressed.
const PAGE_BYTES_MAX = 150_000;

let page;
let usage;
let secret;
let requestIds;

// Six calls: 3 x 200, 404, 429, 503 by GET, POST and DELETE, over three endpoints.
const CALLS = [
  ['GET', '/v1/orders/17', 200], ['GET', '/v1/orders/17', 200], ['POST', '/v1/orders', 200],
  ['POST', '/v1/orders?status=404', 404], ['POST', '/v1/orders?status=429', 429], ['DELETE', '/v1/carts/9?status=503', 503],
];

const CHECKS = {
  'finding it: API Keys lists every key with its description and last use': async () => {
    await page.goto(`${UI_URL}/keys`);
    await page.getByRole('navigation', { name: 'Main' }).getByText('Integrations').waitFor();
    const row = page.getByRole('row', { name: 'Orders, production' });
    await row.getByText('The order service').waitFor();
    await row.locator('time').first().waitFor();
    for (const name of ['Usage statistics of', 'Copy key', 'Delete key']) await row.locator(`[aria-label^="${name}"]`).waitFor();
  },
  'the chart icon opens the page of the key, and a link leads back': async () => {
    await page.getByRole('link', { name: 'Usage statistics of Orders, production' }).click();
    await page.getByRole('heading', { level: 1, name: 'Orders, production' }).waitFor();
    usage = new URL(page.url()).pathname;
    await page.getByRole('link', { name: 'Back to API Keys' }).click();
    await page.waitForURL('**/keys');
    await untilTotal(`${UI_URL}${usage}`, '6');
  },
  'four cards: total, completed, failed, rate limited': async () => {
    await cards(['6', '3', '2', '1']);
    const colour = async (title) => card(title).locator('.value').evaluate((value) => getComputedStyle(value).color);
    const [completed, failed, limited] = await Promise.all(['Completed', 'Failed', 'Rate Limited'].map(colour));
    assert.equal(new Set([completed, failed, limited]).size, 3, 'each has its colour');
    await card('Failed').getByText('vs. before').waitFor();
  },
  'a donut by HTTP method, whose parts lead to their calls': async () => {
    assert.deepEqual(await legend('By HTTP Method'), { POST: '3', GET: '2', DELETE: '1' });
    await page.getByRole('region', { name: 'By HTTP Method' }).getByRole('link', { name: 'DELETE' }).click();
    await cards(['1', '0', '1', '0']);
    await page.getByRole('link', { name: 'Remove Method DELETE' }).click();
    await cards(['6', '3', '2', '1']);
    await page.getByRole('region', { name: 'By HTTP Method' }).locator('[data-href*="method=GET"]').dispatchEvent('click');
    await cards(['2', '2', '0', '0']);
    await page.goBack();
  },
  'a donut by response status': async () => {
    assert.deepEqual(await legend('By Response Status'), { 200: '3', 404: '1', 429: '1', 503: '1' });
  },
  'top endpoints with counts, errors and p95': async () => {
    const region = page.getByRole('region', { name: 'Top Endpoints' });
    await region.getByText(/\d (ms|µs|s)$/).first().waitFor();
    const cells = async (row) => (await row.locator('th, td').allInnerTexts()).map((text) => text.trim()).slice(0, 4);
    const rows = await Promise.all((await region.locator('tbody tr').all()).map(cells));
    assert.deepEqual(rows, [['/v1/orders', '3', '50%', '66.7%'], ['/v1/orders/{id}', '2', '33.3%', '0%'],
      ['/v1/carts/{id}', '1', '16.7%', '100%']]);
    await page.getByRole('region', { name: 'Latency' }).getByText('p99').waitFor();
  },
  'the log: request id, time in the reader\'s zone, method, endpoint, status, response': async () => {
    const rows = await log();
    assert.deepEqual(Object.keys(rows[0]), ['Request ID', 'Timestamp', 'Method', 'Endpoint', 'Status', 'Response']);
    assert.deepEqual(rows.map((row) => row['Request ID']).sort(), [...requestIds].sort());
    assert.deepEqual(rows.map((row) => row.Response), ['503', '429', '404', '200', '200', '200'], 'newest first');
    assert.deepEqual(rows.slice(0, 4).map((row) => row.Status), ['Failed', 'Rate limited', 'Failed', 'Completed']);
    const time = page.locator('table.log time').first();
    const at = new Date(await time.getAttribute('datetime'));
    const clock = new Intl.DateTimeFormat('en-GB', { timeZone: ZONE, hour: '2-digit', minute: '2-digit' }).format(at);
    assert.ok((await time.textContent()).includes(clock), `${await time.textContent()} should be ${clock} in ${ZONE}`);
  },
  'each filter alone: resource, key, date, status, method, endpoint, response': async () => {
    const form = page.getByRole('form', { name: 'Filter requests' });
    assert.match(await form.getByLabel('API key ID').inputValue(), /^key_/, 'set to this key');
    await narrow(() => form.getByLabel('Resource ID').fill('17'), ['2', '2', '0', '0']);
    await narrow(() => form.getByLabel('API key ID').fill(''), ['7', '4', '2', '1']);
    await narrow(() => form.getByLabel('Date').selectOption('15m'), ['6', '3', '2', '1']);
    await narrow(() => form.getByRole('checkbox', { name: 'Failed' }).check(), ['2', '0', '2', '0']);
    await narrow(() => form.getByRole('checkbox', { name: 'POST' }).check(), ['3', '1', '1', '1']);
    await narrow(() => form.getByLabel('API endpoint').fill('/v1/orders'), ['3', '1', '1', '1']);
    await narrow(() => form.getByLabel('Response status').fill('429, 503'), ['2', '0', '1', '1']);
  },
  'filters together, in the address, applied by Apply and reset by Clear filters': async () => {
    const form = page.getByRole('form', { name: 'Filter requests' });
    await form.getByRole('checkbox', { name: 'POST' }).check();
    await form.getByRole('checkbox', { name: 'Failed' }).check();
    await form.getByLabel('Response status').fill('404');
    await cards(['6', '3', '2', '1']);
    await form.getByRole('button', { name: 'Apply' }).click();
    await cards(['1', '0', '1', '0']);
    assert.equal((await log()).length, 1);
    await page.goto(page.url());
    await cards(['1', '0', '1', '0']);
    await form.getByRole('link', { name: 'Clear filters' }).click();
    await cards(['6', '3', '2', '1']);
    await form.getByLabel('Response status').fill('nonsense');
    await form.getByRole('button', { name: 'Apply' }).click();
    await page.getByText('Write numbers from 100 to 599').waitFor();
    refusalsWereMeant();
    await page.getByRole('link', { name: 'Clear filters' }).click();
  },
  'Edit columns chooses and orders them, and is remembered': async () => {
    await page.getByText('Edit columns').click();
    await page.getByRole('checkbox', { name: 'Latency', exact: true }).check();
    await page.getByRole('checkbox', { name: 'Method', exact: true }).uncheck();
    await page.getByRole('button', { name: 'Move Response forward' }).click();
    await page.getByRole('button', { name: 'Save', exact: true }).last().click();
    const titles = async () => (await page.locator('table.log th').allInnerTexts()).map((text) => text.split('\n')[0].trim());
    const chosen = ['Request ID', 'Timestamp', 'Endpoint', 'Response', 'Status', 'Latency'];
    await page.locator('table.log th', { hasText: 'Latency' }).waitFor();
    assert.deepEqual((await titles()).map((title) => title.replace(/ Asia.*/, '')), chosen);
    await page.reload();
    assert.deepEqual((await titles()).map((title) => title.replace(/ Asia.*/, '')), chosen);
    await page.getByText('Edit columns').click();
    await page.getByRole('button', { name: 'Reset' }).click();
    await page.locator('table.log th', { hasText: 'Method' }).waitFor();
  },
  'a part of the time is chosen by dragging over bars': async () => {
    const bars = page.locator('[data-brush]');
    await bars.scrollIntoViewIfNeeded();
    const box = await bars.boundingBox();
    await page.mouse.move(box.x + box.width * 0.9, box.y + 60);
    await page.getByText(/\d+ requests, /).waitFor();
    await page.mouse.down();
    await page.mouse.move(box.x + box.width - 1, box.y + 60, { steps: 4 });
    await page.mouse.up();
    await page.waitForURL(/from=.*&to=/);
    await cards(['6', '3', '2', '1']);
    assert.equal(await page.getByLabel('Date').inputValue(), 'custom');
    await page.getByRole('link', { name: 'Clear filters' }).click();
  },
  'one call opens beside the log with its neighbours': async () => {
    const id = (await log()).find((row) => row.Endpoint === '/v1/orders/{id}')['Request ID'];
    await page.getByRole('link', { name: id }).click();
    const drawer = page.getByRole('dialog', { name: 'Request' });
    await drawer.getByRole('heading', { name: id }).waitFor();
    await drawer.getByText('Other calls of').waitFor();
    await accessible('one call');
    await page.keyboard.press('Escape');
    await drawer.waitFor({ state: 'hidden' });
    await page.goto(await page.getByRole('link', { name: id }).getAttribute('href').then((href) => UI_URL + href));
    await page.getByRole('heading', { name: id }).waitFor();
    await page.getByRole('link', { name: 'Back to the request log' }).click();
  },
  'a view is saved and used': async () => {
    await page.goto(`${UI_URL}${usage}?outcome=failed`);
    await page.getByText('Views').click();
    await page.getByLabel('Name of the view').fill('Failures');
    await page.getByRole('button', { name: 'Save', exact: true }).first().click();
    await page.goto(`${UI_URL}/overview`);
    await page.getByText('Views').click();
    await page.getByRole('link', { name: 'Failures' }).click();
    await cards(['2', '0', '2', '0']);
    await page.goto(`${UI_URL}${usage}`);
  },
  'the whole filtered log as a file': async () => {
    await page.goto(`${UI_URL}${usage}?method=POST`);
    await page.getByText('Export', { exact: true }).click();
    for (const [format, lines] of [['CSV', 4], ['NDJSON', 3]]) {
      const coming = page.waitForEvent('download');
      await page.getByRole('link', { name: format, exact: true }).click();
      const file = await coming;
      assert.match(file.suggestedFilename(), new RegExp(`^keymeter-requests-.*\\.${format.toLowerCase()}$`));
      assert.equal(readFileSync(await file.path(), 'utf8').trim().split('\n').length, lines, format);
      await page.getByText('3 of 3').waitFor();
    }
    await page.goto(`${UI_URL}${usage}`);
  },
  'new calls come by themselves, and can be paused': async () => {
    await page.getByRole('button', { name: 'Live' }).click();
    const id = await call(...CALLS[0]);
    await page.getByRole('link', { name: id }).waitFor();
    await page.getByRole('button', { name: 'Pause' }).click();
    const next = await call(...CALLS[0]);
    await page.getByText('Paused, 1 new').waitFor();
    assert.equal(await page.getByRole('link', { name: next }).count(), 0);
    await page.getByRole('button', { name: 'Go on' }).click();
    await page.getByRole('link', { name: next }).waitFor();
    await cards(['8', '5', '2', '1']);
    await page.getByRole('button', { name: 'Live' }).click();
  },
  'the page is light and does not jump': async () => {
    const fresh = await newContext({ colorScheme: 'light' });
    const other = await fresh.newPage();
    await noteShifts(other);
    let bytes = 0;
    const network = await fresh.newCDPSession(other);
    await network.send('Network.enable');
    network.on('Network.loadingFinished', (done) => { bytes += done.encodedDataLength; });
    await other.goto(`${UI_URL}${usage}`);
    await other.locator('.latencies').waitFor();
    const paint = await other.evaluate(() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime);
    console.log(`first load: ${bytes} bytes, first contentful paint after ${Math.round(paint)} ms`);
    assert.ok(bytes <= PAGE_BYTES_MAX, `${bytes} bytes`);
    assert.deepEqual(await other.evaluate(() => globalThis.shifts), [], 'what moved');
    await fresh.close();
  },
  'a page that comes in two pieces does not jump': async () => {
    const fresh = await newContext({ colorScheme: 'light' });
    for (const mark of ['Account: ', 'data-live aria']) {
      const other = await fresh.newPage();
      await noteShifts(other);
      await other.goto(await cutPages(UI_URL, mark) + usage);
      await other.locator('.latencies').waitFor();
      assert.deepEqual(await other.evaluate(() => globalThis.shifts), [], `what moved, cut at "${mark}"`);
    }
    await fresh.close();
  },
  'without scripts there are cards, tables, filters and forms': async () => {
    const plain = await newContext({ javaScriptEnabled: false });
    const other = await plain.newPage();
    await other.goto(`${UI_URL}${usage}`);
    assert.equal(await other.locator('dl.cards .value').first().textContent(), '8');
    await other.getByRole('textbox', { name: 'Response status' }).fill('503');
    await other.getByRole('button', { name: 'Apply' }).click();
    assert.equal(await other.locator('dl.cards .value').first().textContent(), '1');
    assert.equal(await other.locator('table.log tbody tr').count(), 1);
    await other.getByRole('link', { name: 'Show how long calls took' }).click();
    await other.locator('.latencies').waitFor();
    await other.getByText('Edit columns').click();
    await other.getByRole('checkbox', { name: 'Region' }).check();
    await other.getByRole('button', { name: 'Save', exact: true }).last().click();
    await other.locator('table.log th', { hasText: 'Region' }).waitFor();
    await plain.close();
  },
  'every state is accessible, light and dark, wide and narrow': async () => {
    const states = {
      'usage of a key': usage,
      overview: '/overview',
      'wrong usage filter': `${usage}?status_code=x`,
      'no calls': `${usage}?method=TRACE`,
      'every key': `${usage}?key_id=`,
      'a call on a page of its own': `${usage}/requests/${requestIds[0]}`,
      'not found': '/keys/key_nonsense/usage',
    };
    for (const [state, address] of Object.entries(states)) {
      await page.goto(UI_URL + address);
      if (address === usage) await page.locator('.latencies').waitFor();
      await accessible(state);
      await fits(state);
    }
    refusalsWereMeant();
  },
};

run(async (opened) => {
  page = opened;
  await page.goto(UI_URL);
  await signIn();
  await prepare();
  for (const [name, check] of Object.entries(CHECKS)) {
    await check().catch((error) => { throw new Error(`in "${name}"`, { cause: error }); });
    console.log(`ok: ${name}`);
  }
});

// Of the person who is signed in, with the columns that nobody has chosen.
async function newContext(options) {
  const context = page.context();
  const other = await context.browser().newContext({ timezoneId: ZONE, locale: 'en-GB', ...options });
  other.setDefaultTimeout(PATIENCE);
  await other.addCookies((await context.cookies()).filter(({ name }) => name !== 'keymeter_columns'));
  return other;
}

// What moved without anybody's doing is in `shifts`.
function noteShifts(page) {
  return page.addInitScript(() => {
    globalThis.shifts = [];
    new PerformanceObserver((list) => {
      for (const { sources } of list.getEntries()) globalThis.shifts.push(...sources.map(({ node }) => node?.outerHTML ?? node?.textContent));
    }).observe({ type: 'layout-shift', buffered: true });
  });
}

// A server before the UI that sends what comes after the mark in a page a second late.
async function cutPages(origin, mark) {
  const server = createServer(async ({ url, headers }, answer) => {
    const { cookie, accept } = headers;
    const from = await fetch(origin + url, { headers: { cookie, accept } });
    const body = Buffer.from(await from.arrayBuffer());
    answer.writeHead(from.status, { 'content-type': from.headers.get('content-type') });
    const at = body.indexOf(mark);
    answer.write(body.subarray(0, at));
    if (at > 0) await new Promise((done) => { setTimeout(done, 1000); });
    answer.end(body.subarray(at));
  });
  await new Promise((done) => { server.listen(0, '127.0.0.1', done); });
  server.unref();
  return `http://127.0.0.1:${server.address().port}`;
}

async function prepare() {
  secret = await generate('Orders, production', 'The order service');
  const other = await generate('Reports, staging', '');
  await call('GET', '/v1/reports', 200, other);
  requestIds = [];
  for (const [method, path, status] of CALLS) requestIds.push(await call(method, path, status));
}

// Returns the id of the request. The first call of a key may come before the edge has heard of it.
async function call(method, path, status, with_ = secret) {
  const send = () => fetch(EDGE_URL + path, { method, headers: { authorization: `Bearer ${with_}` } });
  let answer = await send();
  for (const deadline = Date.now() + PATIENCE; answer.status === 401 && Date.now() < deadline;) {
    await new Promise((done) => { setTimeout(done, 100); });
    answer = await send();
  }
  assert.equal(answer.status, status, `${method} ${path}`);
  return answer.headers.get('x-request-id');
}

async function generate(name, description) {
  await page.goto(`${UI_URL}/keys/new`);
  await page.getByLabel('Name').fill(name);
  await page.getByLabel('Description').fill(description);
  await page.getByRole('button', { name: 'Generate API Key' }).click();
  return page.locator('#secret').textContent();
}

const card = (title) => page.locator('dl.cards > div', { has: page.getByText(title, { exact: true }) });

async function cards(expected) {
  const titles = ['Total Requests', 'Completed', 'Failed', 'Rate Limited'];
  for (const [at, title] of titles.entries()) {
    await card(title).locator('.value', { hasText: new RegExp(`^${expected[at]}$`) }).waitFor();
  }
}

// Calls appear about a second after they were made.
async function untilTotal(address, total) {
  const deadline = Date.now() + PATIENCE;
  do {
    await page.goto(address);
  } while ((await page.locator('dl.cards .value').first().textContent()) !== total && Date.now() < deadline);
  // The panels of a page are asked for at once: only now that all calls are counted must all of them show all.
  await page.goto(address);
}

// Label and count of each part of a donut.
async function legend(title) {
  await page.waitForLoadState();
  const parts = await page.getByRole('region', { name: title }).locator('.legend li').all();
  return Object.fromEntries(await Promise.all(parts.map(async (part) =>
    [await part.locator('.label').innerText(), await part.locator('.number').first().innerText()])));
}

// The log as one object a row, by the titles of its columns.
async function log() {
  // The frame of a page comes first.
  await page.waitForLoadState();
  const clean = (texts) => texts.map((text) => text.trim());
  const titles = clean(await page.locator('table.log th').allInnerTexts()).map((title) => title.split('\n')[0].replace(/ Asia.*/, ''));
  const rows = await page.locator('table.log tbody tr').all();
  return Promise.all(rows.map(async (row) => {
    const cells = clean(await row.locator('td').allInnerTexts());
    return Object.fromEntries(cells.map((cell, i) => [titles[i], cell]));
  }));
}

// One change of the form: cards and log agree; then all is as before.
async function narrow(change, expected) {
  const form = page.getByRole('form', { name: 'Filter requests' });
  await change();
  await form.getByRole('button', { name: 'Apply' }).click();
  await cards(expected);
  assert.equal((await log()).length, Number(expected[0]), 'the log agrees with the cards');
  await form.getByRole('link', { name: 'Clear filters' }).click();
  await cards(['6', '3', '2', '1']);
}
