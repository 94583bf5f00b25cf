"""The decimal digits of a double as RethinkDB finds them: Grisu2, in the form that its rapidjson has.

One rule: the digits read back as the same double, and are letter for letter RethinkDB's. Those are
not always the shortest or the nearest ones: of numbers that need 17 digits a quarter ends in another
digit than `repr` gives (5/3 is 1.6666666666666668), and one short number in a thousand gets 17.

Source: F. Loitsch, "Printing Floating-Point Numbers Quickly and Accurately with Integers", 2010.
"""

from __future__ import annotations

import math
import struct
from functools import cache
from typing import Final

_HIDDEN_BIT: Final = 1 << 52  # the leading one of a normal double, which is not stored
_BITS: Final = 64  # of a significand while it is computed with
_FIRST_POWER: Final = -348  # the table's powers of ten lie eight apart from here on
_LOG10_OF_2: Final = 0.30102999566398114
_ROUNDED_PLACES: Final = 10  # so many places behind the point are rounded; the table of the original ends there


def digits_of(value: float) -> tuple[str, int]:
    """The digits of a positive, finite double and the power of ten of the last one.

    Returns, as for 12.5, `("125", -1)`.
    """
    bits: int = struct.unpack("<Q", struct.pack("<d", value))[0]
    exponent, significand = bits >> 52, bits & (_HIDDEN_BIT - 1)
    if exponent:
        significand, exponent = significand | _HIDDEN_BIT, exponent - 1075
    else:
        exponent = -1074
    # The neighbours' midpoints, and the number itself, on the scale of the upper one.
    upper = (significand << 1) + 1
    shift = _BITS - upper.bit_length()
    scale = exponent - 1 - shift
    if significand == _HIDDEN_BIT:
        lower = ((significand << 2) - 1) << (exponent - 2 - scale)
    else:
        lower = ((significand << 1) - 1) << (exponent - 1 - scale)
    index = (math.ceil((-61 - scale) * _LOG10_OF_2 + 347) >> 3) + 1
    factor, factor_exponent = _power_of_ten(index)
    top = _product(upper << shift, factor) - 1
    bottom = _product(lower, factor) + 1
    middle = _product(significand << (exponent - scale), factor)
    digits, place = _digits_between(top, top - bottom, top - middle, -(scale + factor_exponent + _BITS))
    return digits, place - (_FIRST_POWER + (index << 3))


@cache
def _power_of_ten(index: int) -> tuple[int, int]:
    """10 ** (-348 + 8 * index) as 64 bits, rounded, and the exponent of two."""
    power = _FIRST_POWER + (index << 3)
    above, below = (10**power, 1) if power >= 0 else (1, 10**-power)
    exponent = above.bit_length() - below.bit_length() - _BITS
    while True:
        shifted, by = (above << -exponent, below) if exponent < 0 else (above, below << exponent)
        significand, rest = divmod(shifted, by)
        if significand.bit_length() == _BITS:
            return significand + (2 * rest >= by), exponent
        exponent += 1 if significand.bit_length() > _BITS else -1


def _product(one: int, other: int) -> int:
    """The upper 64 bits of a product, rounded."""
    product = one * other
    return (product >> _BITS) + (product >> (_BITS - 1) & 1)


def _digits_between(top: int, width: int, gap: int, point: int) -> tuple[str, int]:
    """The fewest digits that stay within `width` below `top`, then moved towards what lies `gap` below it.

    `point`: how many of the bits stand behind the binary point. Returns the digits and the place of the last.
    """
    unit = 1 << point
    whole, part = top >> point, top & (unit - 1)
    digits = str(whole)
    for place in range(len(digits) - 1, -1, -1):
        rest = ((whole % 10**place) << point) + part
        if rest <= width:
            kept = digits[: len(digits) - place]
            return _moved(kept, width, rest, 10**place << point, gap), place
    place = 0
    while True:
        part *= 10
        width *= 10
        place -= 1
        digits += str(part >> point)
        part &= unit - 1
        if part < width:
            return _moved(digits, width, part, unit, gap * 10**-place if -place < _ROUNDED_PLACES else 0), place


def _moved(digits: str, width: int, rest: int, step: int, gap: int) -> str:
    """The last digit counted down while that comes nearer to the number and stays within the width."""
    down = 0
    while rest < gap and width - rest >= step and (rest + step < gap or gap - rest > rest + step - gap):
        down += 1
        rest += step
    return digits[:-1] + str(int(digits[-1]) - down) if down else digits
