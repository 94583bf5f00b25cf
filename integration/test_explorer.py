"""The Data Explorer's own ReQL, run by node: it says what drivers say, and brings answers back over the web port."""

import base64
import json
import re
import subprocess
import urllib.request
from pathlib import Path

import pytest
from rethinkdb import r

REQL = Path(__file__).parents[1] / "proxy/explorer/reql.js"

ASK = """
const { makeR, Connection } = await import(process.argv[1]);
const base = process.argv[2];
const r = makeR(await (await fetch(base + '/explorer/terms.json')).json());
const connection = new Connection(base);
const found = [];
for (const text of JSON.parse(process.argv[3])) {
  try {
    const term = r.expr(new Function('r', `return (${text});`)(r));
    let { items, isAtom, isPartial, token } = await connection.start(term, { db: r.db('test').raw, max_batch_rows: 3 });
    while (isPartial) {
      const more = await connection.next(token);
      items = [...items, ...more.items];
      isPartial = more.isPartial;
    }
    found.push(isAtom ? items[0] : items);
  } catch (error) {
    found.push(`${error.constructor.name}: ${error.message}`);
  }
}
await connection.close();
console.log(JSON.stringify(found));
"""


@pytest.fixture
def explore(server):
    port = re.search(r"administrative HTTP connections on port (\d+)", server.output)[1]
    module = "data:text/javascript;base64," + base64.b64encode(REQL.read_bytes()).decode()

    def explore(*queries):
        command = ["node", "--input-type=module", "-e", ASK, module, f"http://127.0.0.1:{port}", json.dumps(queries)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    explore.base = f"http://127.0.0.1:{port}"
    return explore


def test_queries_as_javascript_writes_them(conn, explore):
    r.table_create("people").run(conn)
    r.table("people").insert([{"id": n, "age": 20 + n, "name": f"P{n}", "on": n % 2 == 0} for n in range(10)]).run(conn)
    r.table("people").index_create("age").run(conn)
    r.table("people").index_wait().run(conn)
    asked = {
        "r.dbList().contains('test')": True,
        "r.expr([1, 2, 3]).map(x => x.mul(2)).sum()": 12,
        "r.table('people').filter(r.row('age').gt(27)).count()": 2,
        "r.table('people').filter({on: true}).count()": 5,
        "r.table('people').filter({gone: 1}, {default: true}).count()": 10,
        "r.table('people').orderBy({index: r.desc('age')}).limit(4)('id')": [9, 8, 7, 6],
        "r.table('people').orderBy(r.desc('id')).pluck('id').nth(0)": {"id": 9},
        "r.table('people').getAll(21, 25, {index: 'age'}).count()": 2,
        "r.table('people').get_all(21, {index: 'age'})('name').nth(0)": "P1",
        "r.table('people').between(25, r.maxval, {index: 'age', leftBound: 'open'}).count()": 4,
        "r.table('people').get(1).do(p => p('age').add(1))": 22,
        "r.do(1, 2, (a, b) => a.add(b))": 3,
        "r.branch(r.expr(1).eq(1), 'yes', 'no')": "yes",
        "r.table('people').get(2).update({age: r.row('age').add(100)}, {returnChanges: true})('changes')(0)('new_val')"
        "('age')": 122,
        "r.expr({a: [1, {b: null}]}).merge({c: 1})": {"a": [1, {"b": None}], "c": 1},
        "r.expr(new Date(0)).year()": 1970,
        "r.ISO8601('2026-03-01T12:00:00Z').toEpochTime()": 1772366400,
        "r.monday": 1,
        "r.range(8).reduce((a, b) => a.add(b))": 28,
        "r.table('people').eqJoin('id', r.table('people')).zip().count()": 10,
        "r.table('people').group('on').count().ungroup()": [
            {"group": False, "reduction": 5},
            {"group": True, "reduction": 5},
        ],
        "r.expr([3, 1, 2]).orderBy(x => x)": [1, 2, 3],
        "r.now().typeOf()": "PTYPE<TIME>",
    }
    assert dict(zip(asked, explore(*asked), strict=True)) == asked


def test_what_is_wrong_is_said(conn, explore):
    found = explore("r.table('nobody')", "r.tabel('x')", "r.expr(1).add('a')", "r.expr([1]).map(x => undefined)")
    assert found[0] == "QueryError: Table `test.nobody` does not exist."
    assert found[1] == "TypeError: ReQL has no term `tabel`."
    assert found[2] == "QueryError: Expected type NUMBER but found STRING."
    assert "return" in found[3]


def test_the_pages_load_nothing_from_elsewhere(explore):
    for path in ("/", "/explorer"):
        with urllib.request.urlopen(explore.base + path, timeout=10) as answer:
            text = answer.read().decode()
            assert "default-src 'none'" in answer.headers["content-security-policy"]
        for link in re.findall(r'(?:src|href)="([^"]+)"', text):
            assert link.startswith("/")
            with urllib.request.urlopen(explore.base + link, timeout=10) as answer:
                assert answer.status == 200
