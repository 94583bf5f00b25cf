"""TLS for a listening port, from files in PEM format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import load_pem_x509_certificates
from OpenSSL import SSL
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
        chain: Any = load_pem_x509_certificates(Path(certificate_file).read_bytes())
        reading = key_file
        key: Any = load_pem_private_key(Path(key_file).read_bytes(), None)
        trust = None
        if ca_file:
            reading = ca_file
            load_pem_x509_certificates(Path(ca_file).read_bytes())  # says more than Twisted if it is none
            make_trust: Any = trustRootFromCertificates
            trust = make_trust([Certificate.loadPEM(block) for block in _blocks(Path(ca_file).read_bytes())])
        options = CertificateOptions(
            privateKey=key,
            certificate=chain[0],
            extraCertChain=chain[1:],
            trustRoot=trust,
            raiseMinimumTo=TLSVersion.TLSv1_2,
        )
        reading = f"{certificate_file} with {key_file}"
        options.getContext()  # else OpenSSL would look at them with the first peer, and then refuse that
        return options
    except (OSError, ValueError, TypeError) as error:
        raise BadSetting(f"tls: {reading} cannot be used: {error}") from error
    except SSL.Error as error:
        reasons = ", ".join(reason for *_, reason in error.args[0]) if error.args else ""
        raise BadSetting(f"tls: {reading} cannot be used: {reasons or repr(error)}") from error


def _blocks(pem: bytes) -> list[bytes]:
    """The certificates of a PEM file, one by one."""
    end = b"-----END CERTIFICATE-----"
    return [block + end + b"\n" for block in pem.split(end) if b"-----BEGIN CERTIFICATE-----" in block]
