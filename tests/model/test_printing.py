"""Data as text, against what RethinkDB 2.4.4 printed."""

from __future__ import annotations

import pytest

from model.printing import json_text, number_text, print_datum, printf_g, quoted_bytes, string_text, trunc_print


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1, "1"),
        (-0.0, "-0.0"),
        (0.1, "0.1"),
        (1e20, "100000000000000000000.0"),
        (1e21, "1e21"),
        (123456789012345678.0, "123456789012345680.0"),
        (-1.5e16, "-15000000000000000.0"),
        (1e-6, "0.000001"),
        (1.25e-6, "0.00000125"),
        (1e-7, "1e-7"),
        (-1.5e-7, "-1.5e-7"),
        (1e100, "1e100"),
        (5e-324, "5e-324"),
        (1234567.891, "1234567.891"),
        # Not the shortest or nearest digits, but Grisu2's.
        (40007862.917250894, "40007862.917250897"),
        (5 / 3, "1.6666666666666668"),
        (0.1 + 0.2, "0.30000000000000007"),
        (0.49999999999999994, "0.49999999999999997"),
        (-36.636768, "-36.636767999999999"),
        (287.816789, "287.81678900000005"),
        (1e23, "9.999999999999999e22"),
        (8.403371753001708e255, "8.403371753001709e255"),
        (4.9460530092178215e-27, "4.9460530092178218e-27"),
        (46099484960854310.0, "46099484960854310.0"),
        (2.2250738585072014e-308, "2.2250738585072014e-308"),
        (1.7976931348623157e308, "1.7976931348623157e308"),
    ],
)
def test_numbers(value, text):
    assert number_text(value) == text
    assert json_text(value) == text
    assert json_text([value]) == f"[{text}]"


def test_control_characters_are_in_upper_case_hexadecimal():
    assert string_text('\x1f\n"\\é\x7f') == '"\\u001F\\n\\"\\\\é\x7f"'
    assert string_text("\\u001f") == '"\\\\u001f"'
    assert json_text({"\x0e": "\x0e"}) == '{"\\u000E":"\\u000E"}'


def test_messages_hold_data_over_several_lines():
    assert print_datum({"b": [1, 2], "a": {"c": None}, "d": [], "e": {}}) == (
        '{\n\t"a":\t{\n\t\t"c":\tnull\n\t},\n\t"b":\t[\n\t\t1,\n\t\t2\n\t],\n\t"d":\t[],\n\t"e":\t{}\n}'
    )


def test_binaries_stand_compact_in_messages():
    binary = {"$reql_type$": "BINARY", "data": "YQ=="}
    compact = '{"$reql_type$":"BINARY","data":"YQ=="}'
    assert print_datum(binary) == compact
    assert print_datum({"a": binary}) == f'{{\n\t"a":{compact}\n}}'
    assert print_datum([binary, 1]) == f"[{compact},\n\t1\n]"


def test_long_data_is_cut():
    assert trunc_print("x" * 298) == '"' + "x" * 298 + '"'
    assert trunc_print("x" * 299) == '"' + "x" * 296 + "..."
    assert trunc_print("é" * 200).endswith("é...")
    assert len(trunc_print("é" * 200).encode()) <= 300


def test_numbers_in_messages():
    assert printf_g(1e300) == "1.0000000000000000525e+300"
    assert printf_g(5) == "5"


def test_bytes_in_messages():
    assert quoted_bytes(b'a\x00"\n\xff') == '"a\\x00\\"\\n\\xff"'
