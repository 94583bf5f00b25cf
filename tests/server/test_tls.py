"""TLS from PEM files: what can be used, and what is refused by name."""

import pytest

from model.errors import BadSetting
from server.tls import certificate
from tests import pem


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A self-signed certificate, its key, and a file that is neither."""
    folder = tmp_path_factory.mktemp("tls")
    pem.make(folder)
    pem.make(folder, "other")
    pem.make(folder, "weak", rsa_bits=1024)
    (folder / "text.pem").write_text("hello")
    return folder


def test_without_a_certificate_there_is_no_tls():
    assert certificate("", "", "") is None


def test_a_certificate_and_its_key(files):
    options = certificate(str(files / "server.pem"), str(files / "server.key"), "")
    assert options.getContext() is not None
    assert options.verify is False


def test_with_a_ca_peers_have_to_show_a_certificate(files):
    options = certificate(str(files / "server.pem"), str(files / "server.key"), str(files / "server.pem"))
    assert options.verify is True


@pytest.mark.parametrize(
    ("names", "blamed"),
    [
        (("text.pem", "server.key", ""), "text.pem"),
        (("server.pem", "text.pem", ""), "text.pem"),
        (("server.pem", "absent.pem", ""), "absent.pem"),
        (("server.pem", "server.key", "absent.pem"), "absent.pem"),
        (("weak.pem", "weak.key", ""), "weak.pem with .*weak.key cannot be used: ee key too small"),
        (("server.pem", "other.key", ""), "server.pem with .*other.key cannot be used: .*mismatch"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(files, names, blamed):
    with pytest.raises(BadSetting, match=blamed):
        certificate(*(str(files / name) if name else "" for name in names))
