"""The comparison with a RethinkDB, without one: the queries are worth asking, and this server answers all of them."""

from integration.beside_rethinkdb.compare import INTERNAL_ERROR, Side, are_the_same, prepare, query_of, text_of

QUERIES = 3000


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


def test_a_query_depends_on_its_seed_alone():
    assert [query_of(seed) for seed in range(50)] == [query_of(seed) for seed in range(50)]


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
