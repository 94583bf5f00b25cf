"""TLS from PEM files: what can be used, and what is refused by name."""

import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from model.errors import BadSetting
from server.tls import certificate


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A self-signed certificate and its key."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime.datetime(2020, 1, 1))
        .not_valid_after(datetime.datetime(2120, 1, 1))
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    (folder / "text.pem").write_text("hello")
    return folder


def test_without_a_certificate_there_is_no_tls():
    assert certificate("", "", "") is None


def test_a_certificate_and_its_key(files):
    options = certificate(str(files / "cert.pem"), str(files / "key.pem"), "")
    assert options.getContext() is not None
    assert options.verify is False


def test_with_a_ca_peers_have_to_show_a_certificate(files):
    options = certificate(str(files / "cert.pem"), str(files / "key.pem"), str(files / "cert.pem"))
    assert options.verify is True


@pytest.mark.parametrize(
    ("names", "blamed"),
    [
        (("text.pem", "key.pem", ""), "text.pem"),
        (("cert.pem", "text.pem", ""), "text.pem"),
        (("cert.pem", "absent.pem", ""), "absent.pem"),
        (("cert.pem", "key.pem", "absent.pem"), "absent.pem"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(files, names, blamed):
    with pytest.raises(BadSetting, match=blamed):
        certificate(*(str(files / name) if name else "" for name in names))
