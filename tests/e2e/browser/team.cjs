// A team's first days in real Chromium: an owner invites somebody, who accepts, looks around and gets another role;
// a service token, the audit log, settings, themes, workspaces.
const assert = require('node:assert/strict');
const { run, signIn, another, refusalsWereMeant, accessible, fits, UI_URL, EMAIL } = require('./session.cjs');

const GUEST = 'grace.hopper@example.com';
const GUEST_PASSWORD = 'a password of her own';

let owner;
let guest;

run(async (page) => {
  owner = page;
  guest = await another();
  await owner.goto(`${UI_URL}/sign-in`);
  await signIn(owner);
  const link = await invite();
  await accept(link);
  await lookAround();
  await changeRole();
  await serviceToken();
  await auditLog();
  await settings();
  await theme();
  await workspaces();
  await remove();
});

const click = (page, role, name) => page.getByRole(role, { name, exact: true }).click();
const goTo = (page, name) => page.getByRole('navigation', { name: 'Main' }).getByRole('link', { name }).click();

async function invite() {
  await goTo(owner, 'Members');
  await owner.getByRole('cell', { name: `${EMAIL} You` }).waitFor();
  await click(owner, 'link', 'Invite member');
  await looksGood(owner, 'invite');
  await owner.getByLabel('E-mail address').fill(EMAIL);
  await owner.getByRole('radio', { name: /^Viewer/ }).check();
  await click(owner, 'button', 'Make invitation');
  await owner.getByText('This person is a member already.').waitFor();
  await owner.getByLabel('E-mail address').fill(GUEST);
  await click(owner, 'button', 'Make invitation');
  const link = await owner.locator('#link').textContent();
  assert.match(link, /\/invitations\/kminv_[0-9A-Za-z_-]{43}$/);
  await click(owner, 'button', 'Copy link');
  await owner.getByText('Copied').waitFor();
  assert.equal(await owner.evaluate(() => navigator.clipboard.readText()), link);
  await looksGood(owner, 'invited');
  await click(owner, 'link', 'Done');
  await owner.getByRole('region', { name: 'Open invitations' }).getByText(GUEST).waitFor();
  await looksGood(owner, 'members');
  return link;
}

async function accept(link) {
  await guest.goto(link);
  await guest.getByText(`The invitation is for ${GUEST}`).waitFor();
  await looksGood(guest, 'invitation');
  await guest.getByLabel('Password').fill('short');
  await click(guest, 'button', 'Accept invitation');
  await guest.getByText('Must have 8 characters').waitFor();
  await guest.getByLabel('Password').fill(GUEST_PASSWORD);
  await click(guest, 'button', 'Accept invitation');
  await guest.getByRole('heading', { name: 'API Keys' }).waitFor();
  await guest.goto(link);
  await guest.getByRole('heading', { name: 'This invitation is not open' }).waitFor();
  await looksGood(guest, 'invitation-gone');
}

// What the viewer does not see, and what is said on going there anyway.
async function lookAround() {
  await guest.goto(`${UI_URL}/members`);
  const nav = guest.getByRole('navigation', { name: 'Main' });
  await nav.getByRole('link', { name: 'Members' }).waitFor();
  for (const name of ['Audit log', 'Settings']) assert.equal(await nav.getByRole('link', { name }).count(), 0, name);
  assert.equal(await guest.getByRole('link', { name: 'Invite member' }).count(), 0);
  await guest.goto(`${UI_URL}/audit`);
  await guest.getByRole('heading', { name: 'Your role does not allow this' }).waitFor();
  await guest.getByRole('listitem').filter({ hasText: EMAIL }).waitFor();
  await looksGood(guest, 'no permission');
}

async function changeRole() {
  await goTo(owner, 'Members');
  await click(owner, 'link', `Change role of ${GUEST}`);
  await looksGood(owner, 'role');
  await owner.getByRole('radio', { name: /^Admin/ }).check();
  await click(owner, 'button', 'Change role');
  await owner.getByText('The role was changed.').waitFor();
  await openAccount(guest);
  await click(guest, 'button', 'Sign out');
  await guest.goto(`${UI_URL}/sign-in`);
  await signIn(guest, GUEST, GUEST_PASSWORD);
  await goTo(guest, 'Settings');
  await guest.getByRole('heading', { name: 'Settings' }).waitFor();
  assert.equal(await guest.getByRole('link', { name: 'Delete workspace' }).count(), 0, 'only owners delete');
}

async function serviceToken() {
  await goTo(owner, 'Settings');
  await owner.getByRole('link', { name: 'Service tokens' }).click();
  await owner.getByRole('region', { name: 'Service tokens' }).waitFor();
  await click(owner, 'link', 'New service token');
  await owner.getByLabel('Service', { exact: true }).fill('Billing, production');
  await click(owner, 'button', 'Make service token');
  await owner.getByText('Choose at least one.').waitFor();
  await looksGood(owner, 'new service token');
  await owner.getByLabel('See keys').check();
  await owner.getByLabel('See totals of usage').check();
  await click(owner, 'button', 'Make service token');
  const token = await owner.locator('#secret').textContent();
  assert.match(token, /^kmsvc_/);
  await looksGood(owner, 'service token');
  await click(owner, 'link', 'Done');
  assert.ok(!(await owner.content()).includes(token), 'the list must not hold a token');
  await looksGood(owner, 'service tokens');
  await click(owner, 'link', 'Revoke Billing, production');
  await looksGood(owner, 'revoke');
  await click(owner, 'button', 'Revoke token');
  await owner.getByRole('row', { name: 'Billing, production' }).getByText('Revoked').waitFor();
}

async function auditLog() {
  await goTo(owner, 'Audit log');
  const entries = owner.getByRole('region', { name: 'Entries' }).getByRole('listitem');
  const sentences = await entries.locator('.said').allInnerTexts();
  assert.equal(sentences[0], `${EMAIL} revoked the service token Billing, production`);
  assert.equal(sentences[1], `${EMAIL} made the service token Billing, production`);
  assert.equal(sentences[2], `${EMAIL} changed the role of ${GUEST} from viewer to admin`);
  await entries.nth(2).locator('summary').click();
  await entries.nth(2).getByText('update_member').waitFor();
  await looksGood(owner, 'audit log');
  await owner.getByLabel('Who').fill(GUEST);
  await click(owner, 'button', 'Apply');
  await owner.getByText('came in by an invitation').waitFor();
  assert.equal(await entries.count(), 1);
  const [download] = await Promise.all([owner.waitForEvent('download'), click(owner, 'link', 'Export what matches')]);
  assert.match(download.suggestedFilename(), /^audit-ws_.*\.ndjson$/);
  const lines = (await text(await download.createReadStream())).trim().split('\n').map((line) => JSON.parse(line));
  assert.deepEqual(lines.map((line) => line.action), ['accept_invitation']);
  await owner.getByLabel('Who').fill('nobody@example.com');
  await click(owner, 'button', 'Apply');
  await owner.getByText('No member has this address.').waitFor();
  await looksGood(owner, 'wrong filter');
}

async function text(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

async function settings() {
  await goTo(owner, 'Settings');
  await looksGood(owner, 'settings');
  await owner.getByLabel('Name').fill('Acme & Sons');
  await owner.getByLabel('Network only').check();
  await owner.getByLabel('Keep sealed copies').uncheck();
  await click(owner, 'button', 'Save settings');
  await owner.getByText('This destroys all copies for good').waitFor();
  await looksGood(owner, 'settings refused');
  await owner.getByLabel('Destroy all copies now').check();
  await click(owner, 'button', 'Save settings');
  await owner.getByText('The settings were saved.').waitFor();
  assert.ok(await owner.getByLabel('Network only').isChecked());
  assert.equal(await owner.getByLabel('Name').inputValue(), 'Acme & Sons');
  await goTo(owner, 'Audit log');
  await owner.getByText('changed the settings of').waitFor();
  await goTo(owner, 'Settings');
  await click(owner, 'link', 'Suspend workspace');
  await looksGood(owner, 'suspend');
  await click(owner, 'button', 'Suspend workspace');
  await owner.getByText('This workspace is suspended').waitFor();
  await click(owner, 'link', 'Resume workspace');
  await click(owner, 'button', 'Resume workspace');
  await owner.getByRole('link', { name: 'Suspend workspace' }).waitFor();
  const [download] = await Promise.all([owner.waitForEvent('download'), click(owner, 'button', 'Export workspace')]);
  const lines = (await text(await download.createReadStream())).trim().split('\n').map((line) => JSON.parse(line));
  assert.equal(lines[0].type, 'workspace');
}

const openAccount = (page) => page.locator('details.account > summary').click();

// The choice is on the page that the server sends, and holds against the system's.
async function theme() {
  const ground = () => owner.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const light = await ground();
  await openAccount(owner);
  await accessible('account menu', owner);
  await click(owner, 'button', 'Dark');
  assert.equal(await owner.locator('html').getAttribute('data-theme'), 'dark');
  await owner.getByRole('heading', { name: 'Settings' }).waitFor();
  const dark = await ground();
  assert.notEqual(dark, light);
  await owner.reload();
  assert.equal(await ground(), dark);
  await openAccount(owner);
  assert.equal(await owner.getByRole('button', { name: 'Dark', exact: true }).getAttribute('aria-pressed'), 'true');
  await accessible('account menu in dark', owner);
  await click(owner, 'button', 'System');
  assert.equal(await owner.locator('html').getAttribute('data-theme'), null);
  assert.equal(await ground(), light);
}

async function workspaces() {
  await openAccount(owner);
  await click(owner, 'link', 'New workspace');
  await looksGood(owner, 'new workspace');
  await owner.getByLabel('Name').fill('Beta with a name that is longer than others');
  await click(owner, 'button', 'Make workspace');
  await owner.getByRole('heading', { name: 'API Keys' }).waitFor();
  await goTo(owner, 'Members');
  assert.equal(await owner.getByText(GUEST).count(), 0);
  const switcher = owner.locator('details.workspace > summary');
  await switcher.click();
  await accessible('workspace menu', owner);
  await click(owner, 'button', 'Acme & Sons');
  await owner.getByRole('heading', { name: 'API Keys' }).waitFor();
  await goTo(owner, 'Members');
  await owner.getByText(GUEST).waitFor();
  await looksGood(owner, 'members with two workspaces');
}

async function remove() {
  await click(owner, 'link', 'Leave');
  await click(owner, 'button', 'Leave workspace');
  await owner.getByText('A workspace always has an owner').waitFor();
  await looksGood(owner, 'last owner');
  await click(owner, 'link', 'Cancel');
  await click(owner, 'link', `Remove ${GUEST}`);
  await click(owner, 'button', 'Remove member');
  await owner.getByText('The member was removed.').waitFor();
  await owner.goto(`${UI_URL}/settings/delete`);
  await owner.getByLabel('Type the workspace’s name to confirm').fill('Acme');
  await click(owner, 'button', 'Delete workspace');
  await owner.getByText('nothing was deleted').waitFor();
  await looksGood(owner, 'delete workspace');
  await owner.getByLabel('Type the workspace’s name to confirm').fill('Acme & Sons');
  await click(owner, 'button', 'Delete workspace');
  await owner.getByRole('heading', { name: 'was deleted' }).waitFor();
  await looksGood(owner, 'workspace deleted');
  await click(owner, 'link', 'Go on');
  await owner.locator('p.workspace', { hasText: 'Beta' }).waitFor();
  refusalsWereMeant();
}

// In light and dark, wide and narrow.
async function looksGood(page, state) {
  await accessible(state, page);
  await fits(state, page);
}
