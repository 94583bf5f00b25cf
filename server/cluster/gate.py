"""The evaluator of a server in a cluster: decides whether a query may be run here at all.

One rule: names and rows are looked up here only by the leader, or where the query itself says that it may be
outdated: a follower may not even know the table yet. And a query that has written is never run a second time.
"""

from __future__ import annotations

from typing import Any, Protocol

from model.errors import NotLeader, ReqlOpIndeterminateError
from proxy.answers import Answer, Evaluator, Promised, QueryContext

MAY_BE_OUTDATED = b"outdated"  # stands in the text of every query that may be answered by anybody


class Leads(Protocol):
    """Whether this server may run queries (`consensus.node.Node`)."""

    @property
    def can_serve(self) -> bool: ...


class Writers(Protocol):
    """Which fibers have written in their present query (`server.replica.Replica`)."""

    writers: set[Any]


class Gate:
    """The Evaluator port in front of the real one. Raises NotLeader where nothing was done."""

    def __init__(self, evaluator: Evaluator, leads: Leads, replica: Writers, fibers: Any) -> None:
        self._start = evaluator.start
        self.glance = evaluator.glance  # which gives nothing where rows may not be read
        self._leads = leads
        self._writers = replica.writers
        self._fibers = fibers

    def start(self, body: bytes, context: QueryContext) -> Answer | Promised:
        if not self._leads.can_serve and MAY_BE_OUTDATED not in body:
            raise NotLeader("this server does not lead, or has not caught up yet", "Try again in a moment.")
        self._writers.discard(self._fibers.current)
        try:
            return self._start(body, context)
        except NotLeader:
            if self._fibers.current in self._writers:
                raise ReqlOpIndeterminateError(
                    "Leadership was lost after a part of this query was done.  The rest was not done."
                ) from None
            raise
