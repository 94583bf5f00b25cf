"""The series of Karney's geodesic algorithms (Algorithms for geodesics, J. Geodesy 87, 2013), to the sixth order.

One rule: each sum is added up in the order in which GeographicLib of 2013 does it, whose last digits RethinkDB's
answers have. `eps` is the small parameter of a geodesic, `n` the third flattening of the ellipsoid.
"""

from __future__ import annotations

from collections.abc import Sequence


def sine_sum(sine: float, cosine: float, coefficients: Sequence[float]) -> float:
    """The sum of c[i] sin(2 i x) for i from 1 on, from the sine and cosine of x (Clenshaw)."""
    factor = 2 * (cosine - sine) * (cosine + sine)
    left = len(coefficients)
    older, newer = 0.0, 0.0
    if left % 2:
        left -= 1
        newer = coefficients[left]
    while left:
        older = factor * newer - older + coefficients[left - 1]
        newer = factor * older - newer + coefficients[left - 2]
        left -= 2
    return 2 * sine * cosine * newer


def a1_minus_1(eps: float) -> float:
    eps2 = eps * eps
    t = eps2 * (eps2 * (eps2 + 4) + 64) / 256
    return (t + eps) / (1 - eps)


def a2_minus_1(eps: float) -> float:
    eps2 = eps * eps
    t = eps2 * (eps2 * (25 * eps2 + 36) + 64) / 256
    return t * (1 - eps) - eps


def _powers(eps: float) -> tuple[float, float, float, float, float, float, float]:
    """eps squared, then eps to the powers 1 to 6."""
    d2 = eps * eps
    d3 = d2 * eps
    d4 = d3 * eps
    d5 = d4 * eps
    return eps * eps, eps, d2, d3, d4, d5, d5 * eps


def c1(eps: float) -> list[float]:
    """For the distance along a geodesic from the arc on the auxiliary sphere."""
    e, d1, d2, d3, d4, d5, d6 = _powers(eps)
    return [
        d1 * ((6 - e) * e - 16) / 32,
        d2 * ((64 - 9 * e) * e - 128) / 2048,
        d3 * (9 * e - 16) / 768,
        d4 * (3 * e - 5) / 512,
        -7 * d5 / 1280,
        -7 * d6 / 2048,
    ]


def c1_reverted(eps: float) -> list[float]:
    """For the arc from the distance."""
    e, d1, d2, d3, d4, d5, d6 = _powers(eps)
    return [
        d1 * (e * (205 * e - 432) + 768) / 1536,
        d2 * (e * (4005 * e - 4736) + 3840) / 12288,
        d3 * (116 - 225 * e) / 384,
        d4 * (2695 - 7173 * e) / 7680,
        3467 * d5 / 7680,
        38081 * d6 / 61440,
    ]


def c2(eps: float) -> list[float]:
    """For the reduced length, with `c1`."""
    e, d1, d2, d3, d4, d5, d6 = _powers(eps)
    return [
        d1 * (e * (e + 2) + 16) / 32,
        d2 * (e * (35 * e + 64) + 384) / 2048,
        d3 * (15 * e + 80) / 768,
        d4 * (7 * e + 35) / 512,
        63 * d5 / 1280,
        77 * d6 / 2048,
    ]


def a3_terms(n: float) -> list[float]:
    """What `horner` makes A3 of: the factor of the longitude."""
    return [1, (n - 1) / 2, (n * (3 * n - 1) - 2) / 8, ((-n - 3) * n - 1) / 16, (-2 * n - 3) / 64, -3 / 128]


def c3_terms(n: float) -> list[list[float]]:
    """What `c3` makes its coefficients of."""
    return [
        [(1 - n) / 4, (1 - n * n) / 8, ((3 - n) * n + 3) / 64, (2 * n + 5) / 128, 3 / 128],
        [((n - 3) * n + 2) / 32, ((-3 * n - 2) * n + 3) / 64, (n + 3) / 128, 5 / 256],
        [(n * (5 * n - 9) + 5) / 192, (9 - 10 * n) / 384, 7 / 512],
        [(7 - 14 * n) / 512, 7 / 512],
        [21 / 2560],
    ]


def horner(terms: Sequence[float], eps: float) -> float:
    value = 0.0
    for term in reversed(terms):
        value = eps * value + term
    return value


def c3(terms: Sequence[Sequence[float]], eps: float) -> list[float]:
    """For the longitude from the arc."""
    out = []
    power = 1.0
    for row in terms:
        power *= eps
        out.append(horner(row, eps) * power)
    return out
