// Usage pages beyond plain links and forms: panels that come later, bars to drag over, one call beside the log, rows as
// they come, files with progress. Every page works without it.

const head = document.querySelector('[data-usage]');
const path = head.dataset.usage;
const query = new URLSearchParams(head.dataset.query);
const zone = Intl.DateTimeFormat().resolvedOptions().timeZone || 'UTC';
const full = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'short' });
const number = new Intl.NumberFormat('en');

// Tells app.js that there is something new to show in the reader's zone.
function shown(element) {
  element.dispatchEvent(new CustomEvent('shown', { bubbles: true }));
}

async function load(address) {
  const answer = await fetch(address, { headers: { accept: 'text/html' } });
  if (answer.redirected || !answer.ok) throw new Error(`${answer.status}`);
  return new DOMParser().parseFromString(await answer.text(), 'text/html');
}

// Puts elements of another document in the place of those with the same ids; what somebody is in stays.
function replace(from, selector) {
  for (const fresh of from.querySelectorAll(selector)) {
    const old = document.getElementById(fresh.id);
    if (!old || old.contains(document.activeElement) || old.querySelector('details[open]')) continue;
    const ours = document.importNode(fresh, true);
    old.replaceWith(ours);
    shown(ours);
  }
}

// What reads single calls comes after the rest.
async function loadSlow() {
  if (!document.querySelector('[data-slow], .p95 .quiet')) return;
  try {
    replace(await load(`${path}/latency?${query}`), '#endpoints-panel, #latency-panel');
  } catch {
    document.querySelector('[data-slow]')?.replaceWith(Object.assign(document.createElement('p'),
      { className: 'blank-line', textContent: 'Not available now. Reload the page to ask again.' }));
  }
}

// Days are the reader's: the server learns the zone from a cookie.
async function tellZone() {
  if (head.dataset.zoneUsed === zone) return;
  const secure = location.protocol === 'https:' ? '; secure' : '';
  document.cookie = `keymeter_zone=${zone}; path=/; max-age=31536000; samesite=lax${secure}`;
  replace(await load(location.href), '#over-time');
}

// Bars: what they say, and a stretch of them as a period.
const bars = (svg) => [...svg.querySelectorAll('g[data-from]')];

function barAt(svg, event) {
  const box = svg.getBoundingClientRect();
  const all = bars(svg);
  return Math.min(all.length - 1, Math.max(0, Math.floor((event.clientX - box.left) / box.width * all.length)));
}

function say(svg, at) {
  const tip = svg.parentElement.querySelector('[data-tip]');
  const bar = bars(svg)[at];
  const [all, completed, failed, limited] = bar.dataset.numbers.split('|');
  tip.textContent = `${full.format(new Date(bar.dataset.from))}: ${all} requests, ${completed} completed, ${failed} failed, ${limited} rate limited`;
  tip.hidden = false;
  const width = svg.getBoundingClientRect().width;
  const middle = (at + 0.5) / bars(svg).length * width;
  tip.style.left = `${Math.min(Math.max(0, middle - tip.offsetWidth / 2), width - tip.offsetWidth)}px`;
}

function silence() {
  for (const tip of document.querySelectorAll('[data-tip]')) tip.hidden = true;
}

let chosen;
let isDragging = false;
function select(to) {
  const [left, right] = [Math.min(chosen.at, to), Math.max(chosen.at, to)];
  chosen.to = to;
  const selection = chosen.svg.querySelector('[data-selection]');
  selection.setAttribute('x', left);
  selection.setAttribute('width', right - left + 1);
}

function unselect(svg) {
  chosen = undefined;
  svg.querySelector('[data-selection]').setAttribute('width', 0);
  silence();
}

function openSelection() {
  const { svg, at, to } = chosen;
  const all = bars(svg);
  const period = new URLSearchParams(query);
  for (const name of ['range', 'at', 'page_token', 'latency']) period.delete(name);
  period.set('from', all[Math.min(at, to)].dataset.from);
  period.set('to', all[Math.max(at, to)].dataset.to);
  location.assign(`${path}?${period}`);
}

document.addEventListener('pointerdown', (event) => {
  const svg = event.target.closest('[data-brush]');
  if (!svg || event.button !== 0) return;
  isDragging = true;
  chosen = { svg, at: barAt(svg, event) };
  svg.setPointerCapture(event.pointerId);
  select(chosen.at);
});
document.addEventListener('pointermove', (event) => {
  const svg = isDragging ? chosen.svg : event.target.closest?.('[data-brush]');
  if (!svg) return document.activeElement.matches('[data-plot]') || silence();
  const at = barAt(svg, event);
  say(svg, at);
  if (isDragging) select(at);
});
document.addEventListener('pointerup', () => {
  if (isDragging) openSelection();
  isDragging = false;
});

// The same by keys: an arrow goes to the next bar, with Shift it takes that one along, Enter opens what was chosen.
function step(svg, by, isLonger) {
  const last = bars(svg).length - 1;
  const to = chosen ? Math.min(last, Math.max(0, chosen.to + by)) : (by > 0 ? 0 : last);
  if (!chosen || !isLonger) chosen = { svg, at: to };
  select(to);
  say(svg, to);
}

document.addEventListener('keydown', (event) => {
  const svg = event.target.closest('[data-plot]')?.querySelector('[data-brush]');
  const action = svg && {
    ArrowLeft: () => step(svg, -1, event.shiftKey),
    ArrowRight: () => step(svg, 1, event.shiftKey),
    Enter: () => chosen && openSelection(),
    Escape: () => unselect(svg),
  }[event.key];
  if (!action) return;
  event.preventDefault();
  action();
});
document.addEventListener('focusout', ({ target }) => {
  if (target.matches('[data-plot]') && !isDragging) unselect(target.querySelector('[data-brush]'));
});

// One call beside the log.
const drawer = document.getElementById('drawer');
async function openCall(link) {
  const place = drawer.querySelector('[data-drawer]');
  try {
    const call = (await load(link.href)).querySelector('[data-call]');
    place.replaceChildren(document.importNode(call, true));
    shown(place);
    if (!drawer.open) drawer.showModal();
    drawer.scrollTop = 0;
  } catch {
    location.assign(link.href);
  }
}

// Rows as they come.
const live = document.querySelector('[data-live]');
const state = document.querySelector('[data-live-state]');
const ROWS_MAX = 200;
const REFRESH_MS = 5000;
let source;
let timer;
let waiting = [];
let dropped = 0;
let isPaused = false;

function showState() {
  const news = waiting.length ? `, ${number.format(waiting.length)} new` : '';
  const left = dropped ? `; ${number.format(dropped)} more than the page can follow` : '';
  state.querySelector('[data-live-text]').textContent = (isPaused ? `Paused${news}` : 'Live') + left;
  state.querySelector('[data-pause]').textContent = isPaused ? 'Go on' : 'Pause';
  state.classList.toggle('paused', isPaused);
}

function addRows() {
  const body = document.querySelector('[data-rows]');
  if (!body) return;
  const known = new Set([...body.rows].map((row) => row.dataset.id));
  const rows = waiting.filter((row) => !known.has(row.dataset.id));
  waiting = [];
  if (!rows.length) return;
  body.closest('.scroll').hidden = false;
  document.querySelector('#log > .blank-line')?.remove();
  body.prepend(...rows);
  while (body.rows.length > ROWS_MAX) body.lastElementChild.remove();
  shown(body);
}

function hear({ data }) {
  const news = JSON.parse(data);
  dropped += news.dropped_count;
  const table = new DOMParser().parseFromString(`<table>${news.html}</table>`, 'text/html');
  const rows = [...table.querySelectorAll('tr')].map((row) => document.importNode(row, true));
  for (const row of rows) row.classList.add('fresh-row');
  waiting = [...rows, ...waiting].slice(0, ROWS_MAX);
  if (!isPaused) addRows();
  showState();
}

async function refresh() {
  if (document.hidden || isPaused) return;
  try {
    replace(await load(location.href), '[data-refresh]');
  } catch { /* The next round asks again. */ }
}

function follow(isOn) {
  live.setAttribute('aria-pressed', isOn);
  state.hidden = !isOn;
  isPaused = false;
  clearInterval(timer);
  source?.close();
  if (!isOn) return;
  const asked = new URLSearchParams(query);
  asked.set('since', head.dataset.rendered);
  source = new EventSource(`${path}/tail?${asked}`);
  source.addEventListener('message', hear);
  timer = setInterval(refresh, REFRESH_MS);
  showState();
}

// A file comes as any link's; how far it is comes beside it.
async function watchExport(link) {
  const name = crypto.randomUUID();
  const address = new URL(link.href);
  address.searchParams.set('export', name);
  const place = document.querySelector('[data-progress]');
  const bar = place.querySelector('progress');
  const text = place.querySelector('[data-progress-text]');
  place.hidden = false;
  bar.value = 0;
  text.textContent = 'Counting…';
  location.assign(address);
  for (let misses = 0; misses < 20;) {
    await new Promise((done) => { setTimeout(done, 400); });
    const answer = await fetch(`/exports/${name}`, { headers: { accept: 'application/json' } });
    if (!answer.ok) { misses += 1; continue; }
    const { row_count: rows, total_count: total, is_done: isDone, has_failed: hasFailed } = await answer.json();
    bar.value = total ? Math.min(1, rows / total) : 0;
    text.textContent = `${number.format(rows)} of ${number.format(total)}`;
    if (hasFailed) text.textContent = 'The export broke off; the file is not whole. Try again.';
    if (isDone) bar.value = 1;
    if (isDone || hasFailed) return;
  }
  place.hidden = true;
}

document.addEventListener('click', (event) => {
  const on = (selector) => event.target.closest?.(selector);
  const isPlain = event.button === 0 && !(event.metaKey || event.ctrlKey || event.shiftKey || event.altKey);
  if (on('[data-href]')) {
    location.assign(on('[data-href]').dataset.href);
  } else if (on('[data-request]') && isPlain) {
    event.preventDefault();
    openCall(on('[data-request]'));
  } else if (on('[data-live]')) {
    follow(live.getAttribute('aria-pressed') !== 'true');
  } else if (on('[data-pause]')) {
    isPaused = !isPaused;
    if (!isPaused) addRows();
    showState();
  } else if (on('[data-export]') && isPlain) {
    event.preventDefault();
    watchExport(on('[data-export]'));
  } else if (on('[data-up]')) {
    event.preventDefault();
    const line = on('[data-up]').parentElement;
    line.previousElementSibling?.matches('div') && line.previousElementSibling.before(line);
    on('[data-up]').focus();
  }
});

loadSlow();
tellZone().catch(() => {});
