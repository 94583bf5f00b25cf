"""Credentials: what is kept does not open the door; guessing gets slow; strangers learn nothing."""

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.auth import Backoff, Credential, Credentials, UserDirectory, make_credential, passwordless_admin


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def directory(clock=None, **users):
    return UserDirectory(users.get, b"secret", clock or Clock())


def test_the_example_of_rfc_7677():
    salt = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    credential = make_credential("pencil", 4096, lambda size: salt)
    assert base64.b64encode(credential.stored_key) == b"WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY="
    assert base64.b64encode(credential.server_key) == b"wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="


@settings(max_examples=20)
@given(st.text(max_size=20), st.text(max_size=20), st.integers(1, 5))
def test_only_the_password_fits(password, other, iterations):
    credential = make_credential(password, iterations)
    assert credential.fits(password)
    assert credential.fits(other) == (other == password)
    assert Credential.from_document(credential.to_document()) == credential


def test_a_credential_shows_no_keys():
    credential = make_credential("x", 1)
    assert repr(credential) == "Credential(iterations=1)"


def test_a_fresh_admin_is_as_rethinkdbs():
    credential = passwordless_admin()
    assert credential.iterations == 1
    assert credential.fits("")


def test_a_stranger_is_shown_the_same_salt_each_time_and_no_password_fits():
    users = directory(admin=passwordless_admin())
    first, again = users.verifier("nobody"), users.verifier("nobody")
    assert first == again
    assert first != users.verifier("somebody")
    assert (len(first.salt), first.iterations) == (16, 4096)
    assert not first.fits("")


def test_keys_of_old_protocols():
    users = directory(admin=make_credential("hunter2", 10))
    assert users.key_fits("admin", b"hunter2")
    assert users.key_fits("admin", b"hunter2")
    assert not users.key_fits("admin", b"")
    assert users.key_is_cheap("admin")
    assert not directory(admin=make_credential("x", 20_000)).key_is_cheap("admin")


def test_a_changed_password_is_not_remembered():
    users = {"admin": make_credential("old", 1)}
    known = UserDirectory(users.get, b"secret", Clock())
    assert known.key_fits("admin", b"old")
    assert known.needs_password()
    users["admin"] = make_credential("", 1)
    assert not known.key_fits("admin", b"old")
    assert known.key_fits("admin", b"")
    assert not known.needs_password()
    assert not known.needs_password("nobody")


def test_a_document_is_read_once_and_a_new_one_anew():
    first, second = make_credential("a", 1), make_credential("b", 1)
    documents = {"bob": first.to_document()}
    credentials = Credentials(lambda: documents)
    assert credentials.of("bob") == first
    assert credentials.of("bob") is credentials.of("bob")
    documents["bob"] = second.to_document()
    assert credentials.of("bob") == second
    del documents["bob"]
    assert credentials.of("bob") is None


def test_some_failures_are_free_then_the_wait_doubles():
    clock = Clock()
    backoff = Backoff(clock)
    waits = []
    for _ in range(20):
        backoff.note("10.0.0.1", "admin", False)
        waits.append(backoff.wait_s("10.0.0.1", "admin"))
    assert waits[:4] == [0.0] * 4
    assert waits[4:7] == [0.25, 0.5, 1.0]
    assert max(waits) == 60.0
    clock.now += 60.0
    assert backoff.wait_s("10.0.0.1", "admin") == 0.0
    clock.now += 20 * Backoff.PAIR[2]
    backoff.note("10.0.0.1", "admin", False)
    assert backoff.wait_s("10.0.0.1", "admin") == 0.0


def test_those_who_wait_stand_in_line():
    clock = Clock()
    backoff = Backoff(clock)
    assert backoff.stand_in_line("10.0.0.1", "admin") == 0.0
    for _ in range(5):
        backoff.note("10.0.0.1", "admin", False)
    assert [backoff.stand_in_line("10.0.0.1", "admin") for _ in range(3)] == [0.25, 0.5, 0.75]
    assert backoff.stand_in_line("10.0.0.1", "other") == 0.0
    clock.now += 1.0
    assert backoff.stand_in_line("10.0.0.1", "admin") == 0.0


def test_an_address_that_many_share_is_not_kept_waiting_for_failures_of_long_ago():
    clock = Clock()
    backoff = Backoff(clock)
    for number in range(1000):
        backoff.note("10.0.0.1", f"user{number % 300}", False)
        clock.now += 6.0
    assert backoff.wait_s("10.0.0.1", "somebody else") == 0.0


def test_success_clears_a_users_own_failures():
    backoff = Backoff(Clock())
    for _ in range(4):
        backoff.note("10.0.0.1", "admin", False)
    backoff.note("10.0.0.1", "admin", True)
    backoff.note("10.0.0.1", "admin", False)
    assert backoff.wait_s("10.0.0.1", "admin") == 0.0


def test_an_address_that_tries_many_names_waits_even_if_one_of_them_is_its_own():
    backoff = Backoff(Clock())
    for number in range(30):
        backoff.note("10.0.0.1", f"user{number}", False)
        backoff.note("10.0.0.1", "mallory", True)
    assert backoff.wait_s("10.0.0.1", "mallory") > 0
    assert backoff.wait_s("10.0.0.2", "user3") == 0.0


def test_strangers_cannot_lock_a_user_out_of_an_address_that_knows_the_password():
    backoff = Backoff(Clock())
    backoff.note("10.0.0.9", "admin", True)
    for number in range(60):
        backoff.note(f"10.0.1.{number}", "admin", False)
    assert backoff.wait_s("10.0.0.9", "admin") == 0.0
    assert 0.0 < backoff.wait_s("10.0.0.8", "admin") <= 2.0


def test_the_memory_of_failures_is_bounded(monkeypatch):
    monkeypatch.setattr(Backoff, "MAX_ENTRIES", 50)
    backoff = Backoff(Clock())
    for number in range(500):
        backoff.note(f"a{number}", "x", False)
        backoff.note(f"a{number}", "y", True)
    assert len(backoff._failures) == 50
    assert len(backoff._trusted) == 50


@pytest.mark.parametrize(("failures", "refused"), [(4, False), (5, True)])
def test_the_directory_refuses_in_words(failures, refused):
    users = directory()
    for _ in range(failures):
        users.note("a", "admin", False)
    assert (users.refusal("a", "admin") is not None) == refused
    if refused:
        assert users.refusal("a", "admin") == "Too many failed logins; try again in 0.2 seconds."
        assert users.refusal("a", "admin", patience_s=0.25) is None
        assert users.stand_in_line("a", "admin") == 0.25
        assert users.refusal("a", "admin", patience_s=0.25)
