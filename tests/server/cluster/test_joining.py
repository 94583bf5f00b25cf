"""Joining: who has the token gets in and learns the secret; who only listens or guesses gets nothing."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from model.errors import BadSetting
from server.cluster.joining import (
    HEAD,
    MAC_BYTES,
    MAGIC,
    Asked,
    Invitation,
    JoinRefused,
    Membership,
    Question,
    decode_token,
    encode_token,
    invitation_document,
    key_of,
    refusal,
    why_not,
)

INVITATION = Invitation(("a:1", "b:2"), "cluster", "inv", b"s" * 24)
KEY = key_of(INVITATION.secret)
MEMBERSHIP = Membership(4, "name_4", b"cluster secret", {1: "a:1", 2: "b:2"})


def question(invitation=INVITATION):
    return Question.about(invitation, "server", "name", "c:3", "0.1.0", ["x"])


def asked(data):
    assert data.startswith(MAGIC)
    head = len(MAGIC) + HEAD.size
    return Asked(data[:head], data[head:-MAC_BYTES], data[-MAC_BYTES:])


def body(answer):
    assert HEAD.unpack(answer[: HEAD.size])[0] == len(answer) - HEAD.size
    return answer[HEAD.size :]


def test_a_token_holds_what_it_was_made_of():
    assert decode_token(encode_token(INVITATION)) == INVITATION
    assert decode_token(f"  {encode_token(INVITATION)}\n") == INVITATION


@pytest.mark.parametrize("text", ["", "rdb1.", "rdb1.!!", "rdb2.abcd", "hello", encode_token(INVITATION)[:-6]])
def test_what_is_no_token_is_said_to_be_none(text):
    with pytest.raises(BadSetting, match="member invite"):
        decode_token(text)


def test_the_secret_comes_across_sealed():
    ask = question()
    answer = asked(ask.to_bytes()).welcome(KEY, MEMBERSHIP)
    assert MEMBERSHIP.secret not in answer
    assert INVITATION.secret not in ask.to_bytes()
    assert ask.take(body(answer)) == MEMBERSHIP


def test_an_answer_of_somebody_without_the_key_is_no_answer():
    ask = question()
    with pytest.raises(JoinRefused, match="not a member"):
        ask.take(body(asked(ask.to_bytes()).welcome(key_of(b"guess"), MEMBERSHIP)))


def test_an_answer_fits_one_question_only():
    first, second = question(), question()
    answer = asked(first.to_bytes()).welcome(KEY, MEMBERSHIP)
    with pytest.raises(JoinRefused):
        second.take(body(answer))


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_changed_answer_is_no_answer(at, flip):
    ask = question()
    answer = bytearray(body(asked(ask.to_bytes()).welcome(KEY, MEMBERSHIP)))
    answer[at % len(answer)] ^= flip
    with pytest.raises(JoinRefused):
        ask.take(bytes(answer))


def test_the_reason_of_a_refusal_is_told():
    with pytest.raises(JoinRefused, match="too late"):
        question().take(body(refusal("too late")))


DOCUMENT = invitation_document(KEY, ends_ms=1000, learner=False)


@pytest.mark.parametrize(
    ("document", "invitation", "cluster_id", "now_ms", "reason"),
    [
        (DOCUMENT, INVITATION, "cluster", 999, ""),
        (None, INVITATION, "cluster", 0, "no such invitation"),
        (DOCUMENT, INVITATION, "other", 0, "belongs to the cluster other"),
        (DOCUMENT, Invitation((), "cluster", "inv", b"guess"), "cluster", 0, "not the one that was given out"),
        (DOCUMENT, INVITATION, "cluster", 1001, "has ended"),
        ({**DOCUMENT, "used_by": "another"}, INVITATION, "cluster", 0, "used by another"),
        ({**DOCUMENT, "used_by": "server"}, INVITATION, "cluster", 0, ""),
    ],
)
def test_who_is_let_in(document, invitation, cluster_id, now_ms, reason):
    found = why_not(document, asked(question(invitation).to_bytes()), cluster_id, now_ms)
    assert reason in found if reason else found == ""


@given(st.binary(max_size=200))
@example(b"\x99\x00\xa1\x80")
def test_garbage_is_refused(data):
    with pytest.raises(JoinRefused):
        question().take(data)
    try:
        found = Asked(b"", data, bytes(32))
    except JoinRefused:
        return
    assert not found.is_proved(KEY)
