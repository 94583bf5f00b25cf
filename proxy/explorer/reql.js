// ReQL as JavaScript writes it, and the connection that asks it over HTTP.
//
// One rule: the server's own table of terms says what there is. A name means the term of the same letters, so
// getAll, get_all and GET_ALL are one. A plain object as last argument is options where the term knows them all.

const VAR = 10, FUNC = 69, MAKE_ARRAY = 2, IMPLICIT_VAR = 13, FUNCALL = 64, BRACKET = 170;
const SYNONYMS = { do: 'funcall', js: 'javascript', tojson: 'tojsonstring', row: 'implicitvar' };
const BARE = new Set(['minval', 'maxval', 'row', 'monday', 'tuesday', 'wednesday', 'thursday', 'friday', 'saturday',
  'sunday', 'january', 'february', 'march', 'april', 'may', 'june', 'july', 'august', 'september', 'october',
  'november', 'december']);
// Where `r.row` makes a function of an argument, as RethinkDB's drivers do it.
const WRAPS = new Set(['filter', 'map', 'concatmap', 'update', 'replace', 'insert', 'merge', 'orderby', 'group', 'count',
  'sum', 'avg', 'min', 'max', 'contains', 'offsetsof', 'foreach', 'funcall', 'indexcreate', 'eqjoin', 'reduce', 'fold',
  'innerjoin', 'outerjoin', 'asc', 'desc', 'default', 'setwritehook']);
const FEEDS = new Set([1, 2, 3, 4]); // notes of an answer that say that it is a changefeed
const letters = name => String(name).toLowerCase().replaceAll('_', '');

/** The `r` to write queries with. terms: [[name, number, low, [option, ...]], ...] as /explorer/terms.json has it. */
export function makeR(terms) {
  const known = new Map(terms.map(([name, number, low, options]) =>
    [letters(name), { number, low, options: new Map(options.map(option => [letters(option), option])) }]));
  let variables = 0;
  const isTerm = value => typeof value === 'function' && value.raw !== undefined;

  function rawOf(value) {
    if (isTerm(value)) return value.raw;
    if (value === undefined) throw new Error('A query cannot hold `undefined`.');
    if (typeof value === 'function') return functionOf(value);
    if (value instanceof Date) {
      return { $reql_type$: 'TIME', epoch_time: value.getTime() / 1000, timezone: '+00:00' };
    }
    if (Array.isArray(value)) return [MAKE_ARRAY, value.map(rawOf)];
    if (value !== null && typeof value === 'object') {
      return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, rawOf(item)]));
    }
    return value;
  }

  function functionOf(write) {
    const numbers = Array.from({ length: Math.max(1, write.length) }, () => ++variables);
    const body = write(...numbers.map(number => wrap([VAR, [number]])));
    if (body === undefined) throw new Error('A function returns nothing. Does it lack a `return`?');
    return [FUNC, [[MAKE_ARRAY, numbers], rawOf(body)]];
  }

  function hasRow(raw) {
    if (raw === null || typeof raw !== 'object') return false;
    if (!Array.isArray(raw)) return Object.values(raw).some(hasRow);
    if (raw[0] === IMPLICIT_VAR) return true;
    return raw[0] !== FUNC && raw.slice(1).some(part =>
      Array.isArray(part) ? part.some(hasRow) : hasRow(part));
  }

  function call(name, self, given) {
    const term = SYNONYMS[letters(name)] ?? letters(name);
    const spec = known.get(term);
    if (spec === undefined) throw new TypeError(`ReQL has no term \`${String(name)}\`.`);
    const args = [...given];
    let options;
    const last = args.at(-1);
    const count = args.length + (self === undefined ? 0 : 1);
    if (count > spec.low && last !== null && typeof last === 'object' && Object.getPrototypeOf(last) === Object.prototype) {
      const names = Object.keys(last).map(letters);
      if (names.length && names.every(option => spec.options.has(option))) {
        args.pop();
        options = Object.fromEntries(Object.entries(last).map(([key, value]) =>
          [spec.options.get(letters(key)), rawOf(value)]));
      }
    }
    let raws = args.map(rawOf);
    if (WRAPS.has(term)) raws = raws.map(raw => hasRow(raw) ? [FUNC, [[MAKE_ARRAY, [++variables]], raw]] : raw);
    if (self !== undefined) raws.unshift(self);
    if (spec.number === FUNCALL) raws.unshift(raws.pop());
    return wrap(options ? [spec.number, raws, options] : [spec.number, raws]);
  }

  function wrap(raw) {
    const term = () => undefined;
    term.raw = raw;
    return new Proxy(term, {
      get(target, name) {
        if (name === 'raw') return raw;
        if (typeof name === 'symbol' || name === 'then') return undefined;
        return (...args) => call(name, raw, args);
      },
      apply: (target, self, args) => wrap([BRACKET, [raw, ...args.map(rawOf)]]),
    });
  }

  const r = value => wrap(rawOf(value));
  return new Proxy(r, {
    get(target, name) {
      if (typeof name === 'symbol' || name === 'then') return undefined;
      if (name === 'expr') return r;
      if (BARE.has(letters(name))) return call(name, undefined, []);
      return (...args) => call(name, undefined, args);
    },
  });
}

/** What the server answered instead of a result. */
export class QueryError extends Error {}

/** A connection over HTTP. `base` is the server's address, "" on its own pages. */
export class Connection {
  constructor(base = '', headers = {}) {
    this.base = base;
    this.headers = headers;
    this.token = 0;
    this.id = undefined;
  }

  /** The first answer: {token, items, isPartial, isAtom, isFeed}. options: of the whole query, such as {max_batch_rows: 50}. */
  start(term, options) {
    this.token += 1;
    return this.#ask(this.token, [1, term.raw, options]);
  }

  /** More of a stream. */
  next(token) { return this.#ask(token, [2]); }

  /** Ends a stream. */
  stop(token) { return this.#ask(token, [3]); }

  /** Ends the connection and all that is open on it. */
  async close() {
    const id = this.id;
    this.id = undefined;
    if (id !== undefined) await this.#post(`close-connection?conn_id=${encodeURIComponent(id)}`, undefined, true);
  }

  async #post(path, body, keepalive = false) {
    const how = { method: 'POST', body, headers: this.headers, keepalive };
    const answer = await fetch(`${this.base}/ajax/reql/${path}`, how);
    if (!answer.ok) throw new QueryError(`The server says: ${(await answer.text()).trim()}`);
    return answer;
  }

  async #ask(token, query) {
    this.id ??= await (await this.#post('open-new-connection')).text();
    const text = new TextEncoder().encode(JSON.stringify(query));
    const body = new Uint8Array(8 + text.length);
    new DataView(body.buffer).setBigUint64(0, BigInt(token), true);
    body.set(text, 8);
    const answer = await this.#post(`?conn_id=${encodeURIComponent(this.id)}`, body);
    const frame = new Uint8Array(await answer.arrayBuffer());
    const { t: kind, r: items, b: path, n: notes = [] } = JSON.parse(new TextDecoder().decode(frame.subarray(12)));
    if (kind >= 16) {
      if (items[0] === 'This HTTP connection is not open.') this.id = undefined;
      throw Object.assign(new QueryError(items[0]), { path });
    }
    return { token, items, isAtom: kind === 1, isPartial: kind === 3, isFeed: notes.some(note => FEEDS.has(note)) };
  }
}
