"""Terms that throw dice: random, sample, uuid (terms/random.cc, uuid.cc). One rule: the dice are the world's."""

from __future__ import annotations

import hashlib
import sys
from typing import Any, Final

from model import datum as d
from model.errors import Path
from proxy.reql.compiler import Compiler
from proxy.reql.ids import Term
from proxy.reql.nodes import Node
from proxy.reql.registry import ALWAYS, NEVER, TermSpec, fail, special, term
from proxy.reql.streams import ArrayStream, as_selection, as_stream, is_selection
from proxy.reql.values import Selection, as_bool, as_integer, as_number, as_string, check_array_size

# ---- random ----------------------------------------------------------------------------------------------------


@term(Term.RANDOM, "random", "0..2", takes=(as_number,), optargs={"float": as_bool}, determinism=NEVER)
def random(env: Any, *bounds: int | float, **optargs: bool) -> int | float:
    """A whole number in [low, high), or with `float` (or without bounds) any number."""
    if optargs.get("float", not bounds):
        low, high = (0.0, 1.0) if not bounds else (0.0, float(bounds[0])) if len(bounds) == 1 else map(float, bounds)
        return _random_float(env, low, high)
    if not bounds:
        fail("Generating a random integer requires one or two bounds.")
    first = 0 if len(bounds) == 1 else _whole("Lower", bounds[0])
    end = _whole("Upper", bounds[-1])
    if first >= end:
        fail(f"Lower bound ({first}) is not less than upper bound ({end}).")
    number: int = env.world.random().randrange(first, end)
    return number


def _whole(which: str, bound: int | float) -> int:
    if bound.__class__ is float and bound != 0:
        fail(f"{which} bound ({d.printf_g(bound)}) could not be safely converted to an integer.")
    return int(bound)


def _random_float(env: Any, low: float, high: float) -> int | float:
    # The distance of the bounds may be more than a double can hold.
    scale = 4.0 if (low > 0) != (high > 0) and abs(low) > sys.float_info.max / 2 - abs(high) else 1.0
    low, high = low / scale, high / scale
    result = low + env.world.random().random() * (high - low)
    if result >= high if high > low else result <= high:
        result = low
    return d.number(result * scale)


# ---- sample ----------------------------------------------------------------------------------------------------


@term(Term.SAMPLE, "sample", "2", takes=(None, as_integer), determinism=NEVER)
def sample(env: Any, value: Any, count: int) -> Any:
    """So many elements of a sequence, each with the same chance, in random order."""
    if count < 0:
        fail(f"Number of items to sample must be non-negative, got `{count}`.")
    check_array_size(env, count)
    selection = as_selection(env, value) if is_selection(value) else None
    stream = as_stream(env, value) if selection is None else selection.stream
    dice = env.world.random()
    kept: list[Any] = []
    for passed, row in enumerate(stream.rows(env)):
        if passed < count:
            kept.append(row)
        elif (place := dice.randrange(passed + 1)) < count:
            kept[place] = row
    dice.shuffle(kept)
    return kept if selection is None else Selection(selection.table, ArrayStream(kept))


# ---- uuid ------------------------------------------------------------------------------------------------------

_NAMESPACE: Final = bytes.fromhex("91461c99f89d49d2af96d8e2e14e9b58")


def uuid_of(name: str) -> str:
    """The UUID that always belongs to this name (version 5)."""
    digest = bytearray(hashlib.sha1(_NAMESPACE + name.encode(), usedforsecurity=False).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x50
    digest[8] = digest[8] & 0x3F | 0x80
    text = digest.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def _uuid(env: Any, name: str | None = None) -> str:
    if name is not None:
        return uuid_of(name)
    fresh: str = env.world.new_uuid()
    return fresh


@special(Term.UUID, "uuid", "0..1", determinism=NEVER)
def uuid(compiler: Compiler, raw: list[Any], path: Path) -> Node:
    """A new random UUID, or the one of a name; only the latter is deterministic."""
    arguments, _ = compiler.split(raw, path)
    named = len(arguments) == 1 and not (arguments[0].__class__ is list and arguments[0][:1] == [Term.ARGS])
    determinism = ALWAYS if named else NEVER
    spec = TermSpec(Term.UUID, "uuid", 0, 1, (as_string,), determinism=determinism, body=_uuid)
    return compiler.compile_call(spec, raw, path)
