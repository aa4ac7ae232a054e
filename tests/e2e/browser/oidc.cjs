// Signing in at a real OpenID Connect provider in real Chromium: a stranger stays outside, an invited person comes in
// without a password, an account is linked, a key is revealed after the provider has asked again. Exits with 0 if all
// holds. Beside the settings of session.cjs: PROVIDER_URL.
const assert = require('node:assert/strict');
const session = require('./session.cjs');

const { accessible, fits, another, refusalsWereMeant, UI_URL, EMAIL, PROVIDER_URL } = session;
const BUTTON = 'Sign in with Example ID';
const GUEST = 'grace.hopper@example.com';

session.run(async (page) => {
  await page.goto(`${UI_URL}/keys?sort=name`);
  await looksGood(page, 'sign in with provider');
  await stranger(await another());
  await signInThere(page, () => page.getByRole('link', { name: BUTTON }).click(), EMAIL);
  await page.waitForURL(`${UI_URL}/keys?sort=name`);
  await cookiesAreOutOfReach(page);
  await reveal(page, await generate(page));
  await invited(page, await another());
  await signOut(page);
  await withoutAskingAgain(page);
});

// The provider's own pages: a form, and then a question whether that is meant.
async function signInThere(page, leave, email) {
  await leave();
  await page.waitForURL(`${PROVIDER_URL}/**`);
  await page.getByPlaceholder('Enter any login').fill(email);
  await page.getByPlaceholder('and password').fill('any');
  await page.getByRole('button', { name: 'Sign-in' }).click();
  const consent = page.getByRole('button', { name: 'Continue' });
  await Promise.race([consent.waitFor(), page.waitForURL(`${UI_URL}/**`)]);
  if (!page.url().startsWith(UI_URL)) await consent.click();
  await page.waitForURL(`${UI_URL}/**`);
}

async function stranger(page) {
  await page.goto(`${UI_URL}/sign-in`);
  await page.getByRole('link', { name: BUTTON }).click();
  await page.getByRole('link', { name: '[ Cancel ]' }).click();
  await page.getByText('was cancelled or refused').waitFor();
  refusalsWereMeant();
  const leave = () => page.getByRole('link', { name: BUTTON }).click();
  await signInThere(page, leave, 'nobody@example.com');
  await page.getByText('You have no account here yet.').waitFor();
  await page.getByText('Reference: ').waitFor();
  refusalsWereMeant();
  await looksGood(page, 'no account');
  await page.context().close();
}

async function cookiesAreOutOfReach(page) {
  assert.equal(await page.evaluate(() => document.cookie.includes('keymeter_session')), false);
  const cookies = await page.context().cookies(UI_URL);
  assert.deepEqual(cookies.filter(({ name }) => name === 'keymeter_provider'), [], 'the trip is over');
  const { httpOnly, sameSite } = cookies.find(({ name }) => name === 'keymeter_session');
  assert.deepEqual([httpOnly, sameSite], [true, 'Lax']);
}

async function generate(page) {
  await page.getByRole('link', { name: 'Generate API Key' }).first().click();
  const dialog = page.getByRole('dialog', { name: 'Generate API Key' });
  await dialog.getByLabel('Name').fill('Billing');
  await dialog.getByRole('button', { name: 'Generate API Key' }).click();
  const secret = await page.locator('#secret').textContent();
  await page.getByRole('link', { name: 'Done' }).click();
  return secret;
}

async function reveal(page, secret) {
  const copy = page.getByRole('button', { name: 'Copy key Billing' });
  await copy.click();
  const dialog = page.getByRole('dialog', { name: 'Sign in again, please' });
  await dialog.waitFor();
  refusalsWereMeant();
  assert.equal(await page.getByLabel('Password').count(), 0);
  await accessible('sign in again', page);
  const here = page.url();
  await signInThere(page, () => dialog.getByRole('link', { name: 'Sign in again' }).click(), EMAIL);
  assert.equal(page.url(), here);
  await copy.click();
  await page.getByText('Copied').waitFor();
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), secret);

  // Somebody else at the provider does not do.
  await page.goto(`${UI_URL}/sign-in/oidc?again=1`);
  await signInThere(page, async () => {}, 'eve@example.com');
  await page.getByText('You have signed in as somebody else than here.').waitFor();
  refusalsWereMeant();
  await looksGood(page, 'somebody else');
  await page.goto(`${UI_URL}/sign-in/oidc?again=1`);
  await signInThere(page, async () => {}, EMAIL);
}

async function invited(owner, guest) {
  await owner.goto(`${UI_URL}/members/invite`);
  await owner.getByLabel('E-mail address').fill(GUEST);
  await owner.getByRole('button', { name: 'Make invitation' }).click();
  await guest.goto(await owner.locator('#link').textContent());
  await looksGood(guest, 'invitation with provider');
  const leave = () => guest.getByRole('link', { name: 'Accept with Example ID' }).click();
  await signInThere(guest, leave, GUEST);
  await guest.getByRole('heading', { name: 'API Keys' }).waitFor();
  await owner.goto(`${UI_URL}/audit`);
  await owner.getByText('signed in at the provider for the first time as').first().waitFor();
  await guest.context().close();
}

async function signOut(page) {
  await page.locator('details.account > summary').click();
  await page.getByRole('button', { name: 'Sign out' }).click();
  await page.getByRole('link', { name: BUTTON }).waitFor();
  await page.goBack();
  await page.goto(`${UI_URL}/keys`);
  await page.getByRole('heading', { name: 'Sign in' }).waitFor();
}

// The provider knows the browser still; a reveal has to be asked for anew.
async function withoutAskingAgain(page) {
  await page.getByRole('link', { name: BUTTON }).click();
  await page.getByRole('heading', { name: 'API Keys' }).waitFor();
  await page.getByRole('button', { name: 'Copy key Billing' }).click();
  await page.getByRole('dialog', { name: 'Sign in again, please' }).waitFor();
  refusalsWereMeant();
}

// In light and dark, wide and narrow.
async function looksGood(page, state) {
  await accessible(state, page);
  await fits(state, page);
}
