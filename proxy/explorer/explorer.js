// The Data Explorer's page: takes a query, shows what comes as a table or as JSON, and remembers what was asked.
//
// One rule: nothing that comes from the database becomes HTML; texts are set as texts.
import { Connection, makeR } from './reql.js';

const BATCH_ROWS = 50, REMEMBERED = 50, COLUMNS = 40, FEED_ROWS = 200;
const $ = id => document.getElementById(id);
const connection = new Connection();
const r = makeR(await (await fetch('/explorer/terms.json')).json());
let shown = { rows: [], isAtom: false, token: 0, isPartial: false, tookMs: 0 };
let view = 'table';
let asking = 0;

const plain = value => {
  if (value === null || typeof value !== 'object') return value;
  if (Array.isArray(value)) return value.map(plain);
  if (value.$reql_type$ === 'TIME') return timeText(value);
  if (value.$reql_type$ === 'BINARY') return `<${Math.floor(value.data.length * 3 / 4)} bytes>`;
  if (value.$reql_type$ === 'GROUPED_DATA') return value.data.map(([group, reduction]) => plain({ group, reduction }));
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, plain(item)]));
};

function timeText({ epoch_time: seconds, timezone }) {
  const [, sign, hours, minutes] = /^([+-])(\d\d):(\d\d)$/.exec(timezone) ?? [, '+', '0', '0'];
  const offset = (sign === '-' ? -1 : 1) * (Number(hours) * 60 + Number(minutes)) * 60000;
  const date = new Date(seconds * 1000 + offset);
  return Number.isNaN(date.getTime()) ? `${seconds} s` : date.toISOString().replace('Z', timezone.replace('+00:00', 'Z'));
}

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

const cellText = value => typeof value === 'string' ? value : value === undefined ? '' : JSON.stringify(value);

function tableOf(rows) {
  const columns = [...new Set(rows.flatMap(row =>
    row !== null && typeof row === 'object' && !Array.isArray(row) ? Object.keys(row) : ['value']))].slice(0, COLUMNS);
  const table = element('table'), head = element('tr');
  head.append(...columns.map(column => element('th', column)));
  table.append(head);
  for (const row of rows) {
    const isObject = row !== null && typeof row === 'object' && !Array.isArray(row);
    const line = element('tr');
    for (const column of columns) {
      const text = cellText(isObject ? row[column] : column === 'value' ? row : undefined);
      const cell = element('td', text, 'cell');
      cell.title = text;
      line.append(cell);
    }
    table.append(line);
  }
  return table;
}

function draw() {
  const rows = shown.rows.map(plain);
  const single = shown.isAtom ? rows[0] : rows;
  const list = Array.isArray(single) ? single : [single];
  const result = $('result');
  result.replaceChildren(view === 'table' && list.length
    ? tableOf(list)
    : element('pre', JSON.stringify(single, null, 2)));
  for (const tab of document.querySelectorAll('.tab')) tab.setAttribute('aria-pressed', String(tab.dataset.view === view));
  $('tabs').hidden = false;
  const count = shown.isAtom && !Array.isArray(single) ? 'one value' : `${list.length} ${list.length === 1 ? 'row' : 'rows'}`;
  $('summary').textContent = `${count}${shown.isFeed ? ', waiting for changes' : shown.isPartial ? ', and more' : ''} in ${shown.tookMs.toFixed(1)} ms`;
  $('more').hidden = !shown.isPartial || shown.isFeed;
}

function fail(error) {
  const pre = element('pre', `${error.message}`, 'bad');
  $('result').replaceChildren(pre);
  $('tabs').hidden = true;
}

function remember(text) {
  const past = [text, ...JSON.parse(localStorage.getItem('past') ?? '[]').filter(each => each !== text)];
  localStorage.setItem('past', JSON.stringify(past.slice(0, REMEMBERED)));
  list();
}

function list() {
  const past = JSON.parse(localStorage.getItem('past') ?? '[]');
  $('past').replaceChildren(new Option('earlier queries', ''), ...past.map(text => new Option(text.slice(0, 80), text)));
}

async function waitFor(question) {
  const mine = ++asking;
  $('stop').hidden = false;
  const began = performance.now();
  try {
    const answer = await question();
    return mine === asking ? { ...answer, tookMs: performance.now() - began } : undefined;
  } catch (error) {
    if (mine === asking) fail(error);
    return undefined;
  } finally {
    if (mine === asking) $('stop').hidden = true;
  }
}

async function run() {
  const text = $('query').value.trim().replace(/;+$/, '').replace(/\.run\([^()]*\)$/, '');
  if (!text) return;
  if (shown.isPartial) connection.stop(shown.token).catch(() => undefined); // the old stream; it may have ended
  const answer = await waitFor(() => {
    const term = r.expr(new Function('r', `"use strict"; return (${text}\n);`)(r));
    remember(text);
    return connection.start(term, {
      db: r.db($('database').value).raw, time_format: 'raw', binary_format: 'raw', max_batch_rows: BATCH_ROWS,
    });
  });
  if (answer === undefined) return;
  shown = { ...answer, rows: answer.items };
  draw();
  while (shown.isFeed && shown.isPartial && shown.token === answer.token && await more());
}

async function more() {
  const answer = await waitFor(() => connection.next(shown.token));
  if (answer === undefined) return false;
  const rows = [...shown.rows, ...answer.items].slice(shown.isFeed ? -FEED_ROWS : 0);
  shown = { ...shown, isPartial: answer.isPartial, tookMs: answer.tookMs, rows };
  draw();
  return true;
}

async function stop() {
  asking += 1;
  $('stop').hidden = true;
  await connection.stop(connection.token).catch(fail);
  shown = { ...shown, isPartial: false, isFeed: false };
  if (shown.rows.length) draw();
}

$('ask').addEventListener('submit', event => { event.preventDefault(); run(); });
$('query').addEventListener('keydown', event => {
  if (event.key === 'Enter' && (event.ctrlKey || event.metaKey || event.shiftKey)) { event.preventDefault(); run(); }
});
$('more').addEventListener('click', more);
$('stop').addEventListener('click', stop);
$('past').addEventListener('change', event => {
  if (event.target.value) { $('query').value = event.target.value; event.target.value = ''; $('query').focus(); }
});
for (const tab of document.querySelectorAll('.tab')) {
  tab.addEventListener('click', () => { view = tab.dataset.view; draw(); });
}
addEventListener('pagehide', () => { connection.close().catch(() => undefined); });
list();
