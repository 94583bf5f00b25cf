"""`r.http` up to its port: what is asked for, what comes of responses, pages, errors."""

from __future__ import annotations

import pytest
from rethinkdb import r

from proxy.reql.web import Login, WebFailure, WebResponse

URL = "http://example.org/x"
JSON = "application/json"


class Web:
    """The port: answers from a table of URLs, and what was asked for."""

    def __init__(self):
        self.asked = []
        self.pages = {}
        self.failure = None

    def put(self, url, body, kind="text/plain", status=200, header=(), cookies=()):
        self.pages[url] = WebResponse(status, [("Content-Type", kind), *header], body, kind, cookies)

    def fetch(self, env, request):
        self.asked.append(request)
        if self.failure is not None:
            raise self.failure
        return self.pages[request.url]


@pytest.fixture
def web(world):
    world.http = Web()
    world.http.put(URL, b"text")
    return world.http


@pytest.mark.parametrize(
    ("optargs", "expected"),
    [
        ({}, {"method": "GET", "header": [], "body": None, "login": None, "attempts": 5, "redirects": 1}),
        ({"timeout": 1.5, "attempts": -1, "redirects": 3}, {"timeout_ms": 1500, "attempts": 2**64 - 1, "redirects": 3}),
        ({"timeout": 1e9, "verify": False}, {"timeout_ms": 2_592_000_000, "verify": False}),
        ({"method": "POST", "data": {"b": "d e", "a": 1.5, "c": None}}, {"body": b"a=1.5&b=d%20e&c="}),
        ({"method": "POST", "data": "as is"}, {"body": b"as is", "header": []}),
        (
            {"method": "PUT", "data": {"a": 1}},
            {"body": b'{\n\t"a":\t1\n}', "header": ["Content-Type: application/json"]},
        ),
        ({"header": {"B": "2", "A": "1", "N": None}}, {"header": ["A: 1", "B: 2"]}),
        ({"header": ["A: 1"]}, {"header": ["A: 1"]}),
        ({"auth": {"user": "u", "pass": "p"}}, {"login": Login("basic", "u", "p")}),
        ({"auth": {"type": "digest", "user": "u", "pass": "p"}}, {"login": Login("digest", "u", "p")}),
    ],
)
def test_requests(web, run, optargs, expected):
    assert run(r.http(URL, **optargs)) == "text"
    assert {name: getattr(web.asked[0], name) for name in expected} == expected


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("example.org", "example.org/?a=1&b=x%20y"),
        ("http://example.org/page", "http://example.org/page?a=1&b=x%20y"),
        ("http://example.org/page?id=0", "http://example.org/page?id=0&a=1&b=x%20y"),
        ("http://example.org/page?id=0/page", "http://example.org/page?id=0/page?a=1&b=x%20y"),
    ],
)
def test_parameters_go_behind_those_of_the_url(web, run, url, asked):
    web.put(asked, b"found")
    assert run(r.http(url, params={"a": 1, "b": "x y"})) == "found"


@pytest.mark.parametrize(
    ("kind", "body", "form", "value"),
    [
        (JSON, b'{"a": [1]}', "auto", {"a": [1]}),
        ("Application/JSON; charset=utf-8", b"1", "auto", 1),
        ("text/plain", b"1", "auto", "1"),
        ("text/plain", b"\xff", "auto", "�"),
        ("image/png", b"\x00", "auto", {"$reql_type$": "BINARY", "data": "AA=="}),
        ("text/javascript", b"[1]", "auto", [1]),
        ("text/javascript", b"call([1]);", "auto", [1]),
        ("text/javascript", b"neither", "auto", "neither"),
        ("text/plain", b"[1]", "json", [1]),
        ("text/plain", b' a.b ( {"x": "\n)"} ) ; ', "jsonp", None),
        ("text/plain", b'a["b c"]({"x": 1})', "jsonp", {"x": 1}),
        (JSON, b"[1]", "text", "[1]"),
        (JSON, b"[1]", "binary", {"$reql_type$": "BINARY", "data": "WzFd"}),
    ],
)
def test_bodies(web, run, kind, body, form, value):
    web.put(URL, body, kind)
    assert run(r.http(URL, result_format=form).default(None)) == value


def test_nothing_comes_of_head(web, run):
    assert run(r.http(URL, method="HEAD")) is None


@pytest.mark.parametrize(
    ("status", "kind", "body", "form", "message"),
    [
        (
            404,
            "text/plain",
            b"gone",
            "auto",
            'status code 404.\nheader:\n{\n\t"content-type":\t"text/plain"\n}\nbody:\n"gone"',
        ),
        (
            302,
            "text/plain",
            b"",
            "auto",
            'status code 302.\nheader:\n{\n\t"content-type":\t"text/plain"\n}\nbody:\nnull',
        ),
        (
            200,
            JSON,
            b"{not",
            "auto",
            "failed to parse JSON response: Missing a name for object member..\nheader:\n"
            '{\n\t"content-type":\t"application/json"\n}\nbody:\n"{not"',
        ),
        (
            200,
            "text/plain",
            b"no",
            "jsonp",
            'failed to parse JSONP response.\nheader:\n{\n\t"content-type":\t"text/plain"\n}\nbody:\n"no"',
        ),
    ],
)
def test_bad_responses_do_not_exist(web, world, failure, status, kind, body, form, message):
    web.put(URL, body, kind, status)
    query = r.http(URL, result_format=form)
    assert failure(query)[0] == "ReqlNonExistenceError"
    with pytest.raises(Exception) as caught:
        world.run(query)
    assert caught.value.message == f"Error in HTTP GET of `{URL}`: {message}"
    assert world.run(query.default("gone")) == "gone"


def test_failures_do_not_exist(web, world):
    for failure, message in (
        (WebFailure("could not connect to server"), "could not connect to server.\nheader:\nnull\nbody:\nnull"),
        (WebFailure("timed out after 1.000 seconds", in_time=False), "timed out after 1.000 seconds."),
    ):
        web.failure = failure
        with pytest.raises(Exception) as caught:
            world.run(r.http(URL))
        assert caught.value.message == f"Error in HTTP GET of `{URL}`: {message}"


class TestPages:
    @pytest.fixture(autouse=True)
    def site(self, web):
        for number in (1, 2, 3):
            link = [("Link", f'<{URL}/{number + 1}>; rel="next", <{URL}>; rel="first"')] if number < 3 else []
            web.put(f"{URL}/{number}", b'[{"page": %d}]' % number, JSON, header=link, cookies=[f"c{number}"])

    @pytest.mark.parametrize(("limit", "pages"), [(5, [1, 2, 3]), (2, [1, 2]), (0, []), (-1, [1, 2, 3])])
    def test_links(self, run, web, limit, pages):
        found = run(r.http(f"{URL}/1", page="link-next", page_limit=limit))
        assert [row["page"] for row in found] == pages
        assert [request.cookies for request in web.asked] == [[], ["c1"], ["c2"]][: len(pages)]

    def test_functions(self, run, web):
        def turn(info):
            return r.branch(info["params"].has_fields("n"), None, {"url": URL, "params": {"n": 7}})

        web.put(f"{URL}?n=7", b"last")
        assert run(r.http(f"{URL}/1", page=turn, page_limit=-1)) == [{"page": 1}, "last"]

    @pytest.mark.parametrize(
        ("optargs", "message", "path"),
        [
            (
                {"page": "link-next"},
                "Cannot use `page` without specifying `page_limit` "
                "(a positive number performs that many requests, -1 is unlimited).",
                ["page"],
            ),
            (
                {"page": "bogus", "page_limit": 1},
                "`page` method 'bogus' not recognized, only 'link-next' is available.",
                ["page"],
            ),
            (
                {"page": "link-next", "page_limit": -2},
                "`page_limit` should be greater than or equal to -1.",
                ["page_limit"],
            ),
            (
                {"page": lambda info: {"x": 1}, "page_limit": 2},
                f"Error in HTTP GET of `{URL}/1`: "
                "OBJECT returned by `page` must contain `url` and/or `params` fields..",
                [],
            ),
            (
                {"page": lambda info: r.error("no"), "page_limit": 2},
                f"Error in HTTP GET of `{URL}/1`: no.",
                ["page", 1],
            ),
        ],
    )
    def test_errors(self, failure, optargs, message, path):
        assert failure(r.http(f"{URL}/1", **optargs))[1:] == (message, path)


@pytest.mark.parametrize(
    ("optargs", "message", "path"),
    [
        (
            {"method": "get"},
            "`method` (get) is not recognized (GET, HEAD, POST, PUT, PATCH and DELETE are allowed).",
            ["method"],
        ),
        (
            {"data": "x"},
            "`data` should only be specified on a PUT, POST, PATCH, or DELETE request.  If you want URL parameters, "
            "use `params` instead.",
            [],
        ),
        (
            {"method": "POST", "data": 5},
            "Expected `data` to be a STRING or OBJECT, but found NUMBER.",
            ["data"],
        ),
        (
            {"method": "POST", "data": {"a": []}},
            "Expected `data.a` to be a NUMBER, STRING or NULL, but found ARRAY.",
            ["data"],
        ),
        ({"params": "a=1"}, "Expected `params` to be an OBJECT, but found STRING:", ["params"]),
        ({"header": {"X": 5}}, "Expected `header.X` to be a STRING or NULL, but found NUMBER.", ["header"]),
        ({"header": [5]}, "Expected `header[0]` to be a STRING, but found NUMBER.", ["header"]),
        ({"header": ["A: 1\r\nB: 2"]}, "A `header` item contains newline characters.", ["header"]),
        ({"timeout": -1}, "`timeout` may not be negative.", ["timeout"]),
        ({"redirects": -1}, "Integer too large: -1", ["redirects"]),
        ({"auth": {"user": "u"}}, "`auth.pass` not found in the auth object.", ["auth"]),
        (
            {"auth": {"type": "x", "user": "u", "pass": "p"}},
            "`auth.type` is not recognized ('basic', and 'digest' are allowed).",
            ["auth"],
        ),
        (
            {"result_format": "x"},
            "`result_format` (x) is not recognized, ('auto', 'json', 'jsonp', 'text', and 'binary' are allowed).",
            ["result_format"],
        ),
    ],
)
def test_wrong_optargs(web, failure, optargs, message, path):
    assert failure(r.http(URL, **optargs)) == ("ReqlQueryLogicError", message, path)
    assert not web.asked


def test_it_is_switched_off_unless_allowed(failure):
    assert failure(r.http(URL))[0] == "ReqlOpFailedError"
