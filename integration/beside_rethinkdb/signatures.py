"""What terms take and give, in the words of `queries`: a line is a term, its arguments' kinds, and its result's.

One rule: a term whose answer is chance, or depends on the order of an unordered table, is not here.
"""

from __future__ import annotations

from typing import Final

Signature = tuple[str, tuple[str, ...], tuple[str, ...]]
"""(term, kinds of its arguments, names of its optargs)."""

OPTARGS_OF: Final = {
    "left_bound": "openness", "right_bound": "openness", "default": "default", "index": "index", "ordered": "bool",
    "multi": "bool", "interleave": "bool", "unit": "unit", "emit": "func3any:arr", "default_timezone": "zone",
    "max_results": "small", "fill": "bool", "conflict": "conflict", "return_changes": "told",
    "durability": "durability", "ignore_write_hook": "bool", "non_atomic": "bool",
}  # fmt: skip

_LINES: Final = """
ADD SUB MUL DIV MOD | num num | num
ADD SUB | num num num | num
ADD | str str | str
ADD | arr arr | arr
ADD SUB | time num | time
SUB | time time | num
EQ NE LT LE GT GE | any any | bool
EQ LT GE | any any any | bool
EQ LT GE | time time | bool
NOT | any | bool
AND OR | bool bool | bool
AND OR | any any | any
FLOOR CEIL ROUND BIT_NOT | num | num
BIT_AND BIT_OR BIT_XOR | small small | num
APPEND PREPEND SET_INSERT | arr any | arr
DIFFERENCE SET_INTERSECTION SET_UNION SET_DIFFERENCE UNION | arr arr | arr
SLICE | arr small small | arr | left_bound right_bound
SLICE | str small | str | left_bound
SLICE | bin small small | bin | right_bound
SLICE | rows small small | rows | left_bound
SKIP LIMIT | arr small | arr
SKIP LIMIT | objects small | objects
SKIP LIMIT | rows small | rows
NTH BRACKET | arr small | any
NTH BRACKET | rows small | obj
OFFSETS_OF | arr any | numbers
OFFSETS_OF | rows func1:bool | numbers
CONTAINS | arr any | bool
CONTAINS | rows func1:bool | bool
GET_FIELD BRACKET | obj field | any
BRACKET | rows field | values
BRACKET GET_FIELD | objects field | arr
KEYS VALUES | obj | arr
OBJECT | str any str any | obj
HAS_FIELDS | obj path | bool
HAS_FIELDS WITH_FIELDS | objects path path | objects
HAS_FIELDS WITH_FIELDS | rows path | rows
PLUCK WITHOUT | obj path path | obj
PLUCK WITHOUT | objects path | objects
PLUCK WITHOUT | rows path path | rows
PLUCK WITHOUT | row path | obj
MERGE | obj layer | obj
MERGE | objects func1:obj | objects
MERGE | rows layer layer | rows
REDUCE | numbers func2num:num | num
MAP | numbers func1num:any | arr
MAP | numbers numbers func2num:num | numbers
MAP | objects func1:obj | objects
MAP | rows func1:any | values
MAP | rows func1:obj | rows
FOLD | numbers num func2num:num | num
FOLD | arr any func2any:any | any | emit
FILTER | objects func1:bool | objects | default
FILTER | rows func1:any | rows | default
FILTER | rows layer | rows | default
CONCAT_MAP | objects func1:arr | arr
CONCAT_MAP | rows func1:arr | values
ORDER_BY | objects field_or_function field_or_function | objects
ORDER_BY | rows field_or_function | objects
DISTINCT | arr | arr
DISTINCT | values | arr
COUNT | arr | num
COUNT | rows | num
COUNT | rows func1:bool | num
COUNT | str | num
IS_EMPTY | rows | bool
INNER_JOIN OUTER_JOIN | objects objects func2:bool | pairs
EQ_JOIN | objects field table | pairs | index ordered
ZIP | pairs | objects
RANGE | small small | numbers
INSERT_AT CHANGE_AT | arr small any | arr
DELETE_AT | arr small | arr
SPLICE_AT | arr small arr | arr
COERCE_TO | any type | any
COERCE_TO | any as_string | str
COERCE_TO | rows as_array | objects
TYPE_OF | any | str
TYPE_OF | rows | str
TYPE_OF | groups | str
FUNCALL | func1any:any any | any
FUNCALL | func2any:any any any | any
BRANCH | bool any any | any
BRANCH | bool num bool num num | num
BRANCH | bool arr arr | arr
DEFAULT | any any | any
DEFAULT | num num | num
DEFAULT | any func1any:any | any
ERROR | str | any
MATCH | str regex | any
UPCASE DOWNCASE | str | str
SPLIT | str str small | arr
JSON | json | any
TO_JSON_STRING | any | str
ISO8601 | iso | time | default_timezone
TO_ISO8601 TIMEZONE | time | str
EPOCH_TIME | num | time
TO_EPOCH_TIME TIME_OF_DAY YEAR MONTH DAY DAY_OF_WEEK DAY_OF_YEAR HOURS MINUTES SECONDS | time | num
DATE | time | time
IN_TIMEZONE | time zone | time
DURING | time time time | bool | left_bound right_bound
TIME | year month day zone | time
GROUP | objects field | groups | multi
GROUP | rows field field | groups | multi
GROUP | rows func1:any | groups
SUM AVG | numbers | num
SUM AVG | objects field | num
SUM AVG | rows func1:num | num
MAX MIN | numbers | num
COUNT | groups | any
UNGROUP | groups | objects
SUM AVG | groups field | any
LIMIT NTH SKIP | groups small | any
MAP | groups func1:any | any
FILTER | groups func1:bool | any
PLUCK HAS_FIELDS | groups path | any
MERGE | groups layer | any
GET | table key | row
GET_ALL | table key key | any | index
BETWEEN | table bound bound | any | index left_bound right_bound
ORDER_BY | table | any
BINARY | str | bin
POINT | small small | point
LINE | point point | line
POLYGON | point point point | polygon
FILL | line | polygon
GEOJSON | geojson | geo
TO_GEOJSON | geo | obj
DISTANCE | point point | num | unit
DISTANCE | geo point | num | unit
INTERSECTS | geo geo | bool
INCLUDES | polygon geo | bool
POLYGON_SUB | polygon polygon | polygon
LITERAL | any | obj
INDEX_LIST | table | arr
INFO | func1:any | obj
"""

_WRITES: Final = """
INSERT | w document | write | conflict return_changes durability ignore_write_hook
INSERT | w documents | write | conflict return_changes durability
INSERT | w objects | write | conflict return_changes
INSERT | w rows | write | conflict return_changes
INSERT | w kept_rows | write | conflict return_changes
UPDATE | w_row layer | write | return_changes durability non_atomic ignore_write_hook
UPDATE | w_row change | write | return_changes
UPDATE | w_row func1old:layer | write | return_changes non_atomic
UPDATE | w_rows layer | write | return_changes non_atomic
UPDATE | w_rows change | write | return_changes
UPDATE | w_rows func1old:change | write | return_changes non_atomic
REPLACE | w_row document | write | return_changes durability
REPLACE | w_row func1old:kept | write | return_changes non_atomic ignore_write_hook
REPLACE | w_rows func1old:kept | write | return_changes non_atomic
REPLACE | w_rows document | write | return_changes
DELETE | w_row | write | return_changes durability
DELETE | w_rows | write | return_changes durability
FOR_EACH | numbers func1num:write | write
FOR_EACH | objects func1obj:write | write
FOR_EACH | kept_rows func1old:write | write
SYNC | w | write
SET_WRITE_HOOK | w hook | write
GET_WRITE_HOOK | w | write
MAP | numbers func1num:write | write
DEFAULT | write num | write
GET_FIELD | write outcome | write
FUNCALL | func1obj:num write | write
BRANCH | bool write write | write
MERGE | old change | kept
MERGE | old layer layer | kept
WITHOUT | old path | kept
PLUCK | old path path | kept
BRANCH | bool old null | kept
DEFAULT | kept document | kept
LITERAL | obj | changed
ADD SUB MUL DIV | num num | changed
APPEND SET_INSERT DIFFERENCE | arr any | changed
BRANCH | bool any changed | changed
"""


def _read(lines: str) -> dict[str, list[Signature]]:
    by_result: dict[str, list[Signature]] = {}
    for line in lines.strip().splitlines():
        names, kinds, result, *optargs = (part.strip() for part in line.split("|"))
        for name in names.split():
            signature = name, tuple(kinds.split()), tuple(" ".join(optargs).split())
            by_result.setdefault(result, []).append(signature)
    return by_result


BY_RESULT: Final = _read(_LINES)
"""The signatures of terms by what they give."""

WRITES_BY_RESULT: Final = _read(_WRITES)
"""Those of writes to the table `w`, and of what they are given."""
