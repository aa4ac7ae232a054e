// Loads the usage page of a key in Chromium, cold and after changes of its filter, and prints what each took as JSON lines:
// {"kind": "load" | "change", "what": …, "paint_ms": …, "done_ms": …}. Done is when the last byte of the page is read and
// laid out, but for the panels that come after it: the next one waits for those. Settings come by environment: UI_URL, KEY,
// ROUTE, FROM, TO, CHROMIUM.
const { chromium } = require('playwright-core');

const { UI_URL, KEY, ROUTE, FROM, TO, CHROMIUM } = process.env;
const ZONES = ['UTC', 'Asia/Kolkata'];
const ROUNDS = 5;
const PERIODS = { '30 days': FROM, '24 hours': new Date(Date.parse(TO) - 86_400_000).toISOString() };
const CHANGES = [
  { method: 'POST' }, { status_code: '404' }, { outcome: 'failed' }, { outcome: 'rate_limited' }, { route: ROUTE },
  { resource_id: '4711' }, { method: 'GET', status_code: '500' }, { route: ROUTE, outcome: 'failed' },
];

const address = (from, filter) => `${UI_URL}/overview?${new URLSearchParams({ key_id: KEY, from, to: TO, ...filter })}`;

async function timed(page, kind, what) {
  await page.waitForLoadState();
  // A short page is loaded before it is painted.
  const [paint, done] = await page.evaluate(() => new Promise((resolve) => {
    new PerformanceObserver((list, observer) => {
      const first = list.getEntriesByName('first-contentful-paint')[0];
      if (first === undefined) return;
      observer.disconnect();
      resolve([first.startTime, performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd]);
    }).observe({ type: 'paint', buffered: true });
  }));
  console.log(JSON.stringify({ kind, what, paint_ms: paint, done_ms: done }));
}

async function open(browser, timezoneId) {
  const context = await browser.newContext({ timezoneId, viewport: { width: 1280, height: 900 } });
  const cookie = (name, value) => ({ name, value, url: UI_URL });
  await context.addCookies([cookie('keymeter_session', 'bench'), cookie('keymeter_zone', timezoneId)]);
  return context;
}

async function main() {
  const browser = await chromium.launch({
    executablePath: CHROMIUM,
    args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
      '--disable-component-update', '--disable-sync'],
  });
  try {
    for (const zone of ZONES) {
      for (const [period, from] of Object.entries(PERIODS)) {
        for (let round = 0; round < ROUNDS; round += 1) {
          const context = await open(browser, zone);
          const page = await context.newPage();
          await page.goto(address(from, {}));
          await timed(page, 'load', `${period}, ${zone}`);
          await page.waitForLoadState('networkidle');
          await context.close();
        }
        const context = await open(browser, zone);
        const page = await context.newPage();
        for (const change of CHANGES) {
          for (let round = 0; round < ROUNDS; round += 1) {
            await page.goto(address(from, {}));
            await page.waitForLoadState('networkidle');
            await page.evaluate((next) => { globalThis.location = next; }, address(from, change));
            await page.waitForURL(address(from, change));
            const named = Object.entries(change).map(([name, value]) => `${name}=${value}`).join(' ');
            await timed(page, 'change', `${named}, ${period}, ${zone}`);
          }
        }
        await context.close();
      }
    }
  } finally {
    await browser.close();
  }
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
