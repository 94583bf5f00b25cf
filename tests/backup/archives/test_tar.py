"""Tars written in pieces are read by every reader; tars of others are read here; hostile ones are refused."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import subprocess
import tarfile
import zlib
from collections.abc import Callable
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from backup.archives import tar_output
from backup.archives.codec import GzCodec, PlainCodec, ZstCodec, codec_for_file, codec_named, crc32_joined, opened
from backup.archives.tar_input import TarInput
from backup.archives.tar_output import TarOutput
from model.errors import UnfitArchive

CODECS = [GzCodec, ZstCodec, PlainCodec]
LONG = "top/" + "d" * 100 + "/" + "t" * 120 + ".json"


class Pipe(io.BytesIO):
    """A file that cannot be rewound, as standard output into a pipe."""

    def seekable(self) -> bool:
        return False

    def seek(self, *_: Any) -> int:
        raise OSError("not seekable")

    def tell(self) -> int:
        raise OSError("not seekable")


def written(out: io.BytesIO, codec: Any, members: list[tuple[str, bytes | list[bytes]]]) -> bytes:
    tar = TarOutput(out, codec(), 1_700_000_000, threads=2, can_rewind=out.seekable())
    for name, content in members:
        if isinstance(content, bytes):
            tar.add(name, content)
        else:
            member = tar.begin(name)
            for part in content:
                member.write(part)
            member.close()
    tar.close()
    return out.getvalue()


def read_here(data: bytes) -> list[tuple[str, bytes]]:
    return [(member.name, member.read_all(1 << 30)) for member in TarInput(opened(io.BytesIO(data)))]


def read_by_python(data: bytes) -> list[tuple[str, bytes]]:
    """As RethinkDB's restore does; Python 3.11 knows no zstd, so that is taken off before."""
    if data.startswith(b"\x28\xb5\x2f\xfd"):
        data = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data), read_across_frames=True).read()
    with tarfile.open(fileobj=io.BytesIO(data), mode="r|*") as tar:
        return [(member.name, file.read()) for member in tar if (file := tar.extractfile(member)) is not None]


def joined(members: list[tuple[str, bytes | list[bytes]]]) -> list[tuple[str, bytes]]:
    return [(name, content if isinstance(content, bytes) else b"".join(content)) for name, content in members]


SOME = [
    ("top/db/a.info", b"{}\n"),
    ("top/db/a.json", [b"[\n", b'{"id": 1}\n', b"x" * 3_000_000, b"", b"]\n"]),
    ("top/db/empty.json", []),
    (LONG, [b"long name"]),
    ("top/db/b.info", b"x" * 70_000),
    ("top/db/block.json", [b"y" * 512]),
]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("out", [io.BytesIO, Pipe])
def test_what_is_written_is_read(codec: Any, out: Callable[[], io.BytesIO]) -> None:
    data = written(out(), codec, SOME)
    assert read_here(data) == joined(SOME)
    assert read_by_python(data) == joined(SOME)


@pytest.mark.parametrize("out", [io.BytesIO, Pipe])
def test_gzip_accepts_the_checksum(out: Callable[[], io.BytesIO]) -> None:
    data = written(out(), GzCodec, SOME)
    assert gzip.decompress(data)
    assert subprocess.run(["gzip", "-t"], input=data, check=False).returncode == 0
    assert len(data) < 100_000


@settings(max_examples=30)
@given(
    st.lists(st.binary(max_size=2000) | st.lists(st.binary(max_size=2000), max_size=4), max_size=6),
    st.sampled_from(CODECS),
    st.sampled_from([io.BytesIO, Pipe]),
    st.sampled_from([16, 512, 4096]),
)
def test_any_pieces(contents: list[Any], codec: Any, out: Any, piece_bytes: int) -> None:
    members = [(f"top/db/{turn}.json", content) for turn, content in enumerate(contents)]
    usual, tar_output.PIECE_BYTES = tar_output.PIECE_BYTES, piece_bytes
    try:
        data = written(out(), codec, members)
    finally:
        tar_output.PIECE_BYTES = usual
    if members:
        assert read_here(data) == joined(members) == read_by_python(data)
    else:
        assert read_here(data) == []


def test_a_member_beyond_the_memory_limit_waits_in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_output, "SPOOL_BYTES", 1000)
    data = written(Pipe(), PlainCodec, [("top/db/a.json", [b"z" * 5000, b"y" * 5000])])
    assert read_here(data) == [("top/db/a.json", b"z" * 5000 + b"y" * 5000)]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("mode", ["w:", "w:gz", "w:bz2", "w:xz"])
def test_tars_of_others(form: int, mode: str) -> None:
    buffer = io.BytesIO()
    names = ["top/db/a.json", "top/db/" + "n" * 60 + "/" + "m" * 80 + ".info"]
    if form != tarfile.USTAR_FORMAT:
        names.append("top/db/" + "ü" * 150 + ".json")
    with tarfile.open(fileobj=buffer, mode=mode, format=form) as tar:
        folder = tarfile.TarInfo("top/db")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        link = tarfile.TarInfo("top/db/link.json")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 1300
            info.mtime = 1.25
            tar.addfile(info, io.BytesIO(b"r" * 1300))
    assert read_here(buffer.getvalue()) == [(name, b"r" * 1300) for name in names]


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress, zstandard.compress])
def test_streams_of_several_members(compress: Callable[[bytes], bytes]) -> None:
    assert opened(io.BytesIO(compress(b"one") + compress(b"two"))).read() == b"onetwo"


@pytest.mark.parametrize("codec", CODECS)
def test_damage_and_cuts_are_noticed(codec: Any) -> None:
    data = written(io.BytesIO(), codec, [("top/db/a.json", [bytes(range(256)) * 40]), ("top/db/b.json", b"b")])
    for cut in range(0, len(data) // 2, 97):
        with pytest.raises(UnfitArchive):
            read_here(data[:cut])
    for mode in ("xz", "bz2"):
        packed = lzma.compress(data) if mode == "xz" else bz2.compress(data)
        with pytest.raises(UnfitArchive):
            read_here(packed[: len(packed) // 2])


@settings(max_examples=300)
@given(st.data())
def test_changed_bytes_never_break_the_reader(data: st.DataObject) -> None:
    archive = bytearray(ARCHIVE)
    for _ in range(data.draw(st.integers(1, 3))):
        archive[data.draw(st.integers(0, len(archive) - 1))] = data.draw(st.integers(0, 255))
    try:
        read_here(bytes(archive))
    except UnfitArchive:
        return


ARCHIVE = written(io.BytesIO(), PlainCodec, [("top/a", b"a"), (LONG, b"b")])[: 5 * 1024]


def header(**changes: bytes) -> bytes:
    """A header with some fields replaced and its checksum made right."""
    raw = bytearray(tarfile.TarInfo("top/db/a.json").tobuf(tarfile.USTAR_FORMAT))
    places = {"size": (124, 12), "kind": (156, 1), "name": (0, 100)}
    for field, value in changes.items():
        start, length = places[field]
        raw[start : start + length] = value.ljust(length, b"\0")
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw)
    return bytes(raw)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x" * 600,
        b"\0" * 100,
        header(size=b"\x80" + b"\xff" * 11),
        header(size=b"99999999999"),
        header(size=b"-1"),
        header(kind=b"L", size=b"77777777777"),
        header(kind=b"x", size=b"77777777777"),
        header(kind=b"x", size=b"10") + b"0 a=b\n".ljust(512, b"\0"),
        header(kind=b"x", size=b"10") + b"99 a=b\n".ljust(512, b"\0"),
        header(kind=b"x", size=b"10") + b"6 ab\n\n".ljust(512, b"\0"),
        header(kind=b"x", size=b"20") + b"16 size=-10000\n\n".ljust(512, b"\0") + header(),
        header(name=b"\xff\xfe"),
        header(size=b"1000"),
        header(kind=b"L", size=b"5") + b"name\0".ljust(512, b"\0") + b"\0" * 1024,
        header() + b"\0" * 1024 + b"x" * (65 << 20),
    ],
)
def test_hostile_headers_are_refused(data: bytes) -> None:
    with pytest.raises(UnfitArchive):
        read_here(data)


def test_headers_have_one_length_for_a_name_whatever_the_size() -> None:
    tar = TarOutput(io.BytesIO(), PlainCodec(), 0)
    for name, length in (("top/db/a.json", 512), (LONG, 1536)):
        assert {len(tar._header(name, size)) for size in (0, 8 << 30, 1 << 50)} == {length}
    big = tar._header("top/db/a.json", 1 << 50) + b"x" * 512
    assert next(iter(TarInput(io.BytesIO(big)))).size == 1 << 50
    tar.abort()


def test_a_large_member_is_not_read_into_memory() -> None:
    members = iter(TarInput(opened(io.BytesIO(header(size=b"77777777777") + b"\0" * 512))))
    with pytest.raises(UnfitArchive, match="the limit is 1000"):
        next(members).read_all(1000)


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_checksums_are_joined(first: bytes, second: bytes) -> None:
    assert crc32_joined(zlib.crc32(first), zlib.crc32(second), len(second)) == zlib.crc32(first + second)


def test_codecs_by_name() -> None:
    assert [codec_for_file(name) for name in ("a.tar.gz", "a.tgz", "a.tar.zst", "a.tzst", "a.tar", "-", "x")] == [
        "gz",
        "gz",
        "zst",
        "zst",
        "none",
        "gz",
        "gz",
    ]
    assert [codec_named(name).suffix for name in ("gz", "zst", "none")] == [".gz", ".zst", ""]
    text = b"some text " * 1000
    assert len(codec_named("gz", 9).compress(text)) < len(codec_named("gz", 0).compress(text))
