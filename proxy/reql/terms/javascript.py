"""`r.js`: the value or the function that a script comes to (terms/js.cc, func.cc).

One rule: scripts run behind the port `world.javascript`; here is only what becomes of their answers.
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from model import datum as d
from model.errors import Path, ReqlInternalError, ReqlOpFailedError, ReqlQueryLogicError
from proxy.reql.ids import Term
from proxy.reql.registry import NEVER, term
from proxy.reql.values import NativeFunc, as_datum, as_number, as_string, check_array_size

DEFAULT_TIMEOUT_S: Final = 5.0
MAX_TIMEOUT_MS: Final = 2**63
CALLS: Final = 64  # sent to the engine at once

REFUSED: Final = {
    "PTYPE<BINARY>": "`r.binary` data cannot be used in `r.js`.",
    "MINVAL": "`r.minval` cannot be passed to `r.js`.",
    "MAXVAL": "`r.maxval` cannot be passed to `r.js`.",
}


class JavascriptFunc(NativeFunc):
    """A function written in JavaScript; it takes any number of arguments."""

    __slots__ = ("source", "timeout_ms")

    def __init__(self, env: Any, source: str, timeout_ms: int, path: Path) -> None:
        super().__init__(env, self._call, None, path, NEVER)
        self.source = source
        self.timeout_ms = timeout_ms

    def _call(self, *arguments: Any) -> Any:
        return self._results([arguments])[0]

    def each(self, rows: list[Any]) -> list[Any]:
        try:
            out: list[Any] = []
            for at in range(0, len(rows), CALLS):
                out += self._results([(row,) for row in rows[at : at + CALLS]])
            return out
        except ReqlQueryLogicError as error:
            if error.path is None:
                error.path = self.path
            raise

    def _results(self, calls: list[tuple[Any, ...]]) -> list[Any]:
        env = self.env
        data = [[sendable(as_datum(env, argument)) for argument in arguments] for arguments in calls]
        answers = _session(env).call(env, self.source, data, self.timeout_ms, env.array_limit)
        return [value_of(env, answer, self.source, self.timeout_ms) for answer in answers]


def sendable(datum: Any) -> Any:
    """The datum, if JavaScript has a value for it."""
    if datum.__class__ is list:
        for item in datum:
            sendable(item)
    elif datum.__class__ is dict and datum.get(d.PTYPE_KEY) != d.BINARY:
        for item in datum.values():
            sendable(item)
    else:
        refusal = REFUSED.get(d.type_name(datum))
        if refusal is not None:
            raise ReqlQueryLogicError(refusal)
    return datum


def value_of(env: Any, answer: list[Any], source: str, timeout_ms: int) -> Any:
    """The datum of an answer; raises RethinkDB's errors for all others."""
    kind = answer[0]
    if kind == "value":
        return d.canonical(orjson.loads(answer[1]))
    if kind == "array":
        check_array_size(env, env.array_limit + 1)
    if kind == "timeout":
        seconds, rest = divmod(timeout_ms, 1000)
        raise ReqlQueryLogicError(f"JavaScript query `{source}` timed out after {seconds}.{rest:03} seconds.")
    if kind == "error":
        raise ReqlQueryLogicError(answer[1])
    raise ReqlInternalError(f"Javascript query `{source}` caused a crash in a worker process.")


def _session(env: Any) -> Any:
    if env.javascript is None:
        if env.world.javascript is None:
            raise ReqlOpFailedError("`r.js` is switched off on this server (setting `reql.js_enabled`).")
        env.javascript = env.world.javascript.session()
    return env.javascript


@term(
    Term.JAVASCRIPT,
    "javascript",
    "1",
    takes=(as_datum,),
    optargs={"timeout": as_number},
    determinism=NEVER,
    wants_path=True,
)
def javascript(env: Any, source: Any, *, path: Path, timeout: float = DEFAULT_TIMEOUT_S) -> Any:
    """A datum, or a function that can be given wherever one is taken."""
    timeout_ms = int(min(max(timeout * 1000, 0), MAX_TIMEOUT_MS))
    text = as_string(env, source)
    answer = _session(env).evaluate(env, text, timeout_ms, env.array_limit)
    if answer[0] == "function":
        return JavascriptFunc(env, text, timeout_ms, path)
    return value_of(env, answer, text, timeout_ms)
