// Signs in to a running stack and takes the pictures of the README: the keys, and the usage of the one with the most
// calls on its page, light and dark.
// usage: screenshot.cjs ENDPOINTS.json FOLDER
const { readFileSync } = require('node:fs');
const { join } = require('node:path');
const { chromium } = require('playwright-core');

const [endpoints, folder] = process.argv.slice(2);
const { ui, admin } = JSON.parse(readFileSync(endpoints, 'utf8'));

async function main() {
  const browser = await chromium.launch({
    executablePath: '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-component-update'],
  });
  try {
    const page = await browser.newPage({ viewport: { width: 1280, height: 1180 }, colorScheme: 'light' });
    await page.goto(ui);
    await page.getByLabel('E-mail address').fill(admin.email);
    await page.getByLabel('Password').fill(admin.password);
    await page.getByRole('button', { name: 'Sign in' }).click();
    const links = page.getByRole('link', { name: /^Usage statistics/ });
    await links.first().waitFor();
    await page.setViewportSize({ width: 1280, height: 880 });
    await page.screenshot({ path: join(folder, 'keys.png') });
    const pages = await links.evaluateAll((found) => found.map((link) => link.href));
    let busiest = { calls: -1 };
    for (const address of pages) {
      await page.goto(address);
      const calls = Number((await page.locator('dl.cards .value').first().innerText()).replaceAll(/\D/g, ''));
      if (calls > busiest.calls) busiest = { calls, address };
    }
    await page.setViewportSize({ width: 1280, height: 1400 });
    for (const [colorScheme, name] of [['light', 'usage.png'], ['dark', 'usage-dark.png']]) {
      await page.emulateMedia({ colorScheme });
      await page.goto(`${busiest.address}?range=24h`);
      await page.locator('.latencies').waitFor();
      await page.screenshot({ path: join(folder, name) });
    }
  } finally {
    await browser.close();
  }
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
