"""The comparison with a RethinkDB, without one: the queries are worth asking, and this server answers all of them."""

from integration.beside_rethinkdb.administration import AS_BEFORE, Administration
from integration.beside_rethinkdb.compare import (
    INTERNAL_ERROR,
    Side,
    are_the_same,
    prepare,
    query_of,
    text_of,
    writes_of,
)
from integration.beside_rethinkdb.feeds import Program, difference
from integration.beside_rethinkdb.queries import WRITTEN, term

QUERIES = 3000
WRITERS = 300
FEEDS = 60
ADMINISTRATORS = 40
WRITTEN_FEED = term("CHANGES", WRITTEN)


def test_random_queries_have_answers_and_the_same_ones_again(server):
    prepare(server.port)
    side, errors, internal = Side(server.port), 0, []
    for seed in range(QUERIES):
        query = query_of(seed)
        answer = side.answer(query)
        errors += "e" in answer
        if "lost" in answer or answer.get("e") == INTERNAL_ERROR:
            internal.append((text_of(query), answer))
        assert are_the_same(answer, side.answer(query)), text_of(query)
    assert internal == []
    assert QUERIES / 10 < errors < QUERIES / 2  # neither all right nor all wrong


def test_random_writes_have_answers_and_do_the_same_again(server):
    prepare(server.port)
    side, done, errors = Side(server.port), 0, 0
    for seed in range(WRITERS):
        queries = writes_of(seed)
        first, again = ([side.answer(query) for query in queries] for _ in range(2))
        for query, answer, other in zip(queries[1:], first[1:], again[1:], strict=True):  # the first finds other rows
            assert "lost" not in answer, text_of(query)
            assert answer.get("e") != INTERNAL_ERROR, (text_of(query), answer)
            assert are_the_same(answer, other), text_of(query)
        outcomes = [errors_of(answer) for answer in first[1::2]]
        done += outcomes.count(0)
        errors += sum(outcome > 0 for outcome in outcomes)
    assert done > WRITERS
    assert errors > WRITERS / 4


def test_random_feeds_tell_the_same_of_the_same_writes(start, tmp_path):
    """Nothing of what they tell is chance, so that two servers can be compared."""
    ports = tuple(start(data_dir=tmp_path / name).port for name in ("one", "other"))
    for port in ports:
        prepare(port)
    for seed in range(FEEDS):
        program = Program(seed)
        assert difference(program, ports) is None, list(map(text_of, program.feeds))


def test_feeds_that_tell_something_else_are_found(start, tmp_path):
    ports = tuple(start(data_dir=tmp_path / name).port for name in ("one", "other"))
    for port in ports:
        prepare(port)
    program = Program(1)
    program.feeds = [WRITTEN_FEED]
    program.writes = [term("INSERT", WRITTEN, {"id": "made", "at": term("RANDOM")})]
    number, told = difference(program, ports)
    assert number == 0
    assert len(told) == 2
    assert told[0] != told[1]


def test_random_administration_has_answers_and_the_same_ones_of_two_servers(start, tmp_path):
    sides = [Side(start(data_dir=tmp_path / name).port) for name in ("one", "other")]
    errors = 0
    for seed in range(ADMINISTRATORS):
        for query in (*AS_BEFORE, *Administration(seed).program()):
            one, other = (side.nameless(side.answer(query)) for side in sides)
            assert "lost" not in one, text_of(query)
            assert one.get("e") != INTERNAL_ERROR, (text_of(query), one)
            assert are_the_same(one, other), (text_of(query), one, other)
            errors += "e" in one
    assert ADMINISTRATORS < errors < 8 * ADMINISTRATORS


def errors_of(answer):
    """How many rows a write failed for; 1 if it failed altogether, 0 if it came to something else than counts."""
    if "e" in answer:
        return 1
    result = answer["r"][0] if answer["r"] else {}
    return result.get("errors", 0) if isinstance(result, dict) else 0


def test_a_query_depends_on_its_seed_alone():
    assert [query_of(seed) for seed in range(50)] == [query_of(seed) for seed in range(50)]
    assert [writes_of(seed) for seed in range(50)] == [writes_of(seed) for seed in range(50)]


def test_what_is_told_apart():
    value = {"t": 1, "r": [{"id": 1}]}
    error = {"t": 18, "e": 3_000_000, "r": ['No attribute `x` in object:\n{\n\t"id":\t1\n}'], "b": [0]}
    assert are_the_same(value, {"t": 1, "r": [{"id": 1}]})
    assert not are_the_same(value, {"t": 1, "r": [{"id": 2}]})
    assert not are_the_same(value, {"t": 2, "r": [{"id": 1}]})
    assert are_the_same(error, {**error, "r": ['No attribute `x` in object:\n{\n\t"id":\t7\n}']})
    assert not are_the_same(error, {**error, "b": []})
    assert not are_the_same(error, {**error, "r": ["No attribute `y` in object:\n{}"]})
    assert not are_the_same(value, {"lost": "EOFError()"})
