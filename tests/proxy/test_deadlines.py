"""One timer for all: whoever is late is told, and nobody else."""

from twisted.internet.task import Clock

from proxy.deadlines import Deadlines


class Work:
    def __init__(self, clock):
        self.clock = clock
        self.given_up = []

    def give_up(self):
        self.given_up.append(self.clock.seconds())


def test_each_has_its_time_and_all_have_one_timer():
    clock = Clock()
    deadlines = Deadlines(clock, clock.seconds, 10)
    works = [Work(clock) for _ in range(4)]
    for work in works:
        deadlines.begin(work)
        clock.advance(1)
        assert len(clock.getDelayedCalls()) == 1
    deadlines.done(works[1])
    deadlines.done(works[1])
    clock.pump([1] * 20)
    assert [work.given_up for work in works] == [[10], [], [12], [13]]
    assert clock.getDelayedCalls() == []
    deadlines.begin(works[1])
    clock.pump([1] * 20)
    assert works[1].given_up == [34]


def test_who_gives_up_may_say_that_it_is_done_and_that_another_begins():
    clock = Clock()
    deadlines = Deadlines(clock, clock.seconds, 10)
    second = Work(clock)

    class First(Work):
        def give_up(self):
            super().give_up()
            deadlines.done(self)
            deadlines.begin(second)

    first = First(clock)
    deadlines.begin(first)
    clock.pump([1] * 25)
    assert (first.given_up, second.given_up) == ([10], [20])


def test_a_timer_that_is_ahead_of_the_clock_is_right():
    clock = Clock()
    deadlines = Deadlines(clock, lambda: 0.0, 10)
    work = Work(clock)
    deadlines.begin(work)
    clock.advance(10)
    assert work.given_up == [10]


def test_once_stopped_nobody_is_told():
    clock = Clock()
    deadlines = Deadlines(clock, clock.seconds, 10)
    deadlines.stop()
    work = Work(clock)
    deadlines.begin(work)
    deadlines.stop()
    assert clock.getDelayedCalls() == []
    clock.advance(20)
    assert work.given_up == []
