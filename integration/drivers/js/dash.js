// The story over rethinkdbdash: a pool of connections, cursors as promises, rows as a stream.
'use strict';
const assert = require('assert');

async function main(port) {
  const r = require('rethinkdbdash')({ host: '127.0.0.1', port, buffer: 2, max: 10, silent: true });
  const { whole } = require('./story');
  const run = (query, options) => query.run(options || {});
  await run(r.dbCreate('dash'));
  await run(r.db('dash').tableCreate('t'));
  await run(r.db('dash').table('t').insert(Array.from({ length: 500 }, (_, id) => ({ id }))));
  let seen = 0;
  await new Promise((resolve, reject) => {
    const stream = r.db('dash').table('t').toStream();
    stream.on('data', () => (seen += 1));
    stream.on('error', reject);
    stream.on('end', resolve);
  });
  assert.equal(seen, 500);
  await run(r.dbDrop('dash'));
  await whole({
    r,
    run,
    cursor: (query, options) => query.run({ cursor: true, ...options }),
    rows: run,
    first: async (cursor, count) => {
      const read = [];
      while (read.length < count) read.push(await cursor.next());
      await cursor.close();
      return read;
    },
    close: () => r.getPoolMaster().drain(),
    errorNames: { logic: 'ReqlLogicError', failed: 'ReqlOpFailedError', absent: 'ReqlRuntimeError' },
  });
}

main(Number(process.argv[2])).catch((error) => {
  console.error(error);
  process.exit(1);
});
