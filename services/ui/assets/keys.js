// What forms and links of the key pages can not do by themselves: more rows for limits, short addresses, numbers
// that stay current. Every page works without it. Never sees a secret.

const LIMITS_MAX = 10;
const LIVE_EVERY_MS = 5000;

// Blank fields of a search stay out of the address.
for (const form of document.querySelectorAll('[data-leave-out-blanks]')) {
  form.addEventListener('formdata', ({ formData }) => {
    for (const [name, value] of [...formData]) if (!value) formData.delete(name);
  });
}

// What was typed to confirm one deletion must not stand there for the next.
for (const form of document.querySelectorAll('[data-forget]')) {
  form.closest('dialog').addEventListener('close', () => form.reset());
}

const limits = document.querySelector('[data-limits]');
const add = limits?.querySelector('[data-add-limit]');
const rows = () => [...limits.querySelectorAll('[data-limit]')];

function addLimit() {
  const last = rows().at(-1);
  const row = last.cloneNode(true);
  const number = rows().length + 1;
  row.setAttribute('aria-label', `Limit ${number}`);
  for (const error of row.querySelectorAll('.error')) error.remove();
  for (const input of row.querySelectorAll('input, select')) {
    input.setAttribute('aria-label', input.getAttribute('aria-label').replace(/\d+/, number));
    input.removeAttribute('aria-invalid');
    if (input instanceof HTMLInputElement) input.value = '';
  }
  last.after(row);
  add.hidden = number >= LIMITS_MAX;
  row.querySelector('input').focus();
}

if (add) {
  add.hidden = rows().length >= LIMITS_MAX;
  add.addEventListener('click', addLimit);
}

// The same page again, of which only the numbers are taken. It rests while nobody looks.
async function refresh(place) {
  if (document.hidden) return;
  const answer = await fetch(location.href, { headers: { accept: 'text/html' } }).catch(() => undefined);
  if (!answer?.ok || answer.redirected) return;
  const text = await answer.text().catch(() => '');
  const fresh = new DOMParser().parseFromString(text, 'text/html').querySelector(`[data-live="${place.dataset.live}"]`);
  if (fresh) place.replaceChildren(...fresh.childNodes);
}

for (const place of document.querySelectorAll('[data-live]')) setInterval(refresh, LIVE_EVERY_MS, place);
