"""Random UUIDs: the form that others read, no two alike, all bits used."""

import os
import uuid

from server.uuids import RandomUuids


def test_each_is_a_random_uuid_in_the_standard_form_and_none_comes_twice():
    uuids = RandomUuids()
    many = [uuids.new() for _ in range(2000)]
    assert len(set(many)) == 2000
    for text in many:
        parsed = uuid.UUID(text)
        assert str(parsed) == text
        assert (parsed.version, parsed.variant) == (4, uuid.RFC_4122)


def test_all_other_bits_are_random():
    uuids = RandomUuids()
    numbers = [int(uuid.UUID(uuids.new())) for _ in range(500)]
    always, never = numbers[0], ~numbers[0]
    for number in numbers:
        always &= number
        never &= ~number
    fixed = (always | never) & ((1 << 128) - 1)
    assert fixed == (0xF << 76) | (0b11 << 62)


def test_two_sources_and_two_fetches_share_nothing(monkeypatch):
    fetched = []
    real = os.urandom
    monkeypatch.setattr(os, "urandom", lambda size: fetched.append(size) or real(size))
    one, other = RandomUuids(), RandomUuids()
    texts = [source.new() for _ in range(130) for source in (one, other)]
    assert len(set(texts)) == 260
    assert len(fetched) == 4
