"""Path specs: which fields `pluck`, `without`, `has_fields` and `with_fields` mean (pathspec.cc).

A spec is a field's name, a list of specs, or an object from names to specs for what lies inside; `true` there
means the whole field. One rule: pure functions of data; arrays inside are looked into item by item, the
outermost value is not.
"""

from __future__ import annotations

from typing import Any

from model import datum as d
from model.errors import ReqlError, ReqlQueryLogicError

PathSpec = str | list[Any] | dict[str, Any]
"""str, list of specs, or dict of specs; never a list of one (it is that one)."""


def parse_paths(raw: Any) -> PathSpec:
    """The spec of a datum; raises `Invalid path argument ...`."""
    if raw.__class__ is str:
        return str(raw)
    if raw.__class__ is list:
        specs = [parse_paths(item) for item in raw]
    elif d.is_object(raw):
        whole = [key for key in sorted(raw) if raw[key] is True]
        inner = {key: parse_paths(raw[key]) for key in sorted(raw) if raw[key] is not True}
        if not whole:
            return inner
        specs = [*whole, *([inner] if inner else [])]
    else:
        raise ReqlQueryLogicError(f"Invalid path argument `{d.print_datum(raw)}`.")
    return specs[0] if len(specs) == 1 else specs


def _expect_object(datum: Any) -> None:
    if not d.is_object(datum):
        d.expect(datum, "OBJECT")


def project(datum: Any, spec: PathSpec, into_arrays: bool = False) -> Any:
    """Only what the spec names; raises a type error where it names something inside what is no object."""
    if into_arrays and datum.__class__ is list:
        return [project(item, spec) for item in datum]
    out: dict[str, Any] = {}
    if spec.__class__ is list:
        for one in spec:
            found = project(datum, one, into_arrays)
            _expect_object(found)
            out.update(found)
        return d.checked_object(out)
    if spec.__class__ is str:
        _expect_object(datum)
        if spec in datum:
            out[str(spec)] = datum[spec]
        return d.checked_object(out)
    assert isinstance(spec, dict)
    if spec:
        _expect_object(datum)
    for key, inner in spec.items():
        if key in datum:
            try:
                out[key] = project(datum[key], inner, into_arrays=True)
            except ReqlError:
                continue  # what has no inside is left out
    return d.checked_object(out)


def unproject(datum: Any, spec: PathSpec, into_arrays: bool = False) -> Any:
    """All but what the spec names."""
    if into_arrays and datum.__class__ is list:
        return [unproject(item, spec) for item in datum]
    _expect_object(datum)
    out = dict(datum)
    _remove(out, spec)
    return d.checked_object(out)


def _remove(out: dict[str, Any], spec: PathSpec) -> None:
    if spec.__class__ is str:
        out.pop(str(spec), None)
    elif spec.__class__ is list:
        for one in spec:
            _remove(out, one)
    else:
        assert isinstance(spec, dict)
        for key, inner in spec.items():
            if key in out:
                try:
                    out[key] = unproject(out[key], inner, into_arrays=True)
                except ReqlError:
                    continue  # what has no inside stays as it is


def has_paths(datum: Any, spec: PathSpec) -> bool:
    """Whether all that the spec names is there and not null."""
    if spec.__class__ is list:
        return all(has_paths(datum, one) for one in spec)
    if not d.is_object(datum):
        return spec == {}
    if spec.__class__ is str:
        return datum.get(spec) is not None
    assert isinstance(spec, dict)
    return all(key in datum and has_paths(datum[key], inner) for key, inner in spec.items())
