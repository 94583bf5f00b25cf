"""How tables are spread over servers: what is refused, whichever servers there are."""

from __future__ import annotations

from typing import Any

import pytest

from model.errors import ReqlError, ReqlOpFailedError
from proxy.reql.layouts import DEFAULT_TAG, Layout, TaggedServer, layout_of

ALPHA = TaggedServer("alpha", frozenset({DEFAULT_TAG, "east"}))
BETA = TaggedServer("beta", frozenset({DEFAULT_TAG, "west"}))


@pytest.mark.parametrize(
    "layout",
    [
        Layout(),
        Layout(shards=64, replicas={DEFAULT_TAG: 2}),
        Layout(replicas={"east": 1, "west": 1}, primary_tag="east", nonvoting_tags=frozenset({"west"})),
        Layout(replicas={"east": 1, "nowhere": 0}, primary_tag="east"),
    ],
)
def test_what_two_servers_can_hold(layout: Layout) -> None:
    layout.check([ALPHA, BETA])


@pytest.mark.parametrize(
    ("layout", "beginning"),
    [
        (Layout(replicas={DEFAULT_TAG: 0}), "You must set `replicas` to at least one."),
        (Layout(shards=65), "Maximum number of shards is 64."),
        (Layout(replicas={DEFAULT_TAG: 3}), "Can't put 3 replicas on servers with the tag `default`"),
        (Layout(replicas={DEFAULT_TAG: -1}), "Can't put 18446744073709551615 replicas"),
        (Layout(replicas={"moon": 1}, primary_tag="moon"), "Could not find any servers with server tag `moon`."),
        (Layout(replicas={"east": 1}, primary_tag="west"), "Can't use server tag `west` for primary replicas"),
        (Layout(nonvoting_tags=frozenset({"west"})), "You specified that the replicas in server tag `west` should"),
        (
            Layout(replicas={DEFAULT_TAG: 1, "east": 1}),
            "Server tags `east` and `default` overlap; the server `alpha` has both tags.",
        ),
    ],
)
def test_what_two_servers_cannot_hold(layout: Layout, beginning: str) -> None:
    with pytest.raises(ReqlOpFailedError) as caught:
        layout.check([ALPHA, BETA])
    assert caught.value.message.startswith(beginning)


@pytest.mark.parametrize(
    ("optargs", "message", "at"),
    [
        ({"shards": 0}, "Every table must have at least one shard.", "shards"),
        ({"replicas": "x"}, 'Expected type OBJECT or NUMBER but found STRING:\n"x"', "replicas"),
        ({"replicas": {"a b": 1}, "primary_replica_tag": "a"}, "Server tag name `a b` invalid", "replicas"),
        ({"replicas": {"a": "x"}, "primary_replica_tag": "a"}, "Expected type NUMBER but found STRING.", "replicas"),
        ({"replicas": {"a": -1}, "primary_replica_tag": "a"}, "Can't have a negative number of replicas", "replicas"),
        ({"replicas": {"a": 1}}, "`primary_replica_tag` must be specified when `replicas` is an OBJECT.", "replicas"),
        ({"replicas": 1, "primary_replica_tag": "a"}, "`replicas` must be an OBJECT if `primary", "replicas"),
        ({"replicas": 1, "nonvoting_replica_tags": []}, "`replicas` must be an OBJECT if `nonvoting", "replicas"),
        ({"nonvoting_replica_tags": 5}, "Expected type ARRAY but found NUMBER:\n5", "nonvoting_replica_tags"),
        ({"nonvoting_replica_tags": [5]}, "Expected type STRING but found NUMBER:\n5", "nonvoting_replica_tags"),
        ({"primary_replica_tag": "a b"}, "Server tag name `a b` invalid", "primary_replica_tag"),
    ],
)
def test_optargs_that_make_no_sense(optargs: dict[str, Any], message: str, at: str) -> None:
    with pytest.raises(ReqlError) as caught:
        layout_of(None, optargs)
    assert caught.value.message.startswith(message)
    assert caught.value.at == at
