"""What kind of history a seed makes: how many servers, which settings, which faults."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, slots=True)
class Plan:
    """The settings of one history. Times in seconds."""

    servers: int = 3
    clients: int = 4
    keys: int = 4
    busy_s: float = 20.0
    """How long clients work and faults happen, before all is repaired."""
    tick_s: float = 0.1
    heartbeat_ticks: int = 1
    drift: float = 0.04
    """How much faster or slower than the world a server's clock may run."""
    segment_bytes: int = 32 << 10
    cache_bytes: int = 1 << 20
    flush_bytes: int = 1 << 20
    flush_s: float = 5.0
    keep_entries: int = 1000
    max_message_bytes: int = 1 << 20
    max_committed_bytes: int = 1 << 20
    max_uncommitted_bytes: int = 1 << 20
    max_inflight_messages: int = 64
    check_quorum: bool = True
    pre_vote: bool = True
    lease_reads: bool = False
    group_sends: bool = True
    follower_reads: bool = True
    """Clients read at followers, too, which ask the leader for the index to wait for."""
    kernel_syncs: bool = False
    """Short groups of the log are synced by the kernel, not by the log's thread."""
    turn_s: float = 0.0
    """How much later a turn of the node begins than it is asked for: what is proposed meanwhile shares it."""
    cut_in_write: float = 0.0
    """The chance that the power fails in the middle of a write."""
    fault_every_s: float = 1.5
    faults: tuple[str, ...] = ()
    """Names of what may happen; see `tests.sim.faults`."""


EVERY_FAULT = (
    "weather",
    "partition",
    "isolate_leader",
    "one_way",
    "kill",
    "power_cut",
    "power_cut_all",
    "stop",
    "pause",
    "slow_disk",
    "failing_sync",
    "full_disk",
    "rot",
    "wall_clock",
    "transfer",
    "membership",
    "membership",
)


STALE_READS = ("isolate_leader", "pause", "transfer", "one_way", "weather", "slow_disk", "kill")
"""What may leave a server believing that it still leads."""


COMING_AND_GOING = ("membership", "membership", "membership", "membership", "kill", "pause", "partition", "transfer")
"""What may leave two configurations without a common member."""

HANDING_OVER = ("kill", "transfer", "transfer", "slow_disk")
"""What makes leaders that do not know yet what is committed."""


def plan_of(seed: int) -> Plan:
    """The plan of a seed: everything at once, a few faults alone, or what tempts to one kind of mistake."""
    dice = Random(seed ^ 0x5EED)
    is_tight = dice.random() < 0.5
    kind = dice.random()
    faults = tuple(sorted(dice.sample(EVERY_FAULT, 5)))
    for share, profile in ((0.4, EVERY_FAULT), (0.6, STALE_READS), (0.75, COMING_AND_GOING), (0.87, HANDING_OVER)):
        if kind < share:
            faults = profile
            break
    is_about_reads = faults in (STALE_READS, HANDING_OVER)
    return Plan(
        servers=dice.choice([1, 3, 3, 3, 3, 5, 5]) if not is_about_reads else dice.choice([3, 5]),
        clients=dice.choice([2, 4, 8]) if not is_about_reads else 8,
        keys=dice.choice([1, 3, 6]) if not is_about_reads else 1,
        heartbeat_ticks=dice.choice([1, 1, 3]),
        segment_bytes=dice.choice([8, 16, 64]) << 10,
        cache_bytes=dice.choice([1 << 10, 1 << 20]),
        flush_bytes=dice.choice([2 << 10, 1 << 20]),
        flush_s=dice.choice([1.0, 5.0]),
        keep_entries=dice.choice([5, 50, 1000]),
        max_message_bytes=dice.choice([64, 512]) if is_tight else 1 << 20,
        max_committed_bytes=dice.choice([100, 1000]) if is_tight else 1 << 20,
        max_uncommitted_bytes=dice.choice([300, 1000]) if is_tight else 1 << 20,
        max_inflight_messages=dice.choice([1, 3, 64]) if is_tight else 64,
        check_quorum=(checks := dice.random() < 0.85),
        # Without either, a member that missed its own readmission campaigns for ever among those that it knows.
        pre_vote=dice.random() < 0.8 or not checks,
        group_sends=dice.random() < 0.8,
        follower_reads=dice.random() < 0.5 or faults is HANDING_OVER,
        cut_in_write=dice.choice([0.0, 0.0005, 0.003]) if not is_about_reads else 0.0,
        fault_every_s=dice.choice([0.4, 1.0, 2.5]),
        faults=faults,
        kernel_syncs=dice.random() < 0.5,
        turn_s=dice.choice([0.0, 0.0, 0.004]),
    )
