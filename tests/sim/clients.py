"""Clients that read and write registers, each one operation at a time, and note what they see."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Any

from model.effect import Effect, Kind
from model.errors import ReqlOpFailedError, ReqlOpIndeterminateError
from proxy.answers import ATOM, Answer, Promised
from tests.sim.linearizability import Act, Operation, Value
from tests.sim.server import SimServer

if TYPE_CHECKING:
    from tests.sim.simulation import Simulation

TABLE = 1
SET_UP: list[Effect] = [
    (Kind.CREATE_DATABASE, "db-uuid", "test"),
    (Kind.CREATE_TABLE, TABLE, "table-uuid", "db-uuid", "registers", "id", {}),
]
PATIENCE_S = 0.8


class Request:
    """One operation on its way through a server; what the fibers of the server work on."""

    def __init__(self, server: SimServer, operation: Operation, key: bytes, mode: str) -> None:
        self.server = server
        self.operation = operation
        self.key = key
        self.mode = mode
        self.fiber: object = None

    def perform(self) -> Value | bool | Promised:
        """The query, as a driver's would run: synchronous code in a fiber of the server.

        What is one write leaves its waiting to a promise, as such queries do; what looks first waits in its fiber.
        """
        act = self.operation.act
        if act is Act.READ:
            return self._read()
        replica, operation = self.server.replica, self.operation
        if act is Act.CAS:
            replica.prepare_read("single")
            if _value(replica.get_head(TABLE, self.key)) != operation.expected:
                replica.confirm()
                return False
        effects: list[Effect] = [(Kind.PUT_ROW, TABLE, self.key, str(operation.value).encode())]
        if act is Act.WRITE:
            begin = replica.promise(effects, "hard")
            assert begin is not None
            return Promised(Answer(ATOM, [b"true"]), begin)
        replica.commit(effects, "hard")
        return True

    def _read(self) -> Value:
        server = self.server
        if self.mode == "follower":
            server.fibers.wait_for(server.node.read_index)
        elif self.mode == "single" and server.plan.follower_reads and not server.node.core.may_read_alone:
            # Where followers serve reads too, they may show what this leader has not applied yet.
            server.replica.prepare_get("majority", TABLE, self.key)
        else:
            server.replica.prepare_get(self.mode, TABLE, self.key)
        return _value(server.machine.store.get(TABLE, self.key))


def _value(row: bytes | None) -> Value:
    return None if row is None else int(row)


class Client:
    """One client: sends an operation to the server that it takes for the leader, waits, goes on."""

    def __init__(self, simulation: Simulation, name: str) -> None:
        self._simulation = simulation
        self._world = simulation.world
        self.name = name
        self._believed_leader = 0
        self._loyalty = self._world.dice.choice([0.3, 0.6, 0.95])

    def work(self) -> None:
        """Do one operation, then the next, until the busy time is over."""
        simulation, world = self._simulation, self._world
        if not simulation.is_busy:
            return
        dice = world.dice
        key = dice.randrange(simulation.plan.keys)
        act = dice.choice([Act.READ, Act.READ, Act.WRITE, Act.CAS])
        operation = Operation(act, 0.0, client=self.name)
        if act is not Act.READ:
            operation.value = simulation.new_value()
        if act is Act.CAS:
            operation.expected = dice.choice(simulation.recent_values(key))
        self.send(operation, key, self._work_later)

    def _work_later(self) -> None:
        self._world.after(self._world.dice.expovariate(25.0), self.work)

    def look_around(self, key: int) -> None:
        """Ask every server right after a write: what is acknowledged must be seen, whoever answers."""
        for server in self._simulation.running():
            self.send(Operation(Act.READ, 0.0, client=f"{self.name}, looking around"), key, lambda: None, server=server)

    def _choose_server(self) -> SimServer | None:
        servers = self._simulation.running()
        believed = [server for server in servers if server.id == self._believed_leader]
        if believed and self._world.chance(self._loyalty):
            return believed[0]
        return self._world.dice.choice(servers) if servers else None

    def send(
        self,
        operation: Operation,
        key: int,
        then: Callable[[], None],
        mode: str | None = None,
        server: SimServer | None = None,
    ) -> None:
        """Send an operation to some server; `then` is called once it is answered or given up."""
        simulation, world = self._simulation, self._world
        server = server or self._choose_server()
        if server is None:
            world.after(0.2, then)
            return
        modes = ["majority", "single", "follower"] if simulation.plan.follower_reads else ["majority", "single"]
        mode = mode or world.dice.choice(modes)
        operation.called = world.now
        call = _Call(simulation, self, operation, key, then)
        request = Request(server, operation, b"r%d" % key, mode)
        world.after(world.dice.uniform(0.0002, 0.004), call.reach, request)
        world.after(PATIENCE_S, call.give_up)

    def learn(self, server: SimServer, has_failed: bool) -> None:
        """Remember who leads."""
        if has_failed:
            self._believed_leader = (server.node.leader_id or 0) if server.is_running else 0
        else:
            self._believed_leader = server.id


class _Call:
    """What becomes of one operation."""

    def __init__(
        self, simulation: Simulation, client: Client, operation: Operation, key: int, then: Callable[[], None]
    ) -> None:
        self._simulation = simulation
        self._client = client
        self._operation = operation
        self._key = key
        self._then: Callable[[], None] | None = then
        self._arrived = False

    def reach(self, request: Request) -> None:
        """The operation reaches its server, if that still runs; a paused one looks at it later."""
        if request.server.is_running:
            request.server.clock.arrive("clients", self._arrive, request)
        else:
            self._end()

    def _arrive(self, request: Request) -> None:
        if self._then is None or not request.server.is_running:
            self._end()
            return
        self._arrived = True
        self._simulation.history(self._key).append(self._operation)
        self._operation.client += f" at server {request.server.id}"
        if self._operation.act is Act.READ:
            self._operation.client += f" ({request.mode})"
        request.server.fibers.run(Request.perform, request, self._begun)

    def _begun(self, request: Request, result: Any, error: BaseException | None) -> None:
        if type(result) is Promised:
            request.server.fibers.promise(
                request,
                result,
                lambda _item, promised, error: self._answer(request.server, promised is not None, error),
            )
        else:
            self._answer(request.server, result, error)

    def _answer(self, server: SimServer, result: Value | bool, error: BaseException | None) -> None:
        world = self._simulation.world
        if error is not None and not isinstance(error, ReqlOpFailedError | ReqlOpIndeterminateError):
            world.fail(f"an operation ends with {error!r}", error if isinstance(error, Exception) else None)
        world.after(world.dice.uniform(0.0002, 0.004), self._hear, server, result, error)

    def _hear(self, server: SimServer, result: Value | bool, error: BaseException | None) -> None:
        if self._then is None:
            return
        self._client.learn(server, error is not None)
        operation = self._operation
        if error is None:
            operation.result = result
            operation.returned = self._simulation.world.now
            self._simulation.note_value(self._key, operation)
            if operation.act is not Act.READ and result and self._simulation.world.chance(0.3):
                self._client.look_around(self._key)
        elif isinstance(error, ReqlOpFailedError):
            self._forget(operation)
        self._end()

    def _forget(self, operation: Operation) -> None:
        """It did not happen: take it out of the history, near whose end it is."""
        history = self._simulation.history(self._key)
        at = len(history) - 1
        while history[at] is not operation:
            at -= 1
        del history[at]

    def give_up(self) -> None:
        """No answer for too long: the outcome stays unknown."""
        if self._then is not None:
            self._client.learn(self._simulation.any_server(), True)
            self._operation.returned = inf
            self._end()

    def _end(self) -> None:
        then, self._then = self._then, None
        if then is not None:
            then()
