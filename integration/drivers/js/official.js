// The story over the driver `rethinkdb`, then what only it does: reconnect, noreply, callbacks.
'use strict';
const assert = require('assert');
const r = require('rethinkdb');
const { whole } = require('./story');

async function main(port) {
  const conn = await r.connect({ host: '127.0.0.1', port });
  const run = (query, options) => query.run(conn, options || {});
  await run(r.dbCreate('official'));
  await run(r.db('official').tableCreate('t'));
  const table = r.db('official').table('t');
  for (let n = 0; n < 100; n += 1) await run(table.insert({ id: n }, { durability: 'soft' }), { noreply: true });
  await conn.noreplyWait();
  assert.equal(await run(table.count()), 100);
  await conn.reconnect();
  assert.equal(await run(table.count()), 100);
  assert.equal((await conn.server()).proxy, false);
  await new Promise((resolve, reject) => {
    table.get(1).run(conn, (error, row) => (error ? reject(error) : resolve(assert.deepEqual(row, { id: 1 }))));
  });
  await new Promise((resolve, reject) => {
    let seen = 0;
    table.run(conn, (failed, cursor) =>
      cursor.each(
        (error) => (error ? reject(error) : (seen += 1)),
        () => resolve(assert.equal(seen, 100)),
      ),
    );
  });
  await run(r.dbDrop('official'));
  await whole({
    r,
    run,
    cursor: run,
    rows: async (query) => {
      const answer = await run(query);
      return Array.isArray(answer) ? answer : answer.toArray();
    },
    first: async (cursor, count) => {
      const read = [];
      while (read.length < count) read.push(await cursor.next());
      await cursor.close();
      return read;
    },
    close: () => conn.close(),
    errorNames: { logic: 'ReqlQueryLogicError', failed: 'ReqlOpFailedError', absent: 'ReqlNonExistenceError' },
  });
}

main(Number(process.argv[2])).catch((error) => {
  console.error(error);
  process.exit(1);
});
