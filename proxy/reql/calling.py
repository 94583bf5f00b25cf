"""How a term's body is called: arguments evaluated and converted, groups mapped over, errors given their place.

One rule: the common arities have closures of their own; nothing is decided at run time that is known before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Final

from model.errors import THE_TERM, Path, ReqlError, ReqlQueryLogicError
from proxy.reql.ids import Term
from proxy.reql.nodes import Node, Run, place_of, taken
from proxy.reql.registry import TermSpec, unevaluated
from proxy.reql.streams import Stream, over_groups, to_list
from proxy.reql.values import PLAIN, Grouped, as_array


def call_runner(spec: TermSpec, arguments: list[Node], optargs: dict[str, Node], path: Path, has_args: bool) -> Run:
    """The closure that evaluates arguments and optargs, converts them, maps over groups, and calls the body.

    The value of a group is blamed on the term itself, which the groups are given to.
    """
    if spec.wants_path:
        assert spec.body is not None
        spec = replace(spec, body=partial(spec.body, path=path))
    blame = _blamer(path, arguments, optargs)
    if optargs and not has_args and (spec.optargs_after is not None or not _BOUNDS.keys().isdisjoint(optargs)):
        return _ordered_runner(spec, _order_of(spec, arguments, optargs), blame)
    evaluate_optargs = _optargs_runner(spec, optargs, blame)
    if has_args:
        return _spread_runner(spec, arguments, evaluate_optargs, path, blame)
    count = len(arguments)
    kinds = [spec.kind_of(at) for at in range(count)]
    if evaluate_optargs is None and count == 1:
        return _one_argument(spec, arguments[0].run, kinds[0], blame)
    if count == 2:
        return _two_arguments(spec, arguments[0].run, arguments[1].run, kinds[0], kinds[1], evaluate_optargs, blame)
    runs = [node.run for node in arguments]
    return _many_arguments(spec, runs, kinds, evaluate_optargs, blame)


def _blamer(path: Path, arguments: list[Node], optargs: dict[str, Node]) -> Callable[..., None]:
    nodes: dict[Any, Node] = {**dict(enumerate(arguments)), **optargs}

    def blame(env: Any, error: ReqlError, at: Any, first: int = 0) -> None:
        """Sets the path of an error that has none: of argument `at` if given, else of what the error names.

        first: THE_TERM if the first argument's value is that of a group, which is blamed on the term itself.
        """
        if error.path is None:
            place = error.at if at is None or error.at == THE_TERM else at
            if place == 0:
                place = first
            node = nodes.get(place)
            error.path = path if node is None else place_of(env, node)

    return blame


def _is_grouped(spec: TermSpec, value: Any) -> bool:
    if value.__class__ is Grouped:
        return spec.grouped != "never"
    return spec.grouped == "map" and isinstance(value, Stream) and value.grouped


def _groups_of(env: Any, value: Any) -> Grouped:
    return value if value.__class__ is Grouped else to_list(env, value)


def _one_argument(spec: TermSpec, run0: Run, kind0: Any, blame: Any) -> Run:
    body: Any = spec.body

    def run(env: Any) -> Any:
        value = run0(env)
        try:
            if value.__class__ not in PLAIN and _is_grouped(spec, value):
                return over_groups(env, _groups_of(env, value), lambda held: call_on_group(env, held))
            return call(env, value)
        except ReqlError as error:
            if error.path is None:
                blame(env, error, None)
            raise

    def call(env: Any, value: Any, first: int = 0) -> Any:
        if kind0 is not None:
            try:
                value = kind0(env, value)
            except ReqlError as error:
                blame(env, error, 0, first)
                raise
        return body(env, value)

    def call_on_group(env: Any, value: Any) -> Any:
        try:
            return call(env, value, THE_TERM)
        except ReqlError as error:
            blame(env, error, None, THE_TERM)
            raise

    return run


def _for_groups(spec: TermSpec, run_first: Run, call: Callable[..., Any], blame: Any) -> Run:
    """Evaluates the first argument, and makes the call with it, or with the value of each of its groups."""

    def run(env: Any) -> Any:
        first = run_first(env)
        if first.__class__ not in PLAIN and _is_grouped(spec, first):
            try:
                return over_groups(env, _groups_of(env, first), lambda held: call(env, held, THE_TERM))
            except ReqlError as error:
                blame(env, error, None)
                raise
        return call(env, first)

    return run


def _no_argument(env: Any) -> None:
    """What stands for the first argument of a term that was given none."""


def _two_arguments(
    spec: TermSpec, run0: Run, run1: Run, kind0: Any, kind1: Any, evaluate_optargs: Any, blame: Any
) -> Run:
    body: Any = spec.body

    def call(env: Any, value0: Any, first: int = 0) -> Any:
        at = 0
        try:
            if kind0 is not None:
                value0 = kind0(env, value0)
            at = 1
            value1 = run1(env)
            if kind1 is not None:
                value1 = kind1(env, value1)
        except ReqlError as error:
            blame(env, error, at, first)
            raise
        if evaluate_optargs is not None:
            optargs = evaluate_optargs(env)
            try:
                return body(env, value0, value1, **optargs)
            except ReqlError as error:
                if error.path is None:
                    blame(env, error, None, first)
                raise
        try:
            return body(env, value0, value1)
        except ReqlError as error:
            if error.path is None:
                blame(env, error, None, first)
            raise

    return _for_groups(spec, run0, call, blame)


def _many_arguments(spec: TermSpec, runs: list[Run], kinds: list[Any], evaluate_optargs: Any, blame: Any) -> Run:
    body: Any = spec.body

    def call(env: Any, first: Any, place: int = 0) -> Any:
        values = []
        at = 0
        try:
            for at, evaluate in enumerate(runs):
                value = evaluate(env) if at else first
                kind = kinds[at]
                values.append(value if kind is None else kind(env, value))
        except ReqlError as error:
            blame(env, error, at, place)
            raise
        optargs = evaluate_optargs(env) if evaluate_optargs is not None else {}
        try:
            return body(env, *values, **optargs)
        except ReqlError as error:
            if error.path is None:
                blame(env, error, None, place)
            raise

    return _for_groups(spec, runs[0] if runs else _no_argument, call, blame)


_BOUNDS: Final = {"left_bound": 1, "right_bound": 2}
"""The optargs that say whether an end is open, and the argument that the end is."""


def _order_of(spec: TermSpec, arguments: list[Node], optargs: dict[str, Node]) -> list[tuple[int | str, Node]]:
    """The order in which arguments and optargs are looked at. A bound comes before its end, or not at all if the end
    was not given."""
    order: list[tuple[int | str, Node]] = []
    after = len(arguments) if spec.optargs_after is None else spec.optargs_after
    others: list[tuple[int | str, Node]] = [
        (name, optargs[name]) for name in spec.optargs if name in optargs and name not in _BOUNDS
    ]
    for at, node in enumerate(arguments):
        if at == after:
            order += others
        order += [(name, optargs[name]) for name, end in _BOUNDS.items() if end == at and name in optargs]
        order.append((at, node))
    return order + others if after == len(arguments) else order


def _ordered_runner(spec: TermSpec, order: list[tuple[int | str, Node]], blame: Any) -> Run:
    """For terms whose optargs are not looked at last."""
    body: Any = spec.body

    def call(env: Any, first: Any, place: int = 0) -> Any:
        values: list[Any] = []
        given: dict[str, Any] = {}
        at: int | str = 0
        try:
            for at, node in order:
                kind = spec.optargs[at] if isinstance(at, str) else spec.kind_of(at)
                value = first if at == 0 else node.run if kind is unevaluated else node.run(env)
                value = value if kind is None else kind(env, value)
                if isinstance(at, str):
                    given[at] = value
                else:
                    values.append(value)
        except ReqlError as error:
            blame(env, error, at, place)
            raise
        try:
            return body(env, *values, **given)
        except ReqlError as error:
            if error.path is None:
                blame(env, error, None, place)
            raise

    return _for_groups(spec, next((node.run for at, node in order if at == 0), _no_argument), call, blame)


def _spread_runner(spec: TermSpec, arguments: list[Node], evaluate_optargs: Any, path: Path, blame: Any) -> Run:
    """For terms with `r.args` among their arguments: the number of arguments is only known at run time.

    What is spread is evaluated before all other arguments (arg_terms_t::start_eval).
    """
    body: Any = spec.body

    def run(env: Any) -> Any:
        values: list[Any] = []
        places: list[Any] = []
        for at, node in enumerate(arguments):
            if node.term == Term.ARGS:
                spread = taken(as_array, env, node.run(env), node, path)
                values += spread
                places += [None] * len(spread)
            else:
                values.append(node)
                places.append(at)
        if not spec.takes_count(len(values)):
            raise ReqlQueryLogicError(f"Expected {spec.arity()} but found {len(values)}.", path)
        if values and isinstance(values[0], Node):
            values[0] = values[0].run(env)
        if values and values[0].__class__ not in PLAIN and _is_grouped(spec, values[0]):
            return over_groups(env, _groups_of(env, values[0]), lambda held: call(env, [held, *values[1:]], places))
        return call(env, values, places)

    def call(env: Any, values: list[Any], places: list[Any]) -> Any:
        at = None
        try:
            converted = []
            for position, value in enumerate(values):
                at = places[position]
                if isinstance(value, Node):
                    value = value.run(env)
                kind = spec.kind_of(position)
                converted.append(value if kind is None else kind(env, value))
            at = None
            optargs = evaluate_optargs(env) if evaluate_optargs is not None else {}
            return body(env, *converted, **optargs)
        except ReqlError as error:
            if error.path is None:
                if isinstance(error.at, int) and error.at != THE_TERM:
                    error.at = places[error.at] if error.at < len(places) else None
                blame(env, error, at)
            raise

    return run


def _optargs_runner(spec: TermSpec, optargs: dict[str, Node], blame: Any) -> Any:
    if not optargs:
        return None
    plan = [(name, node.run, spec.optargs[name]) for name, node in optargs.items()]

    def evaluate(env: Any) -> dict[str, Any]:
        out = {}
        for name, run, kind in plan:
            try:
                value = run if kind is unevaluated else run(env)
                out[name] = value if kind is None else kind(env, value)
            except ReqlError as error:
                blame(env, error, name)
                raise
        return out

    return evaluate
