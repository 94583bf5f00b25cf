"""TLS for a listening port, from files in PEM format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from OpenSSL.crypto import FILETYPE_PEM, load_certificate, load_privatekey
from OpenSSL.crypto import Error as CryptoError
from twisted.internet.ssl import Certificate, CertificateOptions, TLSVersion, trustRootFromCertificates

from model.errors import BadSetting


def certificate(certificate_file: str, key_file: str, ca_file: str) -> CertificateOptions | None:
    """What a port shows to its peers, TLS 1.2 or newer; None without a certificate. Raises BadSetting.

    With `ca_file`, peers have to show a certificate that this CA signed.
    """
    if not certificate_file:
        return None
    reading = certificate_file
    try:
        chain = [load_certificate(FILETYPE_PEM, block) for block in _blocks(Path(certificate_file).read_bytes())]
        reading = key_file
        key = load_privatekey(FILETYPE_PEM, Path(key_file).read_bytes())
        trust = None
        if ca_file:
            reading = ca_file
            roots = [Certificate.loadPEM(block) for block in _blocks(Path(ca_file).read_bytes())]
            make_trust: Any = trustRootFromCertificates
            trust = make_trust(roots)
        reading = certificate_file
        return CertificateOptions(
            privateKey=key,
            certificate=chain[0],
            extraCertChain=chain[1:],
            trustRoot=trust,
            raiseMinimumTo=TLSVersion.TLSv1_2,
        )
    except (OSError, CryptoError, ValueError, IndexError) as error:
        raise BadSetting(f"tls: {reading} cannot be used: {error or 'it holds nothing in PEM format'}") from error


def _blocks(pem: bytes) -> list[bytes]:
    """The certificates of a PEM file, one by one."""
    end = b"-----END CERTIFICATE-----"
    return [block + end + b"\n" for block in pem.split(end) if b"-----BEGIN CERTIFICATE-----" in block]
