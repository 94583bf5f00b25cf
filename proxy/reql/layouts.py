"""How a table is to be spread over servers, as `table_create` and `reconfigure` are told (generate_config.cc).

One rule: what the optargs mean is decided here without looking at any server; whether the servers at hand can do it
is decided in `check`, with the newest list of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from model import datum as d
from model.errors import ReqlError, ReqlOpFailedError
from proxy.reql.registry import fail
from proxy.reql.values import as_datum, as_integer, as_number, as_string

DEFAULT_TAG: Final = "default"  # the server tag that every new server has
MAX_SHARDS: Final = 64

NAME: Final = re.compile(r"[A-Za-z0-9_-]+\Z")
NAME_RULE: Final = "Use A-Z, a-z, 0-9, _ and - only"

LAYOUT_OPTARGS: Final[dict[str, Any]] = {
    "shards": as_integer,
    "replicas": as_datum,
    "nonvoting_replica_tags": as_datum,
    "primary_replica_tag": as_string,
}


def check_name(name: str, what: str, at: int | str | None = None) -> str:
    """The name, if it may name a database, table or server tag."""
    if not NAME.match(name):
        fail(f"{what} name `{name}` invalid ({NAME_RULE}).", at)
    return name


class TaggedServer(NamedTuple):
    """A server as layouts see it."""

    name: str
    tags: frozenset[str]


@dataclass(frozen=True, slots=True)
class Layout:
    """replicas: how many of each shard go to servers with a tag."""

    shards: int = 1
    replicas: Mapping[str, int] = field(default_factory=lambda: {DEFAULT_TAG: 1})
    primary_tag: str = DEFAULT_TAG
    nonvoting_tags: frozenset[str] = frozenset()

    def check(self, servers: Sequence[TaggedServer]) -> None:
        """Raises ReqlOpFailedError, in RethinkDB's words, if these servers cannot hold the table so."""
        _check_counts(self)
        tagged = {
            tag: [server for server in servers if tag in server.tags] for tag, count in self.replicas.items() if count
        }
        claimed: dict[str, str] = {}
        for tag, holders in sorted(tagged.items()):
            if not holders:
                raise ReqlOpFailedError(f"Could not find any servers with server tag `{tag}`.")
            for server in holders:
                if server.name in claimed:
                    raise ReqlOpFailedError(
                        f"Server tags `{tag}` and `{claimed[server.name]}` overlap; the server `{server.name}` has "
                        "both tags. The server tags used for replication settings for a given table must be "
                        "non-overlapping."
                    )
                claimed[server.name] = tag
        for tag, holders in sorted(tagged.items()):
            count = self.replicas[tag] % (1 << 64)
            if count > len(holders):
                raise ReqlOpFailedError(
                    f"Can't put {count} replicas on servers with the tag `{tag}` because there are only "
                    f"{len(holders)} servers with the tag `{tag}`. It's impossible to have more replicas of the data "
                    "than there are servers."
                )


def _check_counts(layout: Layout) -> None:
    if not any(layout.replicas.values()):
        raise ReqlOpFailedError(
            "You must set `replicas` to at least one. `replicas` includes the primary replica; if there are zero "
            "replicas, there is nowhere to put the data."
        )
    if layout.shards > MAX_SHARDS:
        raise ReqlOpFailedError(f"Maximum number of shards is {MAX_SHARDS}.")
    primary = layout.primary_tag
    if not layout.replicas.get(primary):
        raise ReqlOpFailedError(
            f"Can't use server tag `{primary}` for primary replicas because you specified no replicas in server tag "
            f"`{primary}`."
        )
    for tag in sorted(layout.nonvoting_tags):
        if tag not in layout.replicas:
            raise ReqlOpFailedError(
                f"You specified that the replicas in server tag `{tag}` should be non-voting, but you didn't specify a "
                f"number of replicas in server tag `{tag}`."
            )


def layout_of(env: Any, optargs: Mapping[str, Any], required: bool = False) -> Layout:
    """The layout that optargs ask for; raises RethinkDB's errors, blaming the optarg. required: they must say all."""
    if required and "shards" not in optargs:
        fail("Missing required argument `shards`.")
    shards = optargs.get("shards", 1)
    if shards <= 0:
        fail("Every table must have at least one shard.", "shards")
    replicas = {DEFAULT_TAG: 1}
    if required and "replicas" not in optargs:
        fail("Missing required argument `replicas`.")
    if "replicas" in optargs:
        replicas = _replicas(env, optargs)
    nonvoting: frozenset[str] = frozenset()
    if "nonvoting_replica_tags" in optargs:
        nonvoting = frozenset(_tags(optargs["nonvoting_replica_tags"], "nonvoting_replica_tags"))
    primary = DEFAULT_TAG
    if "primary_replica_tag" in optargs:
        primary = check_name(optargs["primary_replica_tag"], "Server tag", "primary_replica_tag")
    return Layout(shards, replicas, primary, nonvoting)


def _replicas(env: Any, optargs: Mapping[str, Any]) -> dict[str, int]:
    wanted = optargs["replicas"]
    try:
        if d.type_name(wanted) == "OBJECT":
            return _replicas_by_tag(env, wanted, "primary_replica_tag" in optargs)
        if not d.is_number(wanted):
            fail(f"Expected type OBJECT or NUMBER but found {d.type_name(wanted)}:\n{d.print_datum(wanted)}")
        for name in ("primary_replica_tag", "nonvoting_replica_tags"):
            if name in optargs:
                fail(f"`replicas` must be an OBJECT if `{name}` is specified.")
        return {DEFAULT_TAG: as_integer(env, wanted)}
    except ReqlError as error:
        error.at = "replicas"
        raise


def _replicas_by_tag(env: Any, wanted: dict[str, Any], has_primary: bool) -> dict[str, int]:
    if not has_primary:
        fail("`primary_replica_tag` must be specified when `replicas` is an OBJECT.")
    out = {}
    for tag in sorted(wanted, key=str.encode):
        check_name(tag, "Server tag")
        count = as_integer(env, as_number(env, wanted[tag]))
        if count < 0:
            fail("Can't have a negative number of replicas")
        out[tag] = count
    return out


def _tags(wanted: Any, at: str) -> list[str]:
    if wanted.__class__ is not list:
        fail(f"Expected type ARRAY but found {d.type_name(wanted)}:\n{d.print_datum(wanted)}", at)
    for tag in wanted:
        if tag.__class__ is not str:
            fail(f"Expected type STRING but found {d.type_name(tag)}:\n{d.print_datum(tag)}", at)
    return [check_name(tag, "Server tag", at) for tag in wanted]
