"""Bytes that others made are refused with an error of ours, whatever msgspec raises for them."""

import msgspec
import pytest

from backup.capture import unpack_block
from backup.manifest import decode
from consensus.links import LinkBroken
from consensus.messages import BadMessage, Snapshot, decode_conf_change, decode_message
from consensus.shipping import decode_word
from model.effect import decode as decode_batch
from model.effect import time_of
from model.errors import Corrupt, UnfitArchive
from model.undecodable import UNDECODABLE
from server.cluster.joining import Asked, JoinRefused
from server.cluster.snapshot_files import contents_of

TEXT = b"\xa1\x80"  # a string of one byte that is no UTF-8
DEEP = b"\x91" * 100_000
STRANGE = [TEXT, b"\x99" + TEXT * 9, b"\x99\x00" + TEXT * 8, b"\x93\x01\x01" + TEXT, DEEP, b"\x93\x01\x01" + DEEP, b""]


@pytest.mark.parametrize("data", STRANGE, ids=range(len(STRANGE)))
@pytest.mark.parametrize(
    ("read", "error"),
    [
        (lambda data: unpack_block(data, "block"), UnfitArchive),
        (lambda data: decode(data, "manifest"), UnfitArchive),
        (decode_message, BadMessage),
        (lambda data: decode_conf_change(data + b"\xc1"), BadMessage),
        (decode_word, LinkBroken),
        (decode_batch, Corrupt),
        (lambda data: time_of(data + b"\xc1"), Corrupt),
        (lambda data: Asked(b"", data, bytes(32)), JoinRefused),
        (lambda data: contents_of(Snapshot(index=1, raft_term=1, data=data)), Corrupt),
    ],
)
def test_strange_bytes_are_refused_by_name(read, error, data):
    with pytest.raises(error):
        read(data)


def test_what_msgspec_raises_is_all_there():
    for decode_json in (False, True):
        decoder = (msgspec.json if decode_json else msgspec.msgpack).Decoder()
        for data in (b'"\x80"', b"[" * 100_000, b"{") if decode_json else (TEXT, DEEP, b"\xc1"):
            with pytest.raises(UNDECODABLE):
                decoder.decode(data)
