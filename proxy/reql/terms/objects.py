"""Terms on objects, and on the objects in sequences: fields, pluck, without, merge, keys (terms/obj.cc, obj_or_seq.cc).

One rule: no object that came in is changed; a term gives a new one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from model import datum as d
from model.errors import THE_TERM, Path, ReqlCompileError, ReqlNonExistenceError, ReqlQueryLogicError
from proxy.reql.absent import NoAttribute
from proxy.reql.compiler import Compiler
from proxy.reql.ids import Term
from proxy.reql.nodes import At, Node, argument, located, place_of, taken
from proxy.reql.pathspec import PathSpec, has_paths, parse_paths, project, unproject
from proxy.reql.picking import nth
from proxy.reql.registry import TERMS, fail, special, term
from proxy.reql.streams import over_groups
from proxy.reql.terms.obj_or_seq import FILTER, MAP, SKIP_MAP, Plan, obj_or_seq
from proxy.reql.values import (
    PLAIN,
    Func,
    Grouped,
    SingleSelection,
    Value,
    as_array,
    as_bool,
    as_datum,
    as_string,
    check_array_size,
    wrong_kind,
)

# ---- one field -------------------------------------------------------------------------------------------------


def field(obj: dict[str, Any], key: str) -> Any:
    """The field's value; raises the non-existence error that `default` catches."""
    try:
        return obj[key]
    except KeyError:
        raise NoAttribute(key, obj) from None


def _field_getter(env: Any, key: str) -> Callable[[dict[str, Any]], Any]:
    return lambda obj: field(obj, key)


obj_or_seq(Term.GET_FIELD, "get_field", "2", poly=SKIP_MAP, takes=(as_string,))(_field_getter)


@special(Term.BRACKET, "bracket", "2", optargs={"_NO_RECURSE_": as_bool})
def bracket_term(compiler: Compiler, raw: list[Any], path: Path) -> Node:
    """`x['field']` on objects and sequences of them, `x[number]` as `nth`."""
    plan = Plan(compiler, Term.BRACKET, raw, path, _field_getter, SKIP_MAP, (as_string,), frozenset(), False)
    nodes = plan.nodes
    node = Node(lambda env: None, Term.BRACKET, path, raw, plan.determinism, arguments=nodes)
    plan.nodes = nodes[:1]  # the key is evaluated here and handed on
    if len(nodes) != 2 or any(argument.term == Term.ARGS for argument in nodes):
        node.run = lambda env: _spread_bracket(env, plan, nodes)
        return node
    value_node, key_node = nodes
    run_value, run_key = value_node.run, key_node.run

    def run(env: Any) -> Any:
        value = run_value(env)
        if value.__class__ is Grouped:
            return over_groups(env, value, lambda held: apply(env, held))
        return apply(env, value)

    def apply(env: Any, value: Any) -> Any:
        key = run_key(env)
        if key.__class__ is str:
            if value.__class__ is SingleSelection:
                value = located(as_datum, env, value, path)
            if value.__class__ is dict and key in value and d.PTYPE_KEY not in value:
                return value[key]
        return _bracket(env, plan, value, key, value_node, key_node)

    node.run = run
    return node


def _bracket(env: Any, plan: Plan, value: Any, key: Any, value_node: Node | None, key_node: Node | None) -> Any:
    if key_node is not None:
        key = taken(as_datum, env, key, key_node, plan.path)
    if key.__class__ is str:
        return plan.apply(env, value, value_node, (key,))
    try:
        if d.is_number(key):
            return nth(env, value, key)
        d.fail_typed(key, f"Expected NUMBER or STRING as second argument to `bracket` but found {d.type_name(key)}.")
    except (ReqlQueryLogicError, ReqlNonExistenceError) as error:
        if error.path is None:
            blamed = {0: value_node, 1: key_node}.get(error.at)  # type: ignore[arg-type]
            error.path = plan.path if blamed is None else place_of(env, blamed)
        raise


def _spread_bracket(env: Any, plan: Plan, nodes: list[Node]) -> Any:
    """Its arguments come out of `r.args`, so that their number and places are known only now."""
    values: list[Any] = []
    for node in nodes:
        if node.term == Term.ARGS:
            values += taken(as_array, env, node.run(env), node, plan.path)
        else:
            values.append(node.run(env))
    if len(values) != 2:
        raise ReqlQueryLogicError(f"Expected {TERMS[Term.BRACKET].arity()} but found {len(values)}.", plan.path)
    return _bracket(env, plan, values[0], values[1], None, None)


# ---- several fields --------------------------------------------------------------------------------------------


@obj_or_seq(Term.PLUCK, "pluck", "1..*", poly=MAP)
def pluck(env: Any, *paths: Any) -> Callable[[dict[str, Any]], Any]:
    spec: PathSpec = parse_paths(list(paths))
    if all(path.__class__ is str for path in paths):
        return lambda obj: {key: obj[key] for key in paths if key in obj}
    return lambda obj: project(obj, spec)


@obj_or_seq(Term.WITHOUT, "without", "1..*", poly=MAP)
def without(env: Any, *paths: Any) -> Callable[[dict[str, Any]], Any]:
    spec = parse_paths(list(paths))
    return lambda obj: unproject(obj, spec)


@obj_or_seq(Term.HAS_FIELDS, "has_fields", "1..*", poly=FILTER)
def has_fields(env: Any, *paths: Any) -> Callable[[dict[str, Any]], Any]:
    """Whether the object has all of the fields, and none of them null."""
    spec = parse_paths(list(paths))
    return lambda obj: has_paths(obj, spec)


@special(Term.WITH_FIELDS, "with_fields", "1..*")
def with_fields(compiler: Compiler, raw: list[Any], path: Path) -> Node:
    """The objects that have the fields, with nothing but them: `has_fields`, then `pluck`."""
    arguments, optargs = compiler.split(raw, path)
    if not arguments:
        raise ReqlCompileError(f"Expected {TERMS[Term.WITH_FIELDS].arity()} but found 0.", path)
    having = At(path, [int(Term.HAS_FIELDS), arguments, optargs])
    numbered = [At((*path, at), argument) for at, argument in enumerate(arguments)][1:]
    return compiler.compile([int(Term.PLUCK), [having, *numbered]], path)


@obj_or_seq(Term.MERGE, "merge", "1..*", poly=MAP, takes=(None,), literal_ok=True)
def merge(env: Any, *layers: Any) -> Callable[[dict[str, Any]], Any]:
    """Lays objects, or what functions make of the object so far, over the object."""
    if all(map(_is_flat, layers)):
        together = {key: value for layer in layers for key, value in layer.items()}
        return lambda obj: {**obj, **together}

    def merge_one(obj: dict[str, Any]) -> Any:
        merged: Any = obj
        for at, layer in enumerate(layers, 1):
            over = layer.datum(merged) if isinstance(layer, Func) else _as_layer(env, layer, at)
            try:
                d.check_layer(over)
            except ReqlQueryLogicError as error:
                error.at = at
                raise
            merged = d.merge(merged, over)
        return merged

    return merge_one


def _is_flat(layer: Any) -> bool:
    """Whether the layer only sets fields: it has nothing inside that could be merged, and no literals."""
    return (
        layer.__class__ is dict
        and d.PTYPE_KEY not in layer
        and not any(value.__class__ is dict or value.__class__ is list for value in layer.values())
    )


def _as_layer(env: Any, layer: Any, at: int) -> Any:
    if layer.__class__ in PLAIN:
        return layer
    try:
        if isinstance(layer, Value) and layer.__class__ is not SingleSelection:
            raise wrong_kind("FUNCTION", layer)
        return as_datum(env, layer)
    except (ReqlQueryLogicError, ReqlNonExistenceError) as error:
        if error.at != THE_TERM:
            error.at = at
        raise


# ---- whole objects ---------------------------------------------------------------------------------------------


def _plain_object(env: Any, value: Any, name: str) -> dict[str, Any]:
    value = as_datum(env, value)
    if value.__class__ is not dict or d.PTYPE_KEY in value:
        fail(f"Cannot call `{name}` on objects of type `{d.type_name(value)}`.", 0)
    return value


@term(Term.KEYS, "keys", "1", takes=(as_datum,))
def keys(env: Any, value: Any) -> list[str]:
    obj = _plain_object(env, value, "keys")
    check_array_size(env, len(obj))
    return sorted(obj)


@term(Term.VALUES, "values", "1", takes=(as_datum,))
def values(env: Any, value: Any) -> list[Any]:
    """The values in the order of their keys."""
    obj = _plain_object(env, value, "values")
    check_array_size(env, len(obj))
    return [obj[key] for key in sorted(obj)]


@term(Term.OBJECT, "object", "0..*", takes=(None,))
def object_(env: Any, *items: Any) -> dict[str, Any]:
    """An object from keys and values in turn."""
    if len(items) % 2:
        fail(f"OBJECT expects an even number of arguments (but found {len(items)}).")
    out: dict[str, Any] = {}
    for at in range(0, len(items), 2):
        key, value = argument(as_string, env, items[at], at), argument(as_datum, env, items[at + 1], at + 1)
        if key in out:
            fail(
                f"Duplicate key {d.print_datum(key)} in object.  "
                f"(got {d.trunc_print(out[key])} and {d.trunc_print(value)} as values)"
            )
        out[key] = value
    return d.checked_object(out)
