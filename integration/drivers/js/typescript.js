// The story over rethinkdb-ts: a pool, cursors that are read with for await.
'use strict';
const { r } = require('rethinkdb-ts');
const { whole } = require('./story');

async function main(port) {
  await r.connectPool({ servers: [{ host: '127.0.0.1', port }], buffer: 2, max: 10, silent: true });
  const run = (query, options) => query.run(options || {});
  await whole({
    r,
    run,
    cursor: (query, options) => query.getCursor(options || {}),
    rows: run,
    first: async (cursor, count) => {
      const read = [];
      for await (const row of cursor) {
        read.push(row);
        if (read.length === count) break;
      }
      await cursor.close();
      return read;
    },
    close: () => r.getPoolMaster().drain(),
    errorNames: { logic: 'ReqlLogicError', failed: 'ReqlOpFailedError', absent: 'ReqlNonExistanceError' },
  });
}

main(Number(process.argv[2])).catch((error) => {
  console.error(error);
  process.exit(1);
});
