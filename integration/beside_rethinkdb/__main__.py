"""`python -m integration.beside_rethinkdb`: asks both servers and prints what they answer differently."""

from __future__ import annotations

import argparse
import sys

import orjson

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


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m integration.beside_rethinkdb", description=__doc__)
    parser.add_argument("--rethinkdb", type=int, required=True, metavar="PORT")
    parser.add_argument("--rewinddb", type=int, required=True, metavar="PORT")
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--writes", action="store_true", help="few writes to a table and what is in it then, per seed")
    parser.add_argument("--seed", type=int, default=1, help="of the first query; the others follow")
    wanted = parser.parse_args()
    ports = wanted.rethinkdb, wanted.rewinddb
    for port in ports:
        prepare(port)
    sides = [Side(port) for port in ports]
    differences = 0
    for seed in range(wanted.seed, wanted.seed + wanted.queries):
        asked = []
        for query in writes_of(seed) if wanted.writes else [query_of(seed)]:
            asked.append(query)
            answers = [side.answer(query) for side in sides]
            if not are_the_same(*answers):
                differences += 1
                shown = [text_of(query) for query in asked if query not in (AS_BEFORE, STATE)]
                sys.stdout.write(f"seed {seed}: {'; '.join(shown)}\n")
                for name, answer in zip(("RethinkDB", "RewindDB"), answers, strict=True):
                    sys.stdout.write(f"  {name:9} {orjson.dumps(answer).decode()[:400]}\n")
                break
    sys.stdout.write(f"{wanted.queries} seeds, {differences} answered differently\n")
    return min(differences, 1)


if __name__ == "__main__":
    sys.exit(main())
