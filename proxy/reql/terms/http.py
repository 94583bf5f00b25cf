"""`r.http`: from optargs to a request, and from responses to data or to a stream of pages (terms/http.cc).

One rule: whatever fails on the way to the other server and back is a non-existence error, so that `default`
replaces it; what is wrong in the query itself is a logic error.
"""

from __future__ import annotations

from typing import Any, Final, NoReturn
from urllib.parse import quote

from model import datum as d
from model.errors import Path, ReqlError, ReqlNonExistenceError, ReqlOpFailedError, ReqlQueryLogicError
from proxy.reql.ids import Term
from proxy.reql.permissions import require_connect
from proxy.reql.registry import NEVER, fail, term
from proxy.reql.streams import Rows, Stream
from proxy.reql.values import (
    Func,
    NativeFunc,
    as_bool,
    as_datum,
    as_func,
    as_integer,
    as_number,
    as_string,
    check_array_size,
)
from proxy.reql.web import Login, WebFailure, WebRequest, WebResponse
from proxy.reql.web_bodies import BadResponse, body_of, header_of, text_of

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
FORMATS: Final = ("auto", "json", "jsonp", "text", "binary")
MAX_TIMEOUT_MS: Final = 2_592_000_000  # 30 days
NEXT: Final = 'rel="next"'

OPTARGS: Final[dict[str, Any]] = {
    "data": as_datum,
    "timeout": as_number,
    "method": as_string,
    "params": as_datum,
    "header": as_datum,
    "attempts": as_integer,
    "redirects": as_integer,
    "verify": as_bool,
    "page": None,
    "page_limit": as_integer,
    "auth": as_datum,
    "result_format": as_string,
}


@term(Term.HTTP, "http", "1", takes=(as_string,), optargs=OPTARGS, grouped="never", determinism=NEVER, wants_path=True)
def http(env: Any, url: str, *, path: Path, **optargs: Any) -> Any:
    """What a URL gives, or with `page` a stream of what a row of URLs gives."""
    require_connect(env)
    if env.world.http is None:
        raise ReqlOpFailedError("`r.http` is switched off on this server (setting `reql.http_enabled`).")
    job = _Job(env, url, optargs)
    if "page" in optargs:
        function, limit = _paging(env, optargs)
        return HttpPages(job, function, limit, path)
    return job.fetch(env)[1]


# ---- optargs ---------------------------------------------------------------------------------------------------


class _Job:
    """Requests of one term: all but the URL, the parameters and the cookies stays from page to page."""

    __slots__ = (
        "attempts", "body", "cookies", "form", "header", "login", "method", "params", "redirects", "timeout_ms", "url",
        "verify",
    )  # fmt: skip

    def __init__(self, env: Any, url: str, optargs: dict[str, Any]) -> None:
        self.url = url
        self.login = _login(optargs["auth"]) if "auth" in optargs else None
        self.method = _method(optargs.get("method", "GET"))
        self.header: list[str] = []
        self.body = self._data(optargs["data"]) if "data" in optargs else None
        self.form = _format(optargs.get("result_format", "auto"))
        self.params: dict[str, Any] = optargs.get("params", {})
        check_params(self.params, "params")
        self.header += _header_lines(optargs.get("header", []))
        self.timeout_ms = _timeout_ms(optargs.get("timeout", 30))
        self.attempts = optargs.get("attempts", 5) % 2**64
        self.redirects = optargs.get("redirects", 1)
        if not 0 <= self.redirects < 2**32:
            fail(f"Integer too large: {self.redirects}", "redirects")
        self.verify = optargs.get("verify", True)
        self.cookies: list[str] = []

    def _data(self, data: Any) -> bytes:
        method = self.method
        if method in ("GET", "HEAD"):
            fail(
                "`data` should only be specified on a PUT, POST, PATCH, or DELETE request.  If you want URL "
                "parameters, use `params` instead."
            )
        if data.__class__ is str:
            return data.encode()
        if method != "POST":
            self.header.append("Content-Type: application/json")
            return d.print_datum(data).encode()
        if not d.is_object(data):
            fail(f"Expected `data` to be a STRING or OBJECT, but found {d.type_name(data)}.", "data")
        return _form({key: _form_text(key, value) for key, value in data.items()}).encode()

    def fetch(self, env: Any) -> tuple[dict[str, Any], Any]:
        """The header and the body of one response; raises the non-existence error for all that fails."""
        request = WebRequest(
            self.method, full_url(self.url, self.params), self.header, self.body, self.login, self.cookies,
            self.timeout_ms, self.attempts, self.redirects, self.verify,
        )  # fmt: skip
        try:
            response = env.world.http.fetch(env, request)
        except WebFailure as error:
            self._fail(error.message, ("null", "null") if error.in_time else ())
        return self._read(env, response)

    def _read(self, env: Any, response: WebResponse) -> tuple[dict[str, Any], Any]:
        try:
            header = header_of(response)
        except BadResponse as error:
            self._fail(error.message, ("null", "null"))
        if not 200 <= response.status < 300:
            shown = d.print_datum(text_of(response)) if response.body else "null"
            self._fail(f"status code {response.status}", (d.print_datum(header), shown))
        self.cookies = list(response.cookies)
        if self.method == "HEAD":
            return header, None
        try:
            body = body_of(response, self.form)
        except BadResponse as error:
            self._fail(error.message, (d.print_datum(header), d.print_datum(error.body)))
        if body.__class__ is list:
            check_array_size(env, len(body))
        return header, body

    def _fail(self, why: str, shown: tuple[str, ...]) -> NoReturn:
        message = f"{self.doing}: {why}."
        for name, text in zip(("header", "body"), shown, strict=False):
            message += f"\n{name}:\n{text}"
        raise ReqlNonExistenceError(message)

    @property
    def doing(self) -> str:
        return f"Error in HTTP {self.method} of `{self.url}`"


def _method(name: str) -> str:
    if name not in METHODS:
        fail(
            f"`method` ({name}) is not recognized (GET, HEAD, POST, PUT, PATCH and DELETE are allowed).",
            "method",
        )
    return name


def _format(name: str) -> str:
    if name not in FORMATS:
        fail(
            f"`result_format` ({name}) is not recognized, ('auto', 'json', 'jsonp', 'text', and 'binary' are allowed).",
            "result_format",
        )
    return name


def _timeout_ms(seconds: float) -> int:
    if seconds < 0:
        fail("`timeout` may not be negative.", "timeout")
    return int(min(seconds * 1000, MAX_TIMEOUT_MS))


def _login(auth: Any) -> Login:
    if not d.is_object(auth):
        fail(f"Expected `auth` to be an OBJECT, but found {d.type_name(auth)}.", "auth")
    kind = auth.get("type", "basic")
    if kind.__class__ is not str:
        fail(f"Expected `auth.type` to be a STRING, but found {d.type_name(auth)}.", "auth")
    for name in ("user", "pass"):
        if name not in auth:
            fail(f"`auth.{name}` not found in the auth object.", "auth")
        if auth[name].__class__ is not str:
            fail(f"Expected `auth.{name}` to be a STRING, but found {d.type_name(auth[name])}.", "auth")
    if kind not in ("basic", "digest"):
        fail("`auth.type` is not recognized ('basic', and 'digest' are allowed).", "auth")
    return Login(kind, auth["user"], auth["pass"])


def _header_lines(header: Any) -> list[str]:
    lines = []
    if header.__class__ is list:
        for at, line in enumerate(header):
            if line.__class__ is not str:
                fail(f"Expected `header[{at}]` to be a STRING, but found {d.type_name(line)}.", "header")
            lines.append(line)
    elif d.is_object(header):
        for key in sorted(header):
            value = header[key]
            if value is None:
                continue
            if value.__class__ is not str:
                fail(f"Expected `header.{key}` to be a STRING or NULL, but found {d.type_name(value)}.", "header")
            lines.append(f"{key}: {value}")
    else:
        fail(f"Expected `header` to be an ARRAY or OBJECT, but found {d.type_name(header)}.", "header")
    if any("\r" in line or "\n" in line for line in lines):
        fail("A `header` item contains newline characters.", "header")
    return lines


def check_params(params: Any, at: str | None) -> None:
    """Raises unless these are parameters of a URL."""
    if not d.is_object(params):
        fail(f"Expected `params` to be an OBJECT, but found {d.type_name(params)}:\n{d.print_datum(params)}", at)
    for key in sorted(params):
        value = params[key]
        if value is not None and value.__class__ is not str and not d.is_number(value):
            fail(
                f"Expected `params.{key}` to be a NUMBER, STRING or NULL, but found {d.type_name(value)}:\n"
                f"{d.print_datum(value)}",
                at,
            )


def _form_text(key: str, value: Any) -> str:
    if value is not None and value.__class__ is not str and not d.is_number(value):
        fail(f"Expected `data.{key}` to be a NUMBER, STRING or NULL, but found {d.type_name(value)}.", "data")
    return _text(value)


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if value.__class__ is str else f"{value:.20g}"


def _form(fields: dict[str, str]) -> str:
    return "&".join(f"{quote(key, safe='')}={quote(fields[key], safe='')}" for key in sorted(fields))


def full_url(url: str, params: dict[str, Any]) -> str:
    """The URL with parameters behind those that it has."""
    if not params:
        return url
    question, slash = url.rfind("?"), url.rfind("/")
    if slash < 0 and question < 0:
        url += "/"
    if question < 0 or slash > question:
        url += "?"
    elif 0 <= slash < question:
        url += "&"
    return url + _form({key: _text(value) for key, value in params.items()})


# ---- pages -----------------------------------------------------------------------------------------------------


def _paging(env: Any, optargs: dict[str, Any]) -> tuple[Func, int]:
    if "page_limit" not in optargs:
        fail(
            "Cannot use `page` without specifying `page_limit` "
            "(a positive number performs that many requests, -1 is unlimited).",
            "page",
        )
    function = _page_function(env, optargs["page"])
    if optargs["page_limit"] < -1:
        fail("`page_limit` should be greater than or equal to -1.", "page_limit")
    return function, optargs["page_limit"]


def _page_function(env: Any, page: Any) -> Func:
    try:
        if isinstance(page, Func) or as_datum(env, page) is None:
            return as_func(env, page)
        name = as_string(env, page)
        if name != "link-next":
            fail(f"`page` method '{name}' not recognized, only 'link-next' is available.")
    except ReqlError as error:
        if error.path is None:
            error.at = "page"
        raise
    return NativeFunc(env, _next_link, 1)


def _next_link(info: Any) -> Any:
    return info["header"].get("link", {}).get(NEXT)


class HttpPages(Stream):
    """The bodies of one response after the other, arrays item by item; a function says where it goes on."""

    __slots__ = ("_function", "_job", "_left")
    refusal_of_changes = "Cannot call `changes` on an HTTP stream."

    def __init__(self, job: _Job, function: Func, limit: int, path: Path) -> None:
        super().__init__(path=path)
        self._job = job
        self._function = function
        self._left = limit

    def source_chunk(self, env: Any) -> Rows | None:
        if self._left == 0:
            return None
        try:
            header, body = self._job.fetch(env)
            if self._left > 0:
                self._left -= 1
            if self._left != 0 and not self._turn_page(header, body):
                self._left = 0
        except ReqlError as error:
            self._left = 0
            if error.path is None:
                error.path = self.path
            raise
        return body if body.__class__ is list else [body]

    def _turn_page(self, header: dict[str, Any], body: Any) -> bool:
        """Asks the function for the next request. False: there is none."""
        info = {"params": self._job.params, "header": header, "body": body}
        doing = self._job.doing
        try:
            return self._apply(self._function.datum(info))
        except ReqlError as error:
            raise error.reworded(
                f"{doing}: {error.message}.\nError occurred during `page` called with:\n{d.print_datum(info)}\n",
                error.path,
            ) from error

    def _apply(self, answer: Any) -> bool:
        if answer is None or answer.__class__ is str:
            return self._go_to(answer)
        if not d.is_object(answer):
            raise ReqlQueryLogicError(f"Expected `page` to return an OBJECT, but found {d.type_name(answer)}.")
        if "url" not in answer and "params" not in answer:
            raise ReqlQueryLogicError("OBJECT returned by `page` must contain `url` and/or `params` fields.")
        if "params" in answer:
            check_params(answer["params"], None)
            self._job.params = {**self._job.params, **answer["params"]}
        return self._go_to(answer["url"]) if "url" in answer else True

    def _go_to(self, url: Any) -> bool:
        if url is None:
            return False
        if url.__class__ is not str:
            raise ReqlQueryLogicError(
                f"Expected `url` in OBJECT returned by `page` to be a STRING or NULL, but found {d.type_name(url)}."
            )
        self._job.url = url
        return True
