"""`python -m integration.beside_rethinkdb`: asks both servers and prints what they answer differently."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from functools import partial
from typing import Any

import orjson

from integration.beside_rethinkdb import administration
from integration.beside_rethinkdb.compare import (
    AS_BEFORE,
    STATE,
    Side,
    are_the_same,
    prepare,
    query_of,
    text_of,
    writes_of,
)
from integration.beside_rethinkdb.feeds import Program, difference


def differs_in_feeds(ports: tuple[int, int], seed: int) -> bool:
    """Whether a feed of a seed tells something else on one of the servers; prints what."""
    program = Program(seed)
    found = difference(program, ports)
    if found is None:
        return False
    number, told = found
    changes = "; ".join(map(text_of, program.writes))
    sys.stdout.write(f"seed {seed}: {text_of(program.feeds[number])}, after {changes}\n")
    show(told)
    return True


def show(sides: Iterable[Any]) -> None:
    """Prints what the two servers said."""
    for name, said in zip(("RethinkDB", "RewindDB"), sides, strict=True):
        sys.stdout.write(f"  {name:9} {orjson.dumps(said).decode()[:1500]}\n")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m integration.beside_rethinkdb", description=__doc__)
    parser.add_argument("--rethinkdb", type=int, required=True, metavar="PORT")
    parser.add_argument("--rewinddb", type=int, required=True, metavar="PORT")
    parser.add_argument("--queries", type=int, default=1000)
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--writes", action="store_true", help="per seed few writes to a table, and what is in it then")
    kind.add_argument("--administration", action="store_true", help="per seed changes of tables, users and so on")
    kind.add_argument("--feeds", action="store_true", help="per seed few changefeeds, and few writes that they tell of")
    parser.add_argument("--seed", type=int, default=1, help="of the first query; the others follow")
    wanted = parser.parse_args()
    ports = wanted.rethinkdb, wanted.rewinddb
    for port in ports:
        prepare(port)
    seeds = range(wanted.seed, wanted.seed + wanted.queries)
    differences = sum(map(partial(differs_in_feeds, ports), seeds)) if wanted.feeds else 0
    sides = [Side(port) for port in ports]
    for seed in () if wanted.feeds else seeds:
        asked = []
        if wanted.administration:
            queries = [*administration.AS_BEFORE, *administration.Administration(seed).program()]
        else:
            queries = writes_of(seed) if wanted.writes else [query_of(seed)]
        for query in queries:
            asked.append(query)
            answers = [side.nameless(side.answer(query)) for side in sides]
            if not are_the_same(*answers):
                differences += 1
                shown = [
                    text_of(query) for query in asked if query not in (AS_BEFORE, STATE, *administration.AS_BEFORE)
                ]
                sys.stdout.write(f"seed {seed}: {'; '.join(shown)}\n")
                show(answers)
                break
    sys.stdout.write(f"{wanted.queries} seeds, {differences} answered differently\n")
    return min(differences, 1)


if __name__ == "__main__":
    sys.exit(main())
