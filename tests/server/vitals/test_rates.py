"""Totals into rates, and bytes shared among tables."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from server.vitals.rates import Ledger, disk_totals


class Machine:
    """A clock and a disk that do as they are told."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.disk = (0, 0)

    def ledger(self) -> Ledger:
        return Ledger(lambda: self.now_s, lambda: self.disk)


def test_what_grew_in_the_last_second() -> None:
    machine = Machine()
    ledger = machine.ledger()
    traffic = ledger.traffic(7)
    traffic.read += 10
    traffic.written += 4
    machine.now_s = 2.0
    ledger.tick(30, {7})
    rates = ledger.rates(7)
    assert (ledger.queries_per_s, rates.read_per_s, rates.written_per_s) == (15.0, 5.0, 2.0)
    machine.now_s = 3.0
    ledger.tick(30, {7})
    assert (ledger.queries_per_s, rates.read_per_s, rates.read) == (0.0, 0.0, 10)


def test_a_table_that_is_gone_is_forgotten() -> None:
    machine = Machine()
    ledger = machine.ledger()
    ledger.traffic(7).read += 1
    machine.now_s = 1.0
    ledger.tick(0, set())
    assert ledger.rates(7).read == 0
    assert ledger.all() == []


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=5), st.integers(0, 10**9))
def test_bytes_on_disk_are_shared_by_rows(rows: list[tuple[int, int]], spent: int) -> None:
    machine = Machine()
    ledger = machine.ledger()
    for table_id, (read, written) in enumerate(rows):
        traffic = ledger.traffic(table_id)
        traffic.read += read
        traffic.written += written
    machine.now_s, machine.disk = 1.0, (spent, 2 * spent)
    ledger.tick(0, range(len(rows)))
    tables = ledger.all()
    assert abs(sum(table.disk_read for table in tables) - (spent if any(read for read, _ in rows) else 0)) < 1
    assert abs(sum(table.disk_written for table in tables) - (2 * spent if any(n for _, n in rows) else 0)) < 1


def test_a_clock_that_stands_still_does_no_harm() -> None:
    ledger = Machine().ledger()
    ledger.tick(5, set())
    assert ledger.queries_per_s == 0.0


def test_this_process_has_used_a_disk_or_does_not_know() -> None:
    read, written = disk_totals()
    assert read >= 0
    assert written >= 0
