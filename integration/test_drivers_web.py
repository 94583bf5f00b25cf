"""The web port of a real server as the Data Explorer uses it, but with a login."""

import json
import re
import struct

import requests

LISTENING = re.compile(r"Listening for administrative HTTP connections on port (\d+)$")
FEED = [152, [[15, [[14, ["test"]], "t"]]]]  # r.db("test").table("t").changes()


def url_of(server):
    found = [match for match in map(LISTENING.match, server.lines) if match]
    return f"http://127.0.0.1:{found[-1][1]}/ajax/reql/"


class Explorer:
    """A connection as the Data Explorer keeps one."""

    def __init__(self, server, **options):
        self.url = url_of(server)
        self.options = {"timeout": 60, **options}
        answer = requests.post(self.url + "open-new-connection", **self.options)
        answer.raise_for_status()
        self.id = answer.text

    def ask(self, token, *query):
        body = struct.pack("<Q", token) + json.dumps(query).encode()
        answer = requests.post(self.url, params={"conn_id": self.id}, data=body, **self.options)
        answer.raise_for_status()
        told, length = struct.unpack("<QL", answer.content[:12])
        assert (told, length) == (token, len(answer.content) - 12)
        return json.loads(answer.content[12:])

    def close(self):
        requests.post(self.url + "close-connection", params={"conn_id": self.id}, **self.options).raise_for_status()


def test_explorer(server):
    explorer = Explorer(server)
    table = [15, ["t"]]
    assert explorer.ask(1, 1, [60, ["t"]], {"db": [14, ["test"]]})["r"][0]["tables_created"] == 1
    rows = [2, [{"id": n} for n in range(100)]]
    assert explorer.ask(2, 1, [56, [table, rows]], {"db": [14, ["test"]]})["r"][0]["inserted"] == 100
    page = explorer.ask(3, 1, table, {"max_batch_rows": 40})
    count = len(page["r"])
    while page["t"] == 3:
        page = explorer.ask(3, 2)
        count += len(page["r"])
    assert (page["t"], count) == (2, 100)
    assert explorer.ask(4, 1, [24, ["a", 1]]) == {
        "t": 18,
        "e": 3000000,
        "r": ["Expected type STRING but found NUMBER."],
        "b": [],
    }
    feed = explorer.ask(5, 1, FEED)
    assert (feed["t"], feed["r"], feed["n"]) == (3, [], [1])
    explorer.ask(6, 1, [56, [table, {"id": "new"}]])
    assert explorer.ask(5, 2)["r"] == [{"new_val": {"id": "new"}, "old_val": None}]
    assert explorer.ask(5, 3)["t"] == 2
    explorer.close()
    assert explorer.ask(7, 1, 1)["t"] == 16


def test_a_password_is_asked_for_once_admin_has_one(start):
    server = start()
    admin = Explorer(server)
    users = [16, [[15, [[14, ["rethinkdb"]], "users"]], "admin"]]
    assert admin.ask(1, 1, [53, [users, {"password": "s3cret"}]])["r"][0]["replaced"] == 1
    for auth in (None, ("admin", ""), ("admin", "wrong"), ("nobody", "s3cret")):
        answer = requests.post(url_of(server) + "open-new-connection", auth=auth, timeout=60)
        assert answer.status_code == 401, auth
    explorer = Explorer(server, auth=("admin", "s3cret"))
    assert explorer.ask(1, 1, [24, [1, 2]])["r"] == [3]
    foreign = {"Origin": "http://elsewhere.example"}
    answer = requests.post(
        url_of(server) + "open-new-connection", auth=("admin", "s3cret"), headers=foreign, timeout=60
    )
    assert answer.status_code == 403
