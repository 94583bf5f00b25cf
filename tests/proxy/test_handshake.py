"""The handshake: RethinkDB's words and codes, any cutting of the bytes, nothing for strangers."""

import base64
import hashlib
import hmac
import json
import struct
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.auth import UserDirectory, make_credential, passwordless_admin
from proxy.handshake import (
    MAGIC_V0_1,
    MAGIC_V0_2,
    MAGIC_V0_3,
    MAGIC_V0_4,
    MAGIC_V1_0,
    WIRE_JSON,
    WIRE_PROTOBUF,
    CheckKey,
    Handshake,
    Hold,
    Ready,
    Refuse,
)

USERS = {
    "admin": passwordless_admin(),
    "bob": make_credential("secret", 2),
    "a,b=c": make_credential("odd", 2),
    "élan": make_credential("pässword", 2),
}
GREETING = b'{"max_protocol_version":0,"min_protocol_version":0,"server_version":"2.4.4","success":true}\0'
WRONG_PORT = (
    b"ERROR: Received an unsupported protocol version. This port is for RethinkDB queries. "
    b"Does your client driver version not match the server?\n\0"
)
PROTOBUF = b"ERROR: The PROTOBUF client protocol is no longer supported\n\0"


def handshake(users=USERS):
    directory = UserDirectory(users.get, b"server secret", lambda: 0.0)
    return Handshake(directory, lambda size: b"n" * size, "127.0.0.1"), directory


def number(value):
    return struct.pack("<I", value)


def message(**fields):
    return json.dumps(fields).encode() + b"\0"


def first(user="admin", nonce="abc", **changes):
    fields = {
        "protocol_version": 0,
        "authentication_method": "SCRAM-SHA-256",
        "authentication": f"n,,n={user},r={nonce}",
    }
    return message(**{name: value for name, value in (fields | changes).items() if value is not None})


def final(server_first, user="admin", password="", nonce="abc"):
    """The client's last word, and the signature that the server has to answer with."""
    attributes = dict(part.split("=", 1) for part in server_first.split(","))
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(attributes["s"]), int(attributes["i"]))
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    bare = f"c=biws,r={attributes['r']}"
    signed = f"n={user},r={nonce},{server_first},{bare}".encode()
    signature = hmac.digest(hashlib.sha256(client_key).digest(), signed, "sha256")
    proof = base64.b64encode(bytes(a ^ b for a, b in zip(client_key, signature, strict=True))).decode()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    expected = "v=" + base64.b64encode(hmac.digest(server_key, signed, "sha256")).decode()
    return f"{bare},p={proof}", expected


def said(events):
    return b"".join(event for event in events if isinstance(event, bytes))


def sent_json(event):
    assert event.endswith(b"\0")
    return json.loads(event[:-1])


def log_in(user="admin", password="", wire_name=None):
    wire_name = wire_name or user
    talk, directory = handshake()
    events = talk.receive(number(MAGIC_V1_0) + first(wire_name))
    assert events[0] == GREETING
    reply = sent_json(events[1])
    assert reply["success"] is True
    proof, expected = final(reply["authentication"], wire_name, password)
    return talk.receive(message(authentication=proof) + b"rest"), expected, directory


@pytest.mark.parametrize(
    ("user", "password", "wire_name"),
    [("admin", "", None), ("bob", "secret", None), ("a,b=c", "odd", "a=2Cb=3Dc"), ("élan", "pässword", None)],
)
def test_scram_with_the_right_password(user, password, wire_name):
    events, expected, _ = log_in(user, password, wire_name)
    assert sent_json(events[0]) == {"authentication": expected, "success": True}
    assert events[1:] == [Ready(user, False, b"rest")]


@pytest.mark.parametrize(("user", "password"), [("admin", "x"), ("bob", "Secret"), ("nobody", ""), ("nobody", "x")])
def test_a_wrong_password_and_an_unknown_user_look_the_same(user, password):
    events, _, _ = log_in(user, password)
    assert said(events) == b'{"error":"Wrong password","error_code":12,"success":false}\0'
    assert events[1:] == [Refuse("Wrong password")]


def test_the_greeting_comes_before_the_client_says_anything_more():
    talk, _ = handshake()
    assert talk.receive(number(MAGIC_V1_0)) == [GREETING]


def test_the_challenge_is_rethinkdbs():
    talk, _ = handshake()
    events = talk.receive(number(MAGIC_V1_0) + first())
    assert events[1].startswith(b'{"authentication":"r=abc')
    assert sent_json(events[1])["authentication"].endswith(",i=1")
    talk, _ = handshake()
    events = talk.receive(number(MAGIC_V1_0) + first("nobody"))
    assert sent_json(events[1])["authentication"].endswith(",i=4096")


@settings(max_examples=40)
@given(st.lists(st.integers(0, 400), max_size=12), st.booleans())
def test_any_cutting_gives_the_same_events(cuts, is_right):
    talk, _ = handshake()
    opening = talk.receive(number(MAGIC_V1_0) + first())
    proof, _ = final(sent_json(opening[1])["authentication"], password="" if is_right else "x")
    data = number(MAGIC_V1_0) + first() + message(authentication=proof)
    talk, _ = handshake()
    whole = talk.receive(data)
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    talk, _ = handshake()
    events = []
    for low, high in pairwise(edges):
        events += talk.receive(data[low:high])
    assert events == whole


@pytest.mark.parametrize(
    ("code", "words", "data"),
    [
        (8, "Invalid JSON object.", b"nonsense\0"),
        (8, "Invalid JSON object.", b"\0"),
        (7, "Limited read buffer size.", b" " * 2048),
        (7, "Limited read buffer size.", b" " * 2047 + b"\0"),
        (1, "Expected a number for `protocol_version`.", b"5\0"),
        (1, "Expected a number for `protocol_version`.", first(protocol_version=None)),
        (1, "Expected a number for `protocol_version`.", first(protocol_version=False)),
        (2, "Unsupported `protocol_version`.", first(protocol_version=1)),
        (3, "Expected a string for `authentication_method`.", first(authentication_method=None)),
        (4, "Unsupported `authentication_method`.", first(authentication_method="PLAIN")),
        (5, "Expected a string for `authentication`.", first(authentication=7)),
        (15, "Channel binding is not supported", first(authentication="y,,n=admin,r=x")),
        (10, "Invalid encoding", first(authentication="n,n=admin")),
        (10, "Invalid encoding", first(authentication="n,,n=admin")),
        (10, "Invalid encoding", first(authentication="n,,n=admin,n=admin,r=x")),
        (10, "Invalid encoding", first(authentication="n,,n=admin,r=x,z=1")),
        (10, "Invalid encoding", first(authentication="n,,nn=admin,r=x")),
        (10, "Invalid encoding", first(authentication="n,,n=admin,r")),
        (11, "Extensions not supported", first(authentication="n,,m=1,n=admin,r=x")),
        (18, "Invalid username encoding", first(authentication="n,,n=a=2Xb,r=x")),
        (18, "Invalid username encoding", first(authentication="n,,n=a=,r=x")),
        (18, "Empty username", first(authentication="n,,n=,r=x")),
    ],
)
def test_refusals_of_the_first_message(code, words, data):
    talk, _ = handshake()
    events = talk.receive(number(MAGIC_V1_0) + data)
    assert events[0] == GREETING
    assert sent_json(events[1]) == {"error": words, "error_code": code, "success": False}
    assert events[2:] == [Refuse(words)]
    assert talk.receive(b"more") == []


@pytest.mark.parametrize(
    ("code", "words", "change"),
    [
        (10, "Invalid encoding", lambda proof: proof.replace("biws", "eSws")),
        (10, "Invalid encoding", lambda proof: proof + ",z=1"),
        (10, "Invalid encoding", lambda proof: proof.partition(",p=")[0]),
        (10, "Invalid encoding", lambda proof: ""),
        (11, "Extensions not supported", lambda proof: proof + ",m=1"),
        (12, "Wrong password", lambda proof: proof[:-3] + "A=="),
        (12, "Wrong password", lambda proof: proof.partition(",p=")[0] + ",p=A"),
        (12, "Wrong password", lambda proof: proof.partition(",p=")[0] + ",p="),
        (12, "Wrong password", lambda proof: proof.replace("r=abc", "r=abd")),
    ],
)
def test_refusals_of_the_final_message(code, words, change):
    talk, _ = handshake()
    events = talk.receive(number(MAGIC_V1_0) + first())
    proof, _ = final(sent_json(events[1])["authentication"])
    events = talk.receive(message(authentication=change(proof)))
    assert sent_json(events[0]) == {"error": words, "error_code": code, "success": False}


def test_another_nonce_signed_with_the_right_password():
    talk, _ = handshake()
    events = talk.receive(number(MAGIC_V1_0) + first())
    server_first = sent_json(events[1])["authentication"]
    credential = USERS["admin"]
    salted = hashlib.pbkdf2_hmac("sha256", b"", credential.salt, credential.iterations)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    signed = f"n=admin,r=abc,{server_first},c=biws,r=other".encode()
    signature = hmac.digest(credential.stored_key, signed, "sha256")
    proof = base64.b64encode(bytes(a ^ b for a, b in zip(client_key, signature, strict=True))).decode()
    events = talk.receive(message(authentication=f"c=biws,r=other,p={proof}"))
    assert sent_json(events[0])["error_code"] == 20


@pytest.mark.parametrize(("magic", "one_at_a_time"), [(MAGIC_V0_3, True), (MAGIC_V0_4, False)])
def test_keys(magic, one_at_a_time):
    data = number(magic) + number(3) + b"key" + number(WIRE_JSON) + b"rest"
    for cut in range(len(data) + 1):
        talk, _ = handshake()
        events = talk.receive(data[:cut]) + talk.receive(data[cut:])
        assert events == [CheckKey("admin", b"key")]
        assert talk.key_checked(True) == [b"SUCCESS\0", Ready("admin", one_at_a_time, b"rest")]


def test_a_wrong_key():
    talk, _ = handshake()
    talk.receive(number(MAGIC_V0_4) + number(1) + b"x" + number(WIRE_JSON))
    events = talk.key_checked(False)
    assert events == [b"ERROR: Incorrect authorization key.\n\0", Refuse("Incorrect authorization key.")]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (number(MAGIC_V0_1), PROTOBUF),
        (number(MAGIC_V0_2), PROTOBUF),
        (b"GET / HTTP/1.1\r\n\r\n", WRONG_PORT),
        (b"\0\0\0\0", WRONG_PORT),
        (
            number(MAGIC_V0_4) + number(2049),
            b"ERROR: Client provided an authorization key that is too long.\n\0",
        ),
    ],
)
def test_refusals_of_old_protocols(data, words):
    talk, _ = handshake()
    events = talk.receive(data)
    assert events[0] == words
    assert isinstance(events[1], Refuse)


@pytest.mark.parametrize(
    ("protocol", "words"),
    [
        (WIRE_PROTOBUF, PROTOBUF),
        (5, b"ERROR: Unrecognized protocol specified: '5'\n\0"),
        (0xFFFFFFFF, b"ERROR: Unrecognized protocol specified: '-1'\n\0"),
    ],
)
def test_refusals_of_wire_protocols(protocol, words):
    talk, _ = handshake()
    talk.receive(number(MAGIC_V0_4) + number(0) + number(protocol))
    assert talk.key_checked(True)[0] == words


def after_failures(count, user="bob"):
    directory = UserDirectory(USERS.get, b"x", lambda: 0.0)
    for _ in range(count):
        directory.note("127.0.0.1", user, False)
    return Handshake(directory, lambda size: b"n" * size, "127.0.0.1")


@pytest.mark.parametrize(("password", "success"), [("secret", True), ("wrong", False)])
def test_after_some_failures_an_attempt_is_held_before_it_is_looked_at(password, success):
    talk = after_failures(5)
    assert talk.receive(number(MAGIC_V1_0) + first("bob")) == [GREETING, Hold(0.25)]
    (reply,) = talk.held()
    proof, expected = final(sent_json(reply)["authentication"], "bob", password)
    answer = sent_json(talk.receive(message(authentication=proof))[0])
    assert answer == (
        {"authentication": expected, "success": True}
        if success
        else {"error": "Wrong password", "error_code": 12, "success": False}
    )


def test_a_held_key_is_checked_later():
    talk = after_failures(5, "admin")
    assert talk.receive(number(MAGIC_V0_4) + number(1) + b"k" + number(WIRE_JSON)) == [Hold(0.25)]
    assert talk.held() == [CheckKey("admin", b"k")]
    assert said(talk.key_checked(True)) == b"SUCCESS\0"


def test_after_many_failures_an_attempt_is_not_looked_at():
    talk = after_failures(9)
    events = talk.receive(number(MAGIC_V1_0) + first("bob"))
    assert sent_json(events[1])["error_code"] == 20
    assert "Too many failed logins" in sent_json(events[1])["error"]
    talk = after_failures(9, "admin")
    assert said(talk.receive(number(MAGIC_V0_4) + number(1) + b"k")).startswith(b"ERROR: Too many failed logins")


def test_failures_are_noted():
    _, _, directory = log_in("bob", "wrong")
    for _ in range(4):
        directory.note("127.0.0.1", "bob", False)
    assert directory.refusal("127.0.0.1", "bob")
