// What a small program does with a server, told once for every driver of npm.
//
// One rule: the story knows no driver. A teller has { r, run(query, options), rows(query), first(cursor, count),
// feed(query), close() }; the drivers differ in how they run queries and read cursors, not in ReQL.
'use strict';
const assert = require('assert');

const ROWS = 1500; // several batches

async function whole(teller) {
  const { r } = teller;
  await teller.run(r.dbCreate('story'));
  const tales = r.db('story').table('tales');
  assert.equal((await teller.run(r.db('story').tableCreate('tales'))).tables_created, 1);
  await rows(teller, tales);
  await kinds(teller, tales);
  await errors(teller, tales);
  await feeds(teller, tales);
  await together(teller, tales);
  await teller.run(r.dbDrop('story'));
  await teller.close();
}

async function rows(teller, tales) {
  const { r, run } = teller;
  const given = Array.from({ length: ROWS }, (_, n) => ({ id: n, group: n % 7, text: 'x'.repeat(n % 300) }));
  assert.equal((await run(tales.insert(given))).inserted, ROWS);
  assert.equal((await teller.rows(tales)).length, ROWS);
  assert.equal((await run(tales.get(3))).group, 3);
  assert.equal(await run(tales.get(-1)), null);
  const done = await run(tales.get(3).update({ group: r.row('group').add(100) }, { returnChanges: true }));
  assert.equal(done.changes[0].new_val.group, 103);
  await run(tales.get(3).replace({ id: 3, group: 3 }));
  await run(tales.indexCreate('group'));
  assert.equal((await run(tales.indexWait('group')))[0].ready, true);
  assert.equal((await teller.rows(tales.getAll(3, { index: 'group' }))).length, 214);
  assert.deepEqual(await teller.rows(tales.orderBy({ index: r.desc('id') }).limit(2)('id')), [ROWS - 1, ROWS - 2]);
  assert.equal((await run(tales.group('group').count())).reduce((sum, group) => sum + group.reduction, 0), ROWS);
  const left = await teller.first(await teller.cursor(tales.orderBy({ index: 'id' }), { maxBatchRows: 20 }), 60);
  assert.deepEqual(left.map((row) => row.id), Array.from({ length: 60 }, (_, n) => n));
  const big = 'y'.repeat(3000000);
  await run(tales.insert({ id: 'big', text: big }));
  assert.equal(await run(tales.get('big')('text')), big);
  await run(tales.get('big').delete());
}

async function kinds(teller, tales) {
  const { r, run } = teller;
  const moment = new Date(Date.UTC(2026, 1, 3, 4, 5, 6, 789));
  const row = { id: 'kinds', time: moment, bytes: Buffer.from([0, 255, 10]), none: null, deep: { list: [1, 2.5, 'three', true] } };
  await run(tales.insert(row));
  assert.deepEqual(await run(tales.get('kinds')), row);
  const raw = await run(tales.get('kinds'), { timeFormat: 'raw', binaryFormat: 'raw' });
  assert.deepEqual(raw.time, { $reql_type$: 'TIME', epoch_time: 1770091506.789, timezone: '+00:00' });
  assert.deepEqual(raw.bytes, { $reql_type$: 'BINARY', data: 'AP8K' });
  assert.deepEqual((await run(r.point(-122.4, 37.8))).coordinates, [-122.4, 37.8]);
  await run(tales.get('kinds').delete());
}

async function errors(teller, tales) {
  const { r, run } = teller;
  const refused = (query, name, words) =>
    assert.rejects(run(query), (error) => {
      assert.equal(error.msg, words);
      assert.equal(error.name, name);
      return true;
    });
  const names = teller.errorNames;
  await refused(r.expr('a').add(1), names.logic, 'Expected type STRING but found NUMBER.');
  await refused(r.db('story').table('none'), names.failed, 'Table `story.none` does not exist.');
  await assert.rejects(run(tales.get(1)('missing')), (error) => error.name === names.absent);
  assert.match((await run(tales.insert({ id: 1 }))).first_error, /^Duplicate primary key `id`:/);
  assert.equal(await run(r.expr(1)), 1);
}

async function feeds(teller, tales) {
  const { r, run } = teller;
  let cursor = await teller.cursor(tales.filter(r.row.hasFields('n')).changes());
  for (let n = 0; n < 5; n += 1) await run(tales.insert({ id: `feed ${n}`, n }));
  await run(tales.get('feed 0').delete());
  const changes = await teller.first(cursor, 6);
  assert.deepEqual(changes.map((change) => change.new_val && change.new_val.n), [0, 1, 2, 3, 4, null]);
  cursor = await teller.cursor(tales.get('feed 1').changes({ includeInitial: true }));
  await run(tales.get('feed 1').update({ n: 9 }));
  const states = await teller.first(cursor, 2);
  assert.deepEqual(states[0], { new_val: { id: 'feed 1', n: 1 } });
  assert.equal(states[1].new_val.n, 9);
}

async function together(teller, tales) {
  const { run } = teller;
  const answers = await Promise.all(Array.from({ length: 200 }, (_, n) => run(tales.get(n)('id'))));
  assert.deepEqual(answers, Array.from({ length: 200 }, (_, n) => n));
}

module.exports = { whole };
