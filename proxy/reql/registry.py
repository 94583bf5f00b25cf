"""The table that knows every term: arity, optargs, kinds of arguments, and the function that does the work.

One rule: a term is declared in one place, by `@term` (a function of evaluated arguments) or `@special` (a
function that compiles the term itself, for control flow and functions). Bodies call `fail*` and never build
paths: the compiler knows where each argument stands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, NoReturn

from model.errors import Frame, ReqlNonExistenceError, ReqlQueryLogicError, ReqlResourceLimitError
from proxy.reql.ids import Term

Kind = Callable[[Any, Any], Any]  # (env, value) -> converted value; raises ReqlError


def unevaluated(env: Any, run: Any) -> Any:
    """The kind of an optarg that a body evaluates itself, by calling it, where it needs it; else nobody looks at it."""
    return partial(run, env)


# What a term's value may depend on besides its arguments, as a set of bits (RethinkDB's deterministic_t).
ALWAYS: Final = 0
CONSTANT_NOW: Final = 1  # the same within one query
SINGLE_SERVER: Final = 2  # the same on one server
NEVER: Final = 7

WRITES_OR_META: Final = frozenset(
    {
        Term.UPDATE, Term.DELETE, Term.INSERT, Term.REPLACE, Term.DB_CREATE, Term.DB_DROP, Term.TABLE_CREATE,
        Term.TABLE_DROP, Term.WAIT, Term.RECONFIGURE, Term.REBALANCE, Term.SYNC, Term.GRANT, Term.SET_WRITE_HOOK,
        Term.GET_WRITE_HOOK, Term.INDEX_CREATE, Term.INDEX_DROP, Term.INDEX_WAIT, Term.INDEX_RENAME,
    }
)  # fmt: skip
ROW_WRITES: Final = frozenset({Term.UPDATE, Term.DELETE, Term.INSERT, Term.REPLACE})
FORBIDS_WRITES: Final = frozenset(
    {
        Term.REDUCE, Term.MAP, Term.FOLD, Term.FILTER, Term.CONCAT_MAP, Term.GROUP, Term.INNER_JOIN, Term.OUTER_JOIN,
        Term.EQ_JOIN, Term.UPDATE, Term.DELETE, Term.REPLACE, Term.INSERT, Term.COUNT, Term.SUM, Term.AVG, Term.MIN,
        Term.MAX,
    }
)  # fmt: skip
LOOKS_WITHOUT_GROUPS: Final = frozenset({Term.DEFAULT, Term.COERCE_TO, Term.TYPE_OF, Term.INFO, Term.LITERAL})
"""The terms that are not applied to each group of grouped data (can_be_grouped)."""


@dataclass(slots=True, frozen=True)
class TermSpec:
    """One term. `high` is None for any number; `takes` ends with the kind of all further arguments.

    grouped: "map" applies the term to each group of grouped data and of a grouped stream, "stream" leaves grouped
    streams alone (the term works on them) and maps over grouped data, "never" does neither.
    wants_path: the body takes the term's own path as keyword `path`, for what fails after it has returned.
    optargs_after: how many arguments are looked at before the optargs are, in the order in which they are declared
    here; None for all of them. What is looked at first fails first.
    """

    id: Term
    name: str
    low: int
    high: int | None
    takes: tuple[Kind | None, ...] = ()
    optargs: Mapping[str, Kind | None] = field(default_factory=dict)
    grouped: str = "map"
    determinism: int = ALWAYS
    wants_path: bool = False
    optargs_after: int | None = None
    body: Callable[..., Any] | None = None
    compile: Callable[..., Any] | None = None

    def arity(self) -> str:
        """The arity as RethinkDB's messages put it."""
        if self.high is None:
            return f"{self.low} or more arguments"
        if self.low == self.high:
            return f"{self.low} argument{'' if self.low == 1 else 's'}"
        return f"between {self.low} and {self.high} arguments"

    def takes_count(self, count: int) -> bool:
        return self.low <= count and (self.high is None or count <= self.high)

    def kind_of(self, position: int) -> Kind | None:
        if not self.takes:
            return None
        return self.takes[position] if position < len(self.takes) else self.takes[-1]


TERMS: dict[int, TermSpec] = {}

LAST: dict[int, TermSpec] = {}
"""Terms that have another body where they are the whole query, and nobody but the answer looks at what they give."""


def _bounds(args: str) -> tuple[int, int | None]:
    low, _, high = args.partition("..")
    if not high:
        return int(low), int(low)
    return int(low), None if high == "*" else int(high)


def term(
    id: Term,
    name: str,
    args: str,
    *,
    takes: tuple[Kind | None, ...] = (),
    optargs: Mapping[str, Kind | None] | None = None,
    grouped: str = "map",
    determinism: int = ALWAYS,
    wants_path: bool = False,
    optargs_after: int | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declares a term whose body takes (env, *arguments, **optargs), arguments converted by `takes`.

    args: "2", "1..3" or "1..*". optargs: name to kind; only those given (in the term or globally) are passed.
    """

    def declare(body: Callable[..., Any]) -> Callable[..., Any]:
        low, high = _bounds(args)
        spec = TermSpec(id, name, low, high, takes, optargs or {}, grouped, determinism, wants_path)
        _add(replace(spec, body=body, optargs_after=optargs_after))
        return body

    return declare


def special(
    id: Term, name: str, args: str, *, optargs: Mapping[str, Kind | None] | None = None, determinism: int = ALWAYS
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declares a term that compiles itself: the function takes (compiler, raw term, path) and gives a Node."""

    def declare(compile: Callable[..., Any]) -> Callable[..., Any]:
        low, high = _bounds(args)
        _add(TermSpec(id, name, low, high, (), optargs or {}, "never", determinism, compile=compile))
        return compile

    return declare


def _add(spec: TermSpec) -> None:
    if spec.id in TERMS:
        raise AssertionError(f"{spec.id!r} is declared twice")
    TERMS[int(spec.id)] = spec


def fail(message: str, at: Frame | None = None) -> NoReturn:
    """A logic error of the running term, or of its argument `at`."""
    raise ReqlQueryLogicError(message, at=at)


def fail_absent(message: str, at: Frame | None = None) -> NoReturn:
    """A non-existence error, which `default` turns into its value."""
    raise ReqlNonExistenceError(message, at=at)


def fail_limit(message: str, at: Frame | None = None) -> NoReturn:
    """A resource limit error."""
    raise ReqlResourceLimitError(message, at=at)
