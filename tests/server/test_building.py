"""Index construction goes on in slices for as long as there is work, and stops when told to."""

from twisted.internet.task import Clock

from server.building import IndexBuilding


class Work:
    def __init__(self, slices):
        self.slices = slices
        self.done = 0

    def build_step(self, budget_s=0.002):
        self.done += 1
        return self.done < self.slices


def test_it_works_slice_by_slice_with_others_in_between():
    clock, work = Clock(), Work(3)
    building = IndexBuilding(work, clock)
    building.wake()
    building.wake()
    seen = []
    clock.callLater(0, lambda: seen.append(work.done))
    assert work.done == 0
    clock.advance(0)
    assert seen == [1]
    assert work.done == 3


def test_it_wakes_again_for_new_work():
    clock, work = Clock(), Work(1)
    building = IndexBuilding(work, clock)
    building.wake()
    clock.advance(0)
    work.slices = 3
    building.wake()
    clock.advance(0)
    clock.advance(0)
    assert work.done == 3


def test_stopped_it_stays_stopped():
    clock, work = Clock(), Work(3)
    building = IndexBuilding(work, clock)
    building.wake()
    building.stop()
    building.wake()
    clock.advance(1)
    assert work.done == 0
    assert clock.getDelayedCalls() == []
