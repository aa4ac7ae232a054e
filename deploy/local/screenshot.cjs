// Signs in to a running stack and takes a picture of the usage page of the key with the most calls on its page.
// usage: screenshot.cjs ENDPOINTS.json PICTURE.png
const { readFileSync } = require('node:fs');
const { chromium } = require('playwright-core');

const [endpoints, picture] = process.argv.slice(2);
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
    const pages = await links.evaluateAll((found) => found.map((link) => link.href));
    let busiest = { calls: -1 };
    for (const address of pages) {
      await page.goto(address);
      const calls = Number((await page.locator('dl.cards .value').first().innerText()).replaceAll(/\D/g, ''));
      if (calls > busiest.calls) busiest = { calls, address };
    }
    await page.goto(busiest.address);
    await page.screenshot({ path: picture });
  } finally {
    await browser.close();
  }
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
