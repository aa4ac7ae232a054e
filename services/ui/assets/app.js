// What plain links and forms can not do: times in the reader's zone, the clipboard, dialogs. Every page works
// without it. Never writes a secret into a page.

const zone = Intl.DateTimeFormat().resolvedOptions().timeZone || 'UTC';
const format = (options) => new Intl.DateTimeFormat(undefined, options);
const full = format({ dateStyle: 'medium', timeStyle: 'medium' });
const day = format({ dateStyle: 'medium' });
const clock = format({ timeStyle: 'medium' });
const tickTime = format({ hour: '2-digit', minute: '2-digit' });
const tickDay = format({ day: 'numeric', month: 'short' });
const ago = new Intl.RelativeTimeFormat('en', { numeric: 'auto' });

function relative(at) {
  const seconds = (at - Date.now()) / 1000;
  if (seconds > -10) return 'just now';
  const units = [['year', 31536000], ['month', 2592000], ['day', 86400], ['hour', 3600], ['minute', 60], ['second', 1]];
  const [unit, length] = units.find(([, length]) => -seconds >= length);
  return ago.format(Math.ceil(seconds / length), unit);
}

function localise(time) {
  const at = new Date(time.dateTime);
  const today = at.toDateString() === new Date().toDateString();
  const shown = { full: () => full.format(at), day: () => day.format(at), relative: () => relative(at),
    clock: () => (today ? clock : full).format(at), 'tick-time': () => tickTime.format(at),
    'tick-day': () => tickDay.format(at) }[time.dataset.show];
  time.textContent = shown();
  const exact = time.dateTime.replace('T', ' ').replace('Z', ' UTC');
  time.title = time.dataset.show === 'full' ? exact : `${full.format(at)} (${zone}), ${exact}`;
}

function localiseAll(root) {
  for (const time of root.querySelectorAll('time[data-show]')) localise(time);
  for (const label of root.querySelectorAll('[data-zone]')) label.textContent = zone.replaceAll('_', ' ');
}

localiseAll(document);
// Something came into the page later.
document.addEventListener('shown', ({ target }) => localiseAll(target));
setInterval(() => document.querySelectorAll('time[data-show=relative]').forEach(localise), 30000);

// Dates are typed in the reader's zone and sent in UTC; fields that say nothing stay out of the address.
function localInput(at) {
  const local = new Date(at.getTime() - at.getTimezoneOffset() * 60000);
  return local.toISOString().slice(0, 19);
}

const filters = document.querySelector('[data-filters]');
if (filters) {
  const untouched = new Map();
  for (const name of ['from', 'to']) {
    const input = filters.elements[name];
    const at = new Date(input.dataset.utc || `${input.value}Z`);
    if (Number.isNaN(at.getTime())) continue;
    input.value = localInput(at);
    untouched.set(name, [input.value, at]);
  }
  filters.addEventListener('formdata', ({ formData }) => {
    const custom = formData.get('range') === 'custom';
    for (const name of ['from', 'to']) {
      const [before, exact] = untouched.get(name) ?? [];
      const typed = formData.get(name);
      const at = typed === before ? exact : new Date(typed);
      if (!custom) formData.delete(name);
      else if (typed && !Number.isNaN(at.getTime())) formData.set(name, at.toISOString());
    }
    if (formData.get('key_id') === filters.dataset.filters) formData.delete('key_id');
    for (const name of ['status_code', 'route', 'resource_id']) if (!formData.get(name)) formData.delete(name);
  });
}

const toast = document.getElementById('toast');
let hide;
function say(text, bad = false) {
  toast.textContent = text;
  toast.classList.toggle('bad', bad);
  toast.classList.add('shown');
  clearTimeout(hide);
  hide = setTimeout(() => toast.classList.remove('shown'), bad ? 8000 : 2500);
}

async function reveal(address, password) {
  const form = password === undefined ? undefined : new URLSearchParams({ password });
  const answer = await fetch(address, { method: 'POST', headers: { accept: 'application/json' }, body: form });
  const body = await answer.json();
  if (answer.ok) return body.secret;
  const known = body.reason === 'WRONG_PASSWORD' ? '' : ` Reference: ${body.reference}`;
  throw Object.assign(new Error(body.text + known), { reason: body.reason });
}

// The text may still be on its way: browsers want the write to begin with the click. Returns why it failed.
async function copy(button, text) {
  if (!navigator.clipboard) return new Error('This browser copies only on pages from https or this computer.');
  const blob = text.then((text) => new Blob([text], { type: 'text/plain' }));
  blob.catch(() => {});
  try {
    await navigator.clipboard.write([new ClipboardItem({ 'text/plain': blob })]);
    say('Copied');
    button.classList.add('copied');
    setTimeout(() => button.classList.remove('copied'), 2500);
  } catch {
    return text.then(() => new Error('The browser did not allow copying.'), (error) => error);
  }
}

async function copyKey(button) {
  const problem = await copy(button, reveal(button.dataset.copyKey));
  if (problem?.reason === 'REAUTHENTICATION_REQUIRED') askPassword(button);
  else if (problem) say(problem.message, true);
}

async function copyText(button) {
  const text = document.getElementById(button.dataset.copyText).textContent;
  const problem = await copy(button, Promise.resolve(text));
  if (problem) say(problem.message, true);
}

// What is typed goes to the server and nowhere else.
function askPassword(button) {
  const dialog = document.getElementById('password');
  const form = dialog.querySelector('form');
  // Whoever has signed in at the provider goes there.
  if (!form) return dialog.showModal();
  const place = dialog.querySelector('[data-problem]');
  place.hidden = true;
  form.onsubmit = async (event) => {
    event.preventDefault();
    const password = form.elements.password.value;
    form.reset();
    const problem = await copy(button, reveal(button.dataset.copyKey, password));
    place.hidden = !problem;
    place.textContent = problem?.message ?? '';
    if (!problem) dialog.close();
  };
  dialog.showModal();
}

function open(dialog, link) {
  for (const place of dialog.querySelectorAll('[data-fill]')) place.textContent = link.dataset[place.dataset.fill];
  const form = dialog.querySelector('form');
  if (!form.hasAttribute('action') || link.dataset.name) form.action = link.href;
  dialog.showModal();
}

document.addEventListener('click', (event) => {
  const on = (selector) => event.target.closest(selector);
  const opener = on('[data-dialog]');
  const dialog = opener && document.getElementById(opener.dataset.dialog);
  const plain = event.button === 0 && !(event.metaKey || event.ctrlKey || event.shiftKey || event.altKey);
  if (dialog && plain) {
    event.preventDefault();
    open(dialog, opener);
  } else if (on('[data-close]') || event.target instanceof HTMLDialogElement) {
    event.target.closest('dialog').close();
  } else if (on('[data-copy-key]')) {
    copyKey(on('[data-copy-key]'));
  } else if (on('[data-copy-text]')) {
    copyText(on('[data-copy-text]'));
  }
  for (const menu of document.querySelectorAll('[data-menu][open]')) if (!menu.contains(event.target)) menu.open = false;
});

document.addEventListener('keydown', (event) => {
  const menu = event.key === 'Escape' && document.querySelector('[data-menu][open]');
  if (!menu) return;
  menu.open = false;
  menu.querySelector('summary').focus();
});
