"""`rewinddb serve --join TOKEN`: makes an empty data folder that of a new member, before the server starts.

One rule: a folder in which anything was ever stored is left alone: a server comes into a cluster with nothing.
"""

from __future__ import annotations

import logging
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import click

from conf.settings import Settings, Tls
from model.errors import RewindError
from server import VERSION
from server.cluster.joining import HEAD, MAX_BYTES, Invitation, JoinRefused, Membership, Question, decode_token
from server.cluster.members import FEATURES, split_address
from server.folder import DataFolder

log = logging.getLogger("rewinddb.server")

TRY_S: Final = 60.0  # for a member to be reached
PAUSE_S: Final = 0.5
ANSWER_S: Final = 20.0


def own_address(settings: Settings, port: int) -> str:
    """Where other servers find this one, as host:port."""
    told = settings.cluster.advertise
    if split_address(told) is not None:
        return told
    address = told or settings.cluster.address
    if address in ("0.0.0.0", "::", "all"):
        address = socket.gethostname()
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def server_name(settings: Settings) -> str:
    """The name that this server would like to have, of characters that RethinkDB allows."""
    wished = settings.server.name or socket.gethostname()
    return "".join(c if c.isascii() and (c.isalnum() or c == "-") else "_" for c in wished) or "server"


def join(settings: Settings, folder: DataFolder, say: Callable[[str], None] = click.echo) -> Settings:
    """Joins the cluster of `cluster.join`, unless this folder already belongs to it; the settings to go on with.

    Raises BadSetting for a wrong token, JoinRefused, RewindError.
    """
    invitation = decode_token(settings.cluster.join)
    identity = folder.identity
    if identity.cluster_id == invitation.cluster_id:
        log.info("this server is member %d of the cluster already", identity.member_id)
        return settings
    if identity.is_begun:
        raise RewindError(
            f"The data folder {folder.path} belongs to another cluster.",
            "Give an empty one with --data-dir, or start without --join.",
        )
    if not settings.cluster.port:
        settings = replace(settings, cluster=replace(settings.cluster, port=_free_port(settings.cluster.address)))
    say(f"Joining the cluster {invitation.cluster_id} ...")
    membership = _ask_all(settings, invitation, identity.server_id)
    folder.join(invitation.cluster_id, membership.member_id, membership.name, membership.secret, membership.addresses)
    say(f"Joined the cluster as member {membership.member_id}, {membership.name!r}")
    return settings


def _ask_all(settings: Settings, invitation: Invitation, server_id: str) -> Membership:
    until = time.monotonic() + TRY_S
    told: dict[str, str] = {}
    while True:
        for address in invitation.addresses:
            question = Question.about(
                invitation,
                server_id,
                server_name(settings),
                own_address(settings, settings.cluster.port),
                VERSION,
                list(FEATURES),
            )
            try:
                return question.take(_exchange(address, question.to_bytes(), settings.cluster.tls))
            except JoinRefused:
                raise
            except (OSError, ValueError) as error:
                if told.get(address) != str(error):
                    told[address] = str(error)
                    log.warning("no member answers at %s: %s", address, error)
        if time.monotonic() >= until:
            raise RewindError(
                "No member of the cluster can be reached: "
                + "; ".join(f"{address}: {error}" for address, error in told.items())
                + ".",
                "Look whether they run, and whether their cluster.address can be reached from here.",
            )
        time.sleep(PAUSE_S)


def _exchange(address: str, question: bytes, tls: Tls) -> bytes:
    place = split_address(address)
    if place is None:
        raise ValueError("not an address as host:port")
    with socket.create_connection(place, timeout=5) as plain:
        plain.settimeout(ANSWER_S)
        if not tls.is_on:
            return _talk(plain, question)
        context = ssl.create_default_context(cafile=tls.ca_file or None)
        context.check_hostname = False  # who answers is proved by the token, below TLS by the cluster's CA
        context.load_cert_chain(tls.certificate_file, tls.key_file)
        with context.wrap_socket(plain) as secured:
            return _talk(secured, question)


def _talk(connection: socket.socket, question: bytes) -> bytes:
    connection.sendall(question)
    length = HEAD.unpack(_read(connection, HEAD.size))[0]
    if length > MAX_BYTES:
        raise JoinRefused("What answered is not a member of the cluster of this token.")
    return _read(connection, length)


def _read(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            raise OSError("the connection was closed without an answer")
        data += more
    return data


def _free_port(address: str) -> int:
    """A port that is free now: who is to be found has to say where before it listens."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])
