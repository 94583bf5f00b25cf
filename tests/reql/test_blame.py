"""Whose fault an error is, and when it is found out: each case was answered so by a RethinkDB 2.4.4."""

import pytest
from rethinkdb import r

T = r.table("t")
OF_TEXT = "Expected type STRING but found NUMBER."


@pytest.fixture(autouse=True)
def rows(run, table):
    table("t", [{"id": at, "k": at % 2, "s": "a"} for at in range(4)])
    run(T.index_create("k"))
    run(T.index_create("p", geo=True))
    run(T.index_wait())


class TestWhereAValueWasMade:
    """A value of a wrong type is blamed on the term that made it, through all that only hand it on."""

    @pytest.mark.parametrize(
        ("value", "path"),
        [
            (r.branch(True, 1, 2), [0, 1]),
            (r.branch(False, 1, True, 2, 3), [0, 3]),
            (r.branch(False, 1, 2), [0, 2]),
            (r.expr(1).default(2), [0, 0]),
            (r.expr(None).default(2), [0, 1]),
            (r.expr({})["a"].default(lambda message: 2), [0, 1, 1]),
            (r.and_(1, 2), [0, 1]),
            (r.or_(False, 1), [0, 1]),
            (r.or_(1, 2), [0, 0]),
            (r.expr(2).do(lambda x: x), [0, 0, 1]),
            (r.expr(2).do(r.branch(True, 1, 2)), [0, 0, 1]),
            (r.expr([1, 2]).sum(), [0, 0]),
            (r.expr([1, 2]).count(), [0, 0]),
            (r.expr([1, 2]).reduce(lambda x, y: 1), [0, 0]),
            (T.count(), [0, 0]),
            (T.order_by(index="id").limit(2).count(), [0, 0, 0]),
            (T.count(lambda row: True), [0]),
            (T.max(index="k")["k"], [0]),
            (r.expr("abc").count(), [0]),
            (r.expr([1, 2]).nth(0), [0]),
            (r.branch(r.args([True, 1, 2])), [0]),
        ],
    )
    def test_of_what_is_no_string(self, failure, value, path):
        assert failure(value.upcase()) == ("ReqlQueryLogicError", OF_TEXT, path)

    def test_inside_functions_and_writes(self, failure):
        by_row = T.map(lambda row: r.branch(row["k"].eq(1), row["k"], "x").upcase())
        assert failure(by_row)[2] == [1, 1, 0, 1]
        assert failure(T.map(lambda row: r.branch(True, T, 1)))[2] == [1, 1, 1]
        assert failure(r.branch(True, 1, 2).merge({}))[2] == [0, 1]
        assert failure(r.branch(True, 1, T).delete())[2] == [0, 1]

    def test_of_groups_it_is_the_term_that_they_are_given_to(self, failure):
        groups = T.group("k")
        assert failure(groups.count().upcase())[2] == []
        assert failure(groups.match("a"))[2] == []
        assert failure(groups.count().slice(1))[2] == []
        assert failure(groups.count().coerce_to("array"))[2] == []


class TestRowsThatCannotBeRead:
    """It is found out when the row is looked at, and who looks is blamed."""

    def test_by_key(self, run, failure):
        row = T.get(None)
        assert run(row.type_of()) == "SELECTION<OBJECT>"
        assert run(row.info())["type"] == "SELECTION<OBJECT>"
        assert run(row.default(1)) == 1
        for query, path in (
            (row["x"], []),
            (row["x"] + 1, [0]),
            (row + 1, []),
            (r.expr([row]), []),
            (r.expr({"x": row}), []),
            (row.update({"n": 1}), []),
            (row.delete(), []),
            (r.expr({}).merge(row), []),
            (row.upcase(), [0]),
            (~row, [0]),
            (r.expr([1]).map(lambda x: row), [1]),
            (r.expr(1).do(lambda x: row), []),
        ):
            kind, message, found = failure(query)
            assert (kind, message) == ("ReqlNonExistenceError", "Primary keys must be either a number, string, bool, "
                                       "pseudotype or array (got type NULL):")  # fmt: skip
            assert found == path, query

    def test_by_index(self, run, failure):
        missing = "Index `nope` was not found on table `test.t`."
        assert run(T.order_by(index="nope").type_of()) == "TABLE_SLICE"
        assert run(T.group(index="nope").type_of()) == "GROUPED_STREAM"
        assert run(T.get_intersecting(r.point(0, 0), index="nope").type_of()) == "SELECTION<STREAM>"
        for query in (
            T.order_by(index="nope").count() + 1,
            T.group(index="nope").count().ungroup().count() + 1,
            T.min(index="nope")["a"] + 1,
            T.get_intersecting(r.point(0, 0), index="nope").count() + 1,
            T.get_nearest(r.point(0, 0), index="nope").count() + 1,
            T.get_all(1, index="nope").count() + 1,
            T.between(1, 2, index="nope").count() + 1,
        ):
            assert failure(query) == ("ReqlOpFailedError", missing, []), query

    def test_a_range_without_keys_is_not_read(self, run):
        for index in ("nope", "p"):
            assert list(run(T.between(2, 1, index=index))) == []
            assert list(run(T.between(1, 1, index=index))) == []
            assert list(run(T.between(r.maxval, {"a": 1}, index=index).map(lambda row: row["x"]))) == []

    def test_sums_of_stored_rows_are_the_shards(self, failure):
        message = "Expected type NUMBER but found STRING."
        assert failure(T.sum("s") + 1) == ("ReqlQueryLogicError", message, [])
        assert failure(T.map(lambda row: row["s"]).avg() + 1) == ("ReqlQueryLogicError", message, [])
        assert failure(r.expr([{"s": "a"}]).sum("s") + 1) == ("ReqlQueryLogicError", message, [0])
        assert failure(T.limit(3).sum("s") + 1) == ("ReqlQueryLogicError", message, [0])

    def test_limits_are_nobodys(self, failure):
        for query in (r.range(5).coerce_to("array"), T.coerce_to("array"), T.limit(3).coerce_to("array")):
            kind, message, path = failure(query.add([]), array_limit=2)
            assert (kind, path) == ("ReqlResourceLimitError", [])
            assert message.startswith("Array over size limit `2`.")
        _, message, path = failure(r.range(5).map(lambda n: {"n": n}).group("n").count(), array_limit=2)
        assert (message, path) == ("Too many groups (> 2).", [])


class TestWhatIsLookedAtFirst:
    def test_fields_of_an_object_in_their_order(self, failure):
        assert failure(r.expr({"b": r.error("b"), "a": r.error("a")}))[1] == "a"

    def test_what_args_spread(self, failure):
        assert failure(r.add(r.error("first"), r.args([r.error("spread")])))[1] == "spread"
        assert failure(r.expr([r.error("first"), r.args(r.error("spread"))]))[1] == "spread"

    def test_bounds_before_their_ends(self, run, failure):
        wrong = 'Expected `open` or `closed` for optarg `left_bound` (got `"wrong"`).'
        assert failure(r.expr([1]).slice(1.5, left_bound="wrong"))[1:] == (wrong, [])
        assert failure(T.between(r.error("low"), 1, left_bound="wrong"))[1:] == (wrong, [])
        assert run(r.expr([1, 2]).slice(1, right_bound="wrong")) == [2]

    def test_optargs_of_writes_before_what_is_written(self, failure):
        what = r.expr({"id": 9, "x": r.error("x")})
        unknown = 'Durability option `x` unrecognized (options are "hard" and "soft").'
        assert failure(T.insert(what, durability="x"))[1:] == (unknown, ["durability"])
        assert failure(T.insert(what, return_changes="x"))[2] == []
        assert failure(T.insert(what, conflict="x"))[2] == ["conflict"]
        assert failure(T.get(1).update(lambda row: T.count(), durability="x"))[1:] == (unknown, ["durability"])

    def test_the_target_of_a_write_before_all_else(self, failure):
        assert failure(r.error("target").update(lambda row: T.count(), durability="x"))[1] == "target"

    def test_day_then_month_then_year(self, failure):
        assert failure(r.time(1399, 13, 32, "Z"))[1] == "Error in time logic: Day of month value is out of range 1..31."
        assert failure(r.time(1399, 13, 1, "Z"))[1] == "Error in time logic: Month number is out of range 1..12."

    def test_options_of_a_call(self, failure):
        assert failure([64, [[69, [[2, [1]], 1]], 2], {"bogus": 1}])[1:] == (
            "Unrecognized optional argument `bogus`.", ["bogus"],
        )  # fmt: skip


class TestWhatIsMade:
    def test_arrays_of_groups(self, run):
        counts = run(r.expr([T.group("k").count(), 7]))
        assert counts["data"] == [[0, [2, 7]], [1, [2, 7]]]

    def test_args_within_args(self, run):
        assert run(r.expr([r.args(r.args([[1, 2]]))])) == [1, 2]

    def test_the_order_of_nothing_stays_a_stream(self, run):
        nothing = T.order_by(index="id").limit(0)
        assert run(nothing.order_by("k").type_of()) == "SELECTION<STREAM>"
        assert run(nothing.pluck("k").order_by("k").type_of()) == "STREAM"
        assert run(T.limit(1).pluck("k").order_by("k").type_of()) == "ARRAY"

    def test_what_a_function_sees_from_outside(self, run):
        seen = r.expr(5).do(lambda x: r.expr(7).do(lambda y: r.expr(lambda z: z + y).info()["source_code"]))
        assert "(multiple implicits), " in run(seen)
        assert ": 7]" in run(seen) and ": 5" not in run(seen)
        assert "[(no implicit)]" in run(r.expr(lambda z: z).info()["source_code"])

    def test_a_literal_belongs_into_merge_and_update_only(self, failure):
        assert failure(T.get(1).replace({"id": 1, "o": r.literal()}))[1].startswith("Stray literal keyword found")
        assert failure(r.expr([r.args([r.literal(1)])]))[1].startswith("Stray literal keyword found")


class TestHooksAndWrites:
    def test_a_hook_that_asks_for_a_missing_field(self, run):
        run(T.set_write_hook(lambda context, old, new: new.merge({"m": new["missing"]})))
        done = run(T.insert({"id": 9}))
        assert done["errors"] == 1
        assert done["first_error"].startswith("Error in write hook: No attribute `missing` in object:")

    def test_a_hook_is_not_asked_about_what_is_no_object(self, run):
        run(T.set_write_hook(lambda context, old, new: {"id": 1}))
        assert run(T.get(1).replace("text"))["first_error"] == "Expected type OBJECT but found STRING."

    def test_the_time_in_a_hook_has_milliseconds_as_now_has(self, run):
        run(T.set_write_hook(lambda context, old, new: new.merge({"at": context["timestamp"].to_epoch_time()})))
        run(T.insert({"id": 9}))
        at = run(T.get(9)["at"])
        assert at == round(at, 3)

    def test_a_time_is_merged_into_no_row(self, run):
        assert run(T.get(1).update(r.now()))["first_error"] == "Cannot merge objects of type `PTYPE<TIME>`."

    def test_groups_are_no_rows(self, run, failure):
        message = "Cannot treat the output of `group` as a stream (did you mean to `ungroup`?)."
        for groups in (T.group("k"), T.group("k").filter(lambda row: True)):
            assert failure(T.insert(groups))[1:] == (message, [1])
        assert run(T.count()) == 4

    def test_bytes_are_no_row(self, failure):
        assert failure(T.insert(r.binary(b"a")))[1:] == ("Cannot convert PTYPE<BINARY> to SEQUENCE", [])


class TestWhatIsNotLookedAt:
    def test_the_other_sequence_of_a_difference_of_nothing(self, run, failure):
        assert run(r.expr([]).difference(r.error("x"))) == []
        assert run(r.expr([1]).difference(None)) == []  # it is a filter, which leaves out what finds nothing
        assert run(r.expr([1, 2, 1]).difference([1])) == [2]
        assert failure(r.expr([1]).difference(1))[1:] == ("Cannot convert NUMBER to SEQUENCE", [])
        assert failure(r.expr([1]).difference(T.group("k")))[1] == "Expected type DATUM but found GROUPED_DATA:"

    def test_a_bound_of_during_that_does_not_matter(self, run, failure):
        first, last = r.epoch_time(1), r.epoch_time(2)
        assert run(r.epoch_time(1.5).during(first, last, right_bound=r.error("x"))) is True
        assert run(r.epoch_time(0).during(first, last, left_bound=r.error("x"))) is False
        assert failure(last.during(first, last, right_bound="x"))[1].startswith("Expected `open` or `closed`")

    def test_the_second_argument_where_the_first_will_not_do(self, failure):
        assert failure(r.expr(1).nth(1.5))[1:] == ("Cannot convert NUMBER to SEQUENCE", [])
        assert failure(r.expr(1).delete_at(1.5))[1:] == ("Expected type ARRAY but found NUMBER.", [])
        assert failure(r.expr(2**53).bit_or("a"))[1:] == ("Integer too large: 9007199254740992", [])
        assert failure(r.point(1, 1).includes(1))[1] == "Expected geometry of type `Polygon` but found `Point`."

    def test_bytes_as_a_filter_are_true(self, run):
        assert run(r.expr([{"a": 1}]).filter(r.binary(b"a"))) == [{"a": 1}]


def test_a_field_that_is_none_of_a_geometrys_is_a_wrong_one_even_if_null(failure):
    shape = r.expr({"$reql_type$": "GEOMETRY", "type": "Point", "coordinates": [1, 2], "x": None})
    assert failure(shape)[:2] == ("ReqlQueryLogicError", "Unrecognized field `x` found in geometry object.")


class TestTablesThatAreNone:
    @pytest.mark.parametrize(
        "query",
        [[174, [1]], [175, [1]], [177, [1]], [176, [1], {"shards": 1, "replicas": 1}], [179, [1]], [188, [1, "u", {}]]],
    )  # config, status, wait, reconfigure, rebalance, grant
    def test_are_blamed_as_arguments(self, failure, query):
        assert failure(query) == ("ReqlQueryLogicError", "Expected type TABLE but found DATUM:", [0])

    def test_null_is_no_database_and_no_function(self, failure):
        assert failure([62, [None]])[1:] == ("Expected type DATABASE but found DATUM:", [0])
        assert failure(T.index_create("new", None))[1:] == ("Expected type FUNCTION but found DATUM:", [2])
