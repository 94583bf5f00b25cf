"""A replica with a log that goes on only when it is told to, so that a test sees each wait."""

from greenlet import getcurrent, greenlet

from model.catalog import Catalog
from model.effect import PUT_ROW, Kind, decode
from server.replica import Replica


class SlowLog:
    """A log whose entries are applied when the test says so."""

    def __init__(self, catalog, fibers):
        self.catalog = catalog
        self.fibers = fibers
        self.applied_index = 0
        self.can_serve = self.has_lease = self.takes_proposals = True
        self.entries = []
        self.waiting = []
        self.reads = []
        self.refusal = None  # of proposals
        self.turn_begins = lambda: None

    def propose(self, payload):
        if self.refusal is not None:
            raise self.refusal
        self.entries.append(payload)
        return len(self.entries), 1

    def before_turn(self, call):
        self.turn_begins = call

    def turn(self):
        call, self.turn_begins = self.turn_begins, lambda: None
        call()

    def when_applied(self, log_index, raft_term, done):
        if log_index <= self.applied_index:
            done(None)
        else:
            self.waiting.append((log_index, done))

    def read_index(self, done):
        self.reads.append(done)

    def apply(self, up_to=None, error=None):
        self.turn()
        for index in range(self.applied_index + 1, (up_to or len(self.entries)) + 1):
            for effect in decode(self.entries[index - 1]).effects:
                if effect[0] >= Kind.CREATE_DATABASE:
                    self.catalog.apply(effect)
            self.applied_index = index
        self.on_applied(self.applied_index)
        ready = [done for index, done in self.waiting if index <= self.applied_index]
        self.waiting = [entry for entry in self.waiting if entry[0] > self.applied_index]
        for done in ready:
            done(error)
        self.fibers.go_on()


class NoRows:
    """An applied state with a catalog and nothing else."""

    def __init__(self):
        self.catalog = Catalog()
        self.get = self.get_many = self.scan_rows = self.scan_index_chunk = self.scan_index_rows = None
        self.count = self.index_ready = self.index_progress = None


class Head:
    def __init__(self):
        self.staged = []
        self.gathered = {}
        self.get = self.get_many = None

    def stage(self, log_index, effects):
        assert not self.gathered
        self.staged.append((log_index, effects))

    def staged_at(self, table_id, key):
        return max(
            (at for at, effects in self.staged for effect in effects if effect[1:3] == (table_id, key)), default=0
        )

    def settle(self, applied_index):
        self.staged = [staged for staged in self.staged if staged[0] > applied_index]

    def drop(self):
        self.staged = []
        self.gathered.clear()


class Switching:
    """`wait_for` for greenlets of the test. What may go on goes on at `go_on`, as on a reactor's next turn."""

    def __init__(self):
        self.ready = []
        self.current = None

    def wait_for(self, begin, timeout_s=None):
        me, result = getcurrent(), []

        def done(error, value=None):
            result.append((error, value))
            self.ready.append(me)

        begin(done)
        while not result:
            me.parent.switch()
        error, value = result[0]
        if error:
            raise error
        return value

    def go_on(self):
        while self.ready:
            query = self.ready.pop(0)
            if not query.dead:
                query.switch()


class Run(greenlet):
    """A query: runs until it waits; `result` once it has ended."""

    def __init__(self, function, *arguments):
        super().__init__()
        self.ended = False
        self.result = None
        self._work = (function, arguments)
        self.switch()

    def run(self):
        function, arguments = self._work
        try:
            self.result = function(*arguments)
        except Exception as error:
            self.result = error
        self.ended = True


ROW = [(PUT_ROW, 1, b"k", b"{}")]


def make_world():
    rows, head, fibers = NoRows(), Head(), Switching()
    log = SlowLog(rows.catalog, fibers)
    replica = Replica(log, rows, head, fibers, lambda: 1000)
    log.on_applied = replica.settle
    return log, head, replica


def create(name):
    def change(catalog, unused):
        if name in catalog.databases:
            raise KeyError(name)
        return [(Kind.CREATE_DATABASE, f"uuid-{name}", name)], unused()

    return change
