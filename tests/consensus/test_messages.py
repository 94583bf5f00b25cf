"""Messages and changes as bytes: what goes in comes out, and noise comes out as an error."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.messages import (
    BadMessage,
    Change,
    ChangeKind,
    ConfChange,
    ConfState,
    Entry,
    EntryKind,
    Kind,
    Message,
    Snapshot,
    Transition,
    decode_conf_change,
    decode_conf_state,
    decode_message,
    encode_conf_change,
    encode_conf_state,
    encode_message,
    entries_bytes,
    limit_entries,
)

NATURAL = st.integers(0, (1 << 63) - 1)
ENTRIES = st.lists(st.builds(Entry, NATURAL, NATURAL, st.sampled_from(EntryKind), st.binary(max_size=50)), max_size=4)
IDS = st.lists(NATURAL, max_size=3).map(tuple)
STATES = st.builds(ConfState, IDS, IDS, IDS, IDS, st.booleans())
SNAPSHOTS = st.none() | st.builds(Snapshot, NATURAL, NATURAL, STATES, st.binary(max_size=20))
MESSAGES = st.builds(
    Message,
    st.sampled_from(Kind),
    NATURAL,
    NATURAL,
    NATURAL,
    NATURAL,
    NATURAL,
    NATURAL,
    ENTRIES,
    st.booleans(),
    NATURAL,
    st.binary(max_size=20),
    SNAPSHOTS,
    NATURAL,
)
CHANGES = st.builds(
    ConfChange,
    st.lists(st.builds(Change, st.sampled_from(ChangeKind), NATURAL), max_size=4).map(tuple),
    st.sampled_from(Transition),
    st.binary(max_size=20),
)


@given(MESSAGES)
def test_messages(message: Message) -> None:
    assert decode_message(encode_message(message)) == message


@given(CHANGES)
def test_configuration_changes(change: ConfChange) -> None:
    assert decode_conf_change(encode_conf_change(change)) == change


@given(STATES)
def test_configurations(state: ConfState) -> None:
    assert decode_conf_state(encode_conf_state(state)) == state


def test_leaving_a_joint_configuration_takes_no_bytes() -> None:
    assert encode_conf_change(ConfChange()) == b""


@given(st.binary(max_size=60))
def test_noise_is_an_error_or_a_message(noise: bytes) -> None:
    for decode in (decode_message, decode_conf_change, decode_conf_state):
        try:
            decode(noise)
        except BadMessage:
            continue


@pytest.mark.parametrize(
    "fields",
    [
        [99, 1, 2],
        [3, -1, 2],
        [3, 1, 1 << 63],
        [3, 1, 2, "term"],
        [3, 1, 2, 1, 1, 1, 1, [[1, 1, 7, b""]]],
        {"kind": 3},
        [],
    ],
)
def test_fields_out_of_range_are_refused(fields: object) -> None:
    with pytest.raises(BadMessage):
        decode_message(msgspec.msgpack.encode(fields))


def test_fields_that_a_newer_version_adds_are_passed_over() -> None:
    message = Message(Kind.HEARTBEAT, 1, 2, 3)
    fields = msgspec.msgpack.decode(encode_message(message))
    assert decode_message(msgspec.msgpack.encode([*fields, "new"])) == message


@given(ENTRIES, st.integers(0, 200))
def test_a_limit_leaves_the_longest_start_that_fits_but_one_at_least(entries: list[Entry], limit: int) -> None:
    kept = limit_entries(entries, limit)
    assert kept == entries[: len(kept)]
    assert len(kept) >= min(1, len(entries))
    assert len(kept) <= 1 or entries_bytes(kept) <= limit
    assert kept == entries or entries_bytes(entries[: len(kept) + 1]) > limit
