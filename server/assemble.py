"""Plugs all rooms of a server together: the only place that knows all of them.

    drivers ─► listener ─► session ─► fibers ─► evaluator ─► replica ─► node ─► log
                                                   ▲             │        │
                                                   └── system ───┴─ store ◄─ machine ─► engine

One rule: components get plain values and ports; nobody but this file sees the settings.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.task import LoopingCall

from conf.settings import Driver, Settings
from consensus.core import SoftState
from consensus.flushing import FlushPolicy
from consensus.node import Node
from model.catalog import Catalog
from model.effect import Effect, Kind, encode
from model.errors import BadSetting, RewindError
from proxy.auth import Credentials, UserDirectory, make_credential, passwordless_admin
from proxy.clients import Clients, Limits
from proxy.fibers import FiberPool
from proxy.http import HttpListener
from proxy.listener import DriverListener
from proxy.pages import Section
from proxy.reql.evaluator import ReqlEvaluator
from proxy.reql.feeds.hub import FeedHub
from proxy.reql.index_functions import index_function
from server import VERSION
from server.addresses import reached_at
from server.backups.metrics import BackupCollector
from server.backups.plug import backup_service
from server.backups.tables import backup_tables
from server.building import IndexBuilding
from server.cluster.join import server_name
from server.cluster.joining import PREFIX as TOKEN_PREFIX
from server.cluster.members import PACKED_ROWS
from server.cluster.plug import ClusterPlug, open_log, raft_config
from server.cluster.servers import servers_of
from server.folder import DataFolder
from server.heap import give_back
from server.http_client import HttpClient
from server.images.plug import plug_images
from server.javascript import JavascriptEngines
from server.loop_timers import LoopTimers
from server.memory import cache_size
from server.replica import Replica
from server.restores.plug import plug_restores
from server.retention import CatchUp, KeptLog
from server.system import Site, SystemTables
from server.system.accounts import USERS, make_in_thread
from server.system.site import SERVERS, Server
from server.tls import certificate
from server.views import Views, views_table
from server.vitals.issues import Issues, log_write_issues, table_availability_issues
from server.vitals.jobs import Jobs
from server.vitals.logs import RecentLog, logs_table
from server.vitals.rates import Ledger
from server.vitals.stats import Stats
from server.web import Vitals
from server.web_status import backup_sections, cluster_section
from server.world import ServerWorld
from storage.head import Head
from storage.machine import Machine
from storage.rocks import RocksEngine
from storage.rocks_options import RocksSettings

log = logging.getLogger("rewinddb.server")

SPOKEN_VERSION = "2.4.4"  # of RethinkDB: what tools and drivers look at
PACKED_ROWS_TURN_S = 0.002  # so long packed rows are written before queries have a turn
UNAUTHENTICATED = 500  # connections that are still logging in, at most


class Assembly:
    """A whole server. Opening it recovers what is on disk; `start` begins to serve."""

    def __init__(
        self,
        settings: Settings,
        folder: DataFolder,
        reactor: Any,
        loop: asyncio.AbstractEventLoop,
        on_fatal: Callable[[Exception], None],
    ) -> None:
        self._settings = settings
        self._folder = folder
        self._reactor = reactor
        storage = settings.storage
        self._rocks = rocks = RocksSettings(cache_size(storage.cache_bytes), compression=storage.compression)
        self._machine = Machine(RocksEngine(folder.rows, rocks), index_function)
        self._machine.turn_s = PACKED_ROWS_TURN_S
        self._store = open_log(folder, self._machine, settings.log.segment_bytes, loop)
        self.recovered_from = self._machine.applied_index
        self.recovered_to = self._store.last_index()
        self._timers = timers = LoopTimers(loop)
        self._plug = ClusterPlug(
            settings, rocks, folder, self._machine, self._store, reactor, timers, self._state_replaced
        )
        self._node = self._make_node(loop, on_fatal)
        self._fibers = FiberPool(timers)
        store = self._machine.store
        self._replica = Replica(self._node, store, Head(store), self._fibers, _now_ms, foresee=self._machine.foresee)
        self._replica.past = self._store
        self._node.on_applied = self._replica.settle
        self._node.on_leadership = self._leadership_changed
        self._chores = LoopingCall(self._every_second)
        self._building = IndexBuilding(self._machine, reactor)
        self._machine.on_catalog = self._catalog_changed
        watched = self._machine.watched
        self._feeds = FeedHub(watched.add, watched.discard, loop.call_soon, loop.call_later, time.monotonic)
        self._machine.on_changes = self._feeds.on_changes
        self._views = Views(self._machine.store.view, time.time)
        self._system = SystemTables(_site(settings, folder, rocks.cache_bytes), make_in_thread, self._see_servers)
        self._system.add(views_table(self._views))
        self._backups = backup_service(
            settings.backup,
            folder,
            self._node,
            self._store,
            self._machine,
            self._propose,
            self._feeds.poll,
            loop,
            reactor,
            VERSION,
        )
        self._kept.needs.append(self._backups.keep_from)
        self._system.add(*backup_tables(self._backups))
        self._restores = plug_restores(
            self._backups, self._system, self._replica, self._fibers, folder, reactor, self._may_pack_rows
        )
        self._ledger = Ledger(time.monotonic)
        self._scripts = JavascriptEngines(reactor.callFromThread) if settings.reql.js_enabled else None
        self._fetcher = _fetcher(settings, reactor)
        self._users = self._make_users()
        self._evaluator = self._plug.plug(
            self._node,
            ReqlEvaluator(self._make_world()),
            self._replica,
            self._fibers,
            lambda: self._system.site,
            self._propose,
            on_fatal,
            lambda: self._clients.queries_total,
        )
        self._images = plug_images(self._backups, self._plug.cluster, reactor)
        self._system.add(*self._plug.tables())
        self._clients = self._make_clients()
        self._recent_log = RecentLog(started_s=self._system.site.started)
        self._recent_log.attach()
        self._jobs = self._plug_vitals()
        self._listener = self._make_listener(settings.driver)
        self._web = self._make_web(settings) if settings.http.enabled else None

    # -- life

    def start(self) -> Deferred[None]:
        """Takes part in the log, applies what is to be recovered, makes a new folder usable, then listens."""
        return ensureDeferred(self._start())

    async def _start(self) -> None:
        self._system.site = replace(self._system.site, cluster_port=self._plug.listen())
        self._node.start()
        self._plug.start()
        await self._plug.caught_up()
        self._take_name()
        if "admin" not in self._machine.catalog.documents(USERS):
            await self._propose(list(self._first_effects()))
        self._building.wake()
        self._chores.clock = self._reactor
        self._chores.start(1.0, now=False)
        driver = self._settings.driver
        try:
            await self._listener.start()
        except OSError as error:
            raise RewindError(
                f"Cannot listen for drivers on {driver.address} port {driver.port}: {_reason(error)}.",
                "Choose another driver.port or driver.address, or stop what uses this one.",
            ) from error
        self._system.site = replace(self._system.site, driver_port=self._listener.port)
        if self._web is not None:
            await self._start_web(self._web)
        self._plug.ready()
        self._warn_about_open_doors()

    def refuse_writes(self, why: str) -> None:
        """From now on drivers can only read; `why` is what they are told when they write."""
        self._replica.refusal = why

    def announcements(self) -> Iterator[str]:
        """What is printed once the server is ready, in RethinkDB's order: programs wait for the last line."""
        applied = self._node.applied_index
        recovered = self.recovered_to - self.recovered_from
        automatically = "Automatically using" if self._settings.storage.cache_bytes == "auto" else "Using"
        yield f"{automatically} cache size of {self._rocks.cache_bytes >> 20} MB"
        yield f"Recovered to log position {applied} ({recovered} entries applied from the log)"
        yield f"Listening for intracluster connections on port {self._plug.port}"
        yield f"Listening for client driver connections on port {self._listener.port}"
        if self._web is not None:
            yield f"Listening for administrative HTTP connections on port {self._web.port}"
        yield f'Server ready, "{self._system.site.name}" {self._folder.identity.server_id}'

    def note(self, line: str) -> None:
        """Puts what is printed into the system table `logs`."""
        self._recent_log.note(line)

    def drain(self, timeout_s: float) -> Deferred[None]:
        """Stops in good order: no new connections, queries end, everything is on disk."""
        return ensureDeferred(self._drain(timeout_s))

    async def _drain(self, timeout_s: float) -> None:
        await self._plug.hand_over()
        await self._listener.stop()
        if self._web is not None:
            await self._web.stop()
        await self._clients.drain(timeout_s)
        self._building.stop()
        self._stop_chores()
        await self._node.stop()
        await maybeDeferred(self._plug.stop)

    def abandon(self, error: BaseException, grace_s: float) -> Deferred[None]:
        """After a failure: drivers that wait are told, then all connections end. Nothing more is promised."""
        self._building.stop()
        self._stop_chores()
        return ensureDeferred(self._abandon(grace_s))

    async def _abandon(self, grace_s: float) -> None:
        await self._listener.stop()
        if self._web is not None:
            await self._web.stop()
        await self._clients.drain(grace_s)
        await maybeDeferred(self._plug.stop)

    def close(self) -> None:
        """Closes the files; the reactor has stopped."""
        self._recent_log.detach()
        for helper in (self._scripts, self._fetcher):
            if helper is not None:
                helper.close()
        self._views.close_all()
        self._machine.engine.close()

    # -- inside

    def _stop_chores(self) -> None:
        self._images.stop()
        self._backups.stop()
        if self._chores.running:
            self._chores.stop()

    def _make_node(self, loop: asyncio.AbstractEventLoop, on_fatal: Callable[[Exception], None]) -> Node:
        settings = self._settings
        self._kept = kept = KeptLog(self._store, settings.log.retain_bytes)
        lagging = CatchUp(kept, settings.log.catch_up_bytes, lambda: self._node.slowest_match)
        kept.needs += [self._plug.snapshots.keep_from, lagging.first_index]
        config, tick_s = raft_config(settings, self._folder.identity.member_id)
        node = Node(
            config,
            self._store,
            self._machine,
            self._plug.links,
            reactor=self._timers,
            snapshots=self._plug.snapshots,
            soon=loop.call_soon,
            tick_s=tick_s,
            queue_bytes=settings.log.uncommitted_bytes,
            flush_policy=FlushPolicy(
                every_s=settings.storage.flush_interval_ms / 1000, keep_entries=0, keep_from=kept.first_index
            ),
        )
        node.on_fatal = on_fatal
        return node

    def _make_world(self) -> ServerWorld:
        world = ServerWorld(self._replica, self._system, self._feeds, self._views, self._ledger.traffic)
        world.lineage = self._folder.identity.cluster_id
        world.array_limit = self._settings.limits.array_limit
        world.durability = self._settings.writes.durability
        world.javascript = self._scripts
        world.http = self._fetcher
        return world

    def _make_users(self) -> UserDirectory:
        credentials = Credentials(lambda: self._machine.catalog.documents(USERS))
        return UserDirectory(credentials.of, bytes.fromhex(self._folder.identity.login_secret))

    def _make_clients(self) -> Clients:
        return Clients(
            self._evaluator,
            self._users,
            self._fibers,
            self._timers,
            self._folder.identity.server_id,
            self._system.site.name,
            _limits(self._settings),
            SPOKEN_VERSION,
            give_back=give_back,
        )

    def _make_listener(self, driver: Driver) -> DriverListener:
        tls = certificate(driver.tls.certificate_file, driver.tls.key_file, driver.tls.ca_file)
        return DriverListener(self._clients, self._reactor, driver.address, driver.port, tls)

    def _make_web(self, settings: Settings) -> HttpListener:
        http = settings.http
        site, data_dir = (lambda: self._system.site), str(self._folder.path)
        vitals = Vitals(site, data_dir, self._node, self._store, self._machine, self._clients)
        tls = certificate(http.tls.certificate_file, http.tls.key_file, http.tls.ca_file)

        def sections() -> Iterator[Section]:
            yield cluster_section(self._plug.cluster)
            yield from backup_sections(self._backups)

        pages = vitals.pages(sections, BackupCollector(self._backups))
        return HttpListener(self._clients, pages, self._reactor, http.address, http.port, tls)

    async def _start_web(self, web: HttpListener) -> None:
        http = self._settings.http
        try:
            await web.start()
        except CannotListenError as error:
            raise RewindError(
                f"Cannot listen for HTTP on {http.address} port {http.port}: {_reason(error.socketError)}.",
                "Choose another http.port or http.address, set http.enabled to false, or stop what uses this one.",
            ) from error
        self._system.site = replace(self._system.site, http_port=web.port)

    def _may_pack_rows(self) -> bool:
        return self._plug.cluster.can_use(PACKED_ROWS)

    def _propose(self, effects: list[Effect]) -> Deferred[None]:
        done: Deferred[None] = Deferred()
        place = self._node.propose(encode(effects, _now_ms()))
        self._node.when_applied(*place, lambda error: done.errback(error) if error else done.callback(None))
        return done

    def _first_effects(self) -> Iterator[Effect]:
        """What a fresh server has: the database `test`, and the user `admin`."""
        from uuid import uuid4

        password = _initial_password(self._settings)
        credential = make_credential(password) if password else passwordless_admin()
        if "test" not in self._machine.catalog.databases:
            yield (int(Kind.CREATE_DATABASE), str(uuid4()), "test")
        document = {**credential.to_document(), "has_password": bool(password)}
        yield (int(Kind.PUT_SYSTEM), "users", "admin", document)

    def _leadership_changed(self, state: SoftState) -> None:
        if not self._node.is_leader:
            self._replica.drop()
            self._feeds.fail_all()
        self._plug.cluster.leadership_changed()

    def _state_replaced(self) -> None:
        """Another server's snapshot has taken the place of everything that was applied."""
        self._views.close_all()
        self._feeds.fail_all()
        self._building.wake()
        self._take_name()
        self._feeds.recheck()

    def _catalog_changed(self, effect: Effect) -> None:
        if effect[0] == Kind.CREATE_INDEX:
            self._jobs.index_began(effect[2])
            self._building.wake()
        elif effect[0] == Kind.DROP_TABLE:
            self._feeds.on_table_gone(effect[1])
        elif effect[0] in (Kind.PUT_SYSTEM, Kind.DELETE_SYSTEM):
            self._document_changed(effect[1])
            self._plug.cluster.catalog_changed(effect)
        self._feeds.poll()

    def _see_servers(self, site: Site, catalog: Catalog) -> list[Server]:
        """All servers of the cluster."""
        return servers_of(self._plug.cluster, site, catalog)

    def _document_changed(self, collection: str) -> None:
        """A system document of that collection was put or deleted."""
        if collection == USERS:
            self._feeds.recheck()
        elif collection == SERVERS:
            self._take_name()

    def _take_name(self) -> None:
        """Tells drivers the name that this server has by now."""
        self._clients.set_server(self._folder.identity.server_id, self._system.own(self._machine.catalog).name)

    def _plug_vitals(self) -> Jobs:
        """The system tables that monitors read."""
        system, clients = self._system, self._clients

        def sizes() -> dict[str, int]:
            return self._machine.engine.sizes()

        jobs = Jobs(system, (clients, self._evaluator), sizes, time.monotonic)
        issues = Issues()
        issues.add(log_write_issues(system, self._recent_log))
        issues.add(table_availability_issues(system))
        issues.add(lambda env, form: self._backups.alarms.issues())
        stats = Stats(system, self._ledger, clients, sizes, self._plug.cluster.stalls)
        system.add(jobs.declared(), issues.declared(), stats.declared(), logs_table(system, self._recent_log))
        return jobs

    def _every_second(self) -> None:
        self._ledger.tick(self._clients.queries_total, self._machine.catalog.tables)
        self._backups.tick()
        self._images.tick()
        self._restores.tick()
        self._feeds.poll()
        self._views.drop_idle()

    def _warn_about_open_doors(self) -> None:
        address = self._settings.driver.address
        if not _is_loopback(address) and not self._users.needs_password():
            log.warning(
                "the user admin has no password, and drivers can connect from other machines: anybody who reaches "
                "%s port %d can read and change everything",
                address,
                self._listener.port,
            )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _reason(error: OSError) -> str:
    return os.strerror(error.errno).lower() if error.errno else str(error)


def _is_loopback(address: str) -> bool:
    return address in ("localhost", "::1") or address.startswith("127.")


def _limits(settings: Settings) -> Limits:
    limits = settings.limits
    return Limits(
        max_connections=limits.connections,
        max_unauthenticated=min(limits.connections, UNAUTHENTICATED),
        handshake_timeout_s=limits.handshake_timeout_ms / 1000,
        max_running=limits.queries_in_flight,
        max_query_bytes=limits.query_bytes,
    )


def _site(settings: Settings, folder: DataFolder, cache_bytes: int) -> Site:
    hostname = socket.gethostname()
    return Site(
        server_id=folder.identity.server_id,
        name=folder.identity.name or server_name(settings),
        hostname=hostname,
        version=f"rethinkdb {SPOKEN_VERSION} (RewindDB {VERSION})",
        pid=os.getpid(),
        argv=tuple("..." if argument.startswith(TOKEN_PREFIX) else argument for argument in sys.argv),
        started=_now_ms() / 1000,
        cache_mb=cache_bytes / (1 << 20),
        addresses=reached_at(settings.driver.address),
    )


def _fetcher(settings: Settings, reactor: Any) -> HttpClient | None:
    """What fetches for r.http, if it may."""
    reql = settings.reql
    if not reql.http_enabled:
        return None
    agent = f"RewindDB/{VERSION}"
    return HttpClient(reactor.callFromThread, reql.http_private_addresses, reql.http_max_bytes, agent)


def _initial_password(settings: Settings) -> str:
    file = settings.admin.initial_password_file
    if not file:
        return settings.admin.initial_password
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadSetting(f"admin.initial_password_file: {file} cannot be read: {error}") from error
    if not lines or not lines[0]:
        raise BadSetting(f"admin.initial_password_file: the first line of {file} is empty")
    return lines[0]
