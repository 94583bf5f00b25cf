"""The greeting and the frames of a link: bytes in, bytes out."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus import links
from consensus.links import Channel, Frames, Greeting, Identity, LinkBroken, LinkRefused

ONE = Identity("cluster", 1, "server-1", b"a secret of the cluster", ("ship", "zip"))
TWO = Identity("cluster", 2, "server-2", b"a secret of the cluster", ("ship",))


class Ends:
    """A dialer and a listener with the bytes between them."""

    def __init__(self, dialer: Identity = ONE, listener: Identity = TWO, dials: int = 2, **options: object) -> None:
        self.dialer = Greeting(dialer, b"d" * 32, dials=dials)
        self.listener = Greeting(listener, b"l" * 32, **options)  # type: ignore[arg-type]
        self.to_listener = [self.dialer.begin()]
        self.to_dialer: list[bytes] = []
        self.heard: list[tuple[Channel, bytes]] = []
        self.refusals: list[str] = []

    def talk(self, cut: int = 1 << 20) -> None:
        """Pass bytes on, in pieces of `cut`, until nobody has any."""
        while self.to_listener or self.to_dialer:
            for queue, end, answer in (
                (self.to_listener, self.listener, self.to_dialer.append),
                (self.to_dialer, self.dialer, self.to_listener.append),
            ):
                data = b"".join(queue)
                queue.clear()
                for at in range(0, len(data), cut):
                    try:
                        self.heard += end.receive(data[at : at + cut], answer)
                    except LinkRefused as refusal:
                        self.refusals.append(refusal.message)


@given(st.integers(1, 200))
def test_both_sides_know_each_other_however_the_bytes_are_cut(cut: int) -> None:
    ends = Ends()
    ends.talk(cut)
    assert ends.dialer.peer == links.Peer(2, "server-2", 2, frozenset({"ship"}))
    assert ends.listener.peer == links.Peer(1, "server-1", 2, frozenset({"ship"}))


@given(
    st.lists(
        st.binary(max_size=300) | st.integers(-2, 2).map(lambda more: bytes(links.LARGE_BYTES + more)), max_size=6
    ),
    st.integers(1, 500),
)
def test_frames_arrive_as_they_were_sent(payloads: Sequence[bytes], cut: int) -> None:
    ends = Ends()
    ends.talk()
    ends.to_listener = [ends.dialer.outgoing.pack(Channel.RAFT, payload) for payload in payloads]
    ends.talk(cut)
    assert ends.heard == [(Channel.RAFT, payload) for payload in payloads]


@given(
    st.lists(st.integers(1, 3 * links.LARGE_BYTES), min_size=1, max_size=4),
    st.integers(100, links.LARGE_BYTES),
    st.integers(1, 2),
)
def test_a_frame_made_in_slices_is_the_one_made_at_once(sizes: Sequence[int], slice_bytes: int, version: int) -> None:
    at_once, sliced = Frames(), Frames()
    for frames in (at_once, sliced):
        frames.use_key(b"a key of the link's", 1 << 20, version)
    for number, size in enumerate(sizes):
        payload = bytes([number]) * size
        frame = sliced.begin(Channel.RAFT, payload)
        parts = []
        while not frame.is_given_out:
            parts.append(frame.step(slice_bytes))
        assert max(map(len, parts)) <= max(slice_bytes, links.LARGE_BYTES)
        assert b"".join(parts) == at_once.pack(Channel.RAFT, payload)


def test_frames_right_behind_the_greeting_are_heard() -> None:
    ends = Ends()
    list(ends.listener.receive(ends.to_listener.pop(), ends.to_dialer.append))
    list(ends.dialer.receive(ends.to_dialer.pop(), ends.to_listener.append))
    list(ends.listener.receive(ends.to_listener.pop(), ends.to_dialer.append))
    early = ends.listener.outgoing.pack(Channel.PONG, b"early")
    assert list(ends.dialer.receive(ends.to_dialer.pop() + early, ends.to_listener.append)) == [
        (Channel.PONG, b"early")
    ]


@pytest.mark.parametrize(
    ("dialer", "listener", "reason"),
    [
        (ONE, replace(TWO, secret=b"another"), "secret"),
        (ONE, replace(TWO, cluster_id="other"), "another cluster"),
        (ONE, replace(TWO, member_id=3), "Member 2 was called"),
        (replace(ONE, member_id=2), TWO, "Both servers say that they are member 2"),
    ],
)
def test_who_does_not_belong_is_refused_with_the_reason(dialer: Identity, listener: Identity, reason: str) -> None:
    ends = Ends(dialer, listener)
    ends.talk()
    assert ends.dialer.peer is None
    assert ends.listener.peer is None
    assert len(ends.refusals) == 2
    assert all(reason in refusal for refusal in ends.refusals)


def test_a_member_that_is_not_known_is_refused() -> None:
    ends = Ends(admit=lambda member, server: f"no member {member} on {server}")
    ends.talk()
    assert all("no member 1 on server-1" in refusal for refusal in ends.refusals)


def test_a_version_that_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = Ends()
    monkeypatch.setattr(links, "VERSIONS", (7, 9))
    ends.listener = Greeting(TWO, b"l" * 32)
    ends.talk()
    assert "versions do not fit" in ends.refusals[0]


@pytest.mark.parametrize("older", ["dialer", "listener"])
def test_a_server_of_the_first_version_is_talked_to_as_it_knows(older: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = Ends()
    monkeypatch.setattr(links, "VERSIONS", (1, 1))
    setattr(ends, older, Ends().__dict__[older])
    ends.to_listener = [ends.dialer.begin()]
    ends.talk()
    assert ends.dialer.peer is not None
    assert ends.dialer.peer.version == 1
    payloads = [bytes(size) for size in (1, links.LARGE_BYTES, 100_000)]
    ends.to_listener = [ends.dialer.outgoing.pack(Channel.RAFT, payload) for payload in payloads]
    ends.talk()
    assert ends.heard == [(Channel.RAFT, payload) for payload in payloads]


def test_a_proof_for_another_greeting_proves_nothing() -> None:
    overheard = Ends()
    proofs: list[bytes] = []
    list(overheard.listener.receive(overheard.to_listener.pop(), overheard.to_dialer.append))
    list(overheard.dialer.receive(overheard.to_dialer.pop(), proofs.append))
    listener = Greeting(TWO, b"other" + b"x" * 27)
    answers: list[bytes] = []
    list(listener.receive(Greeting(ONE, b"d" * 32, dials=2).begin(), answers.append))
    with pytest.raises(LinkRefused, match="secret"):
        list(listener.receive(proofs[0], answers.append))


@pytest.mark.parametrize("size", [3, 100_000])
@pytest.mark.parametrize("harm", ["change", "repeat", "leave out", "swap", "other channel"])
def test_a_frame_that_was_touched_breaks_the_link(harm: str, size: int) -> None:
    ends = Ends()
    ends.talk()
    first, second = (ends.dialer.outgoing.pack(Channel.RAFT, payload * size) for payload in (b"1", b"2"))
    data = {
        "change": first[:-1] + b"?" + second,
        "repeat": first + first,
        "leave out": second,
        "swap": second + first,
        "other channel": first[:4] + bytes([Channel.QUERIES]) + first[5:],
    }[harm]
    with pytest.raises(LinkBroken):
        list(ends.listener.receive(data, ends.to_dialer.append))


def test_nothing_large_comes_from_a_stranger() -> None:
    with pytest.raises(LinkBroken, match="limit"):
        list(Greeting(TWO, b"l" * 32).receive(Frames(1 << 30).pack(Channel.GREETING, bytes(5000)), bytes))


@given(st.binary(max_size=200))
def test_noise_does_no_harm(noise: bytes) -> None:
    greeting = Greeting(TWO, b"l" * 32)
    with suppress(LinkBroken, LinkRefused):
        assert not list(greeting.receive(noise, lambda _data: None))
    assert greeting.peer is None


def test_a_frame_above_the_limit_is_not_sent() -> None:
    with pytest.raises(LinkBroken, match="limit"):
        Frames(10).pack(Channel.RAFT, bytes(11))
    with pytest.raises(LinkBroken, match="limit"):
        Frames(10).begin(Channel.RAFT, bytes(11))
