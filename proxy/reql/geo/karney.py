"""Geodesics on an oblate ellipsoid: Karney's solutions of the direct and of the inverse problem.

Written after C. F. F. Karney, Algorithms for geodesics, J. Geodesy 87 (2013). One rule: the numbers are those of
GeographicLib 1.32 to the last bit, which RethinkDB has; today's GeographicLib, by which the tests check this file,
rounds otherwise. Angles are in degrees outside and pairs of sine and cosine inside: alpha azimuth, beta reduced
latitude, sigma arc and omega longitude on the auxiliary sphere, lambda longitude. `max(0.0, x)` makes 0 of -0, which
`max(x, 0.0)` would keep, and the arc tangent of -0 is on the other side of the sphere.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Final

from proxy.reql.geo import series

DEGREE: Final = math.pi / 180
TINY: Final = math.sqrt(sys.float_info.min)
EPSILON: Final = sys.float_info.epsilon
ROOT_EPSILON: Final = math.sqrt(EPSILON)
NEWTON_STEPS: Final = 20
ALL_STEPS: Final = NEWTON_STEPS + 53 + 10
ACCURATE_FLATTENING: Final = 0.01  # beyond it the reverted series needs a correction

Pair = tuple[float, float]


def _unit(sine: float, cosine: float) -> Pair:
    length = math.sqrt(sine * sine + cosine * cosine) or math.hypot(sine, cosine)  # the squares of tiny numbers are 0
    return sine / length, cosine / length


def _length(x: float, y: float) -> float:
    return math.sqrt(x * x + y * y)


def _normal(degrees: float) -> float:
    """In [-180, 180), from [-540, 540)."""
    return degrees - 360 if degrees >= 180 else degrees + 360 if degrees < -180 else degrees


def _rounded(degrees: float) -> float:
    """Without what is too small to tell from 0 beside 1/16."""
    size = abs(degrees)
    if size < 0.0625:
        size = 0.0625 - (0.0625 - size)
    return -size if degrees < 0 else size


def _difference(x: float, y: float) -> float:
    """y - x in [-180, 180], without the error of the sum."""
    total = y - x
    up = total - y
    rest = -((up + x) + ((total - up) - y))
    if (total - 180) + rest > 0:
        total -= 360
    elif (total + 180) + rest <= 0:
        total += 360
    return total + rest


class Geodesics:
    """The geodesics of one ellipsoid: `a` is its equator's radius, `f` its flattening in [0, 1)."""

    __slots__ = ("_a", "_a3", "_b", "_c3", "_ep2", "_f", "_f1", "_n", "_short_arc")

    def __init__(self, a: float, f: float) -> None:
        self._a = a
        self._f = f
        self._f1 = 1 - f
        self._ep2 = f * (2 - f) / (self._f1 * self._f1)
        self._n = f / (2 - f)
        self._b = a * self._f1
        self._short_arc = 0.1 * ROOT_EPSILON / math.sqrt(max(0.001, f) * min(1.0, 1 - f / 2) / 2)
        self._a3 = series.a3_terms(self._n)
        self._c3 = series.c3_terms(self._n)

    def _beta(self, latitude: float) -> Pair:
        phi = latitude * DEGREE
        return _unit(self._f1 * math.sin(phi), TINY if abs(latitude) == 90 else math.cos(phi))

    def _eps(self, calp0: float) -> float:
        k2 = calp0 * calp0 * self._ep2
        return k2 / (2 * (1 + math.sqrt(1 + k2)) + k2)

    # ---- direct ------------------------------------------------------------------------------------------------

    def at(self, longitude: float, latitude: float, azimuth: float, distance: float) -> tuple[float, float]:
        """The longitude and latitude so far away in a direction, in degrees from north."""
        azimuth = _rounded(_normal(azimuth))
        longitude = _normal(longitude)
        alp1 = azimuth * DEGREE
        salp1 = 0.0 if azimuth == -180 else math.sin(alp1)
        calp1 = 0.0 if abs(azimuth) == 90 else math.cos(alp1)
        sbet1, cbet1 = self._beta(latitude)
        salp0, calp0 = salp1 * cbet1, _length(calp1, salp1 * sbet1)
        somg1 = salp0 * sbet1
        comg1 = cbet1 * calp1 if sbet1 != 0 or calp1 != 0 else 1.0
        ssig1, csig1 = _unit(sbet1, comg1)
        eps = self._eps(calp0)
        sig12 = self._arc(ssig1, csig1, eps, distance, calp0)
        ssig12, csig12 = math.sin(sig12), math.cos(sig12)
        ssig2 = ssig1 * csig12 + csig1 * ssig12
        csig2 = csig1 * csig12 - ssig1 * ssig12
        cbet2 = _length(salp0, calp0 * csig2)
        if cbet2 == 0:
            cbet2 = csig2 = TINY
        somg2 = salp0 * ssig2
        omg12 = math.atan2(somg2 * comg1 - csig2 * somg1, csig2 * comg1 + somg2 * somg1)
        c3 = series.c3(self._c3, eps)
        a3c = -self._f * salp0 * series.horner(self._a3, eps)
        b31 = series.sine_sum(ssig1, csig1, c3)
        lam12 = omg12 + a3c * (sig12 + (series.sine_sum(ssig2, csig2, c3) - b31))
        east = _normal(math.fmod(lam12 / DEGREE, 360))
        return _normal(longitude + east), math.atan2(calp0 * ssig2, self._f1 * cbet2) / DEGREE

    def _arc(self, ssig1: float, csig1: float, eps: float, distance: float, calp0: float) -> float:
        """The arc on the auxiliary sphere for a distance on the ellipsoid."""
        a1 = series.a1_minus_1(eps)
        c1 = series.c1(eps)
        b11 = series.sine_sum(ssig1, csig1, c1)
        s, c = math.sin(b11), math.cos(b11)
        stau1, ctau1 = ssig1 * c + csig1 * s, csig1 * c - ssig1 * s
        tau12 = distance / (self._b * (1 + a1))
        s, c = math.sin(tau12), math.cos(tau12)
        b12 = -series.sine_sum(stau1 * c + ctau1 * s, ctau1 * c - stau1 * s, series.c1_reverted(eps))
        sig12 = tau12 - (b12 - b11)
        if self._f > ACCURATE_FLATTENING:
            s, c = math.sin(sig12), math.cos(sig12)
            ssig2, csig2 = ssig1 * c + csig1 * s, csig1 * c - ssig1 * s
            b12 = series.sine_sum(ssig2, csig2, c1)
            error = (1 + a1) * (sig12 + (b12 - b11)) - distance / self._b
            sig12 -= error / math.sqrt(1 + calp0 * calp0 * self._ep2 * (ssig2 * ssig2))
        return sig12

    # ---- inverse -----------------------------------------------------------------------------------------------

    def distance(self, longitude1: float, latitude1: float, longitude2: float, latitude2: float) -> float:
        """The length of the shortest way between two places."""
        lon12 = abs(_rounded(_difference(_normal(longitude1), _normal(longitude2))))
        latitudes = _rounded(latitude1), _rounded(latitude2)
        lat1, lat2 = latitudes if abs(latitudes[0]) >= abs(latitudes[1]) else latitudes[::-1]
        if lat1 >= 0:
            lat1, lat2 = -lat1, -lat2
        pair = _Places(self, self._beta(lat1), self._beta(lat2), lon12)
        if lat1 == -90 or pair.slam12 == 0:
            found = pair.along_meridian()
            if found is not None:
                return 0 + found * self._b
        if pair.sbet1 == 0 and pair.lam12 <= math.pi - self._f * math.pi:
            return 0 + self._a * pair.lam12
        return 0 + pair.generally() * self._b

    def lengths(self, eps: float, sig12: float, sig1: Pair, sig2: Pair, dn: Pair) -> Pair:
        """The distance and the reduced length, both for b = 1."""
        (ssig1, csig1), (ssig2, csig2) = sig1, sig2
        c1, c2 = series.c1(eps), series.c2(eps)
        a1, a2 = series.a1_minus_1(eps), series.a2_minus_1(eps)
        ab1 = (1 + a1) * (series.sine_sum(ssig2, csig2, c1) - series.sine_sum(ssig1, csig1, c1))
        ab2 = (1 + a2) * (series.sine_sum(ssig2, csig2, c2) - series.sine_sum(ssig1, csig1, c2))
        j12 = (a1 - a2) * sig12 + (ab1 - ab2)
        reduced = dn[1] * (csig1 * ssig2) - dn[0] * (ssig1 * csig2) - csig1 * csig2 * j12
        return (1 + a1) * sig12 + ab1, reduced

    @property
    def shape(self) -> tuple[float, float, float, float, float]:
        """f, 1 - f, the second eccentricity squared, n, and the arc below which lines count as short."""
        return self._f, self._f1, self._ep2, self._n, self._short_arc

    def a3(self, eps: float) -> float:
        return series.horner(self._a3, eps)

    def c3(self, eps: float) -> Sequence[float]:
        return series.c3(self._c3, eps)


class _Places:
    """Two places brought into order: the first is in the south, and the further from the equator."""

    __slots__ = (
        "cbet1", "cbet2", "dn", "earth", "ep2", "f", "f1", "lam12", "n", "sbet1", "sbet2", "short_arc", "slam12",
    )  # fmt: skip

    def __init__(self, earth: Geodesics, beta1: Pair, beta2: Pair, lon12: float) -> None:
        self.earth = earth
        self.f, self.f1, self.ep2, self.n, self.short_arc = earth.shape
        self.sbet1, self.cbet1 = beta1
        self.sbet2, self.cbet2 = beta2
        if self.cbet1 < -self.sbet1:
            if self.cbet2 == self.cbet1:
                self.sbet2 = self.sbet1 if self.sbet2 < 0 else -self.sbet1
        elif abs(self.sbet2) == -self.sbet1:
            self.cbet2 = self.cbet1
        self.dn = (
            math.sqrt(1 + self.ep2 * (self.sbet1 * self.sbet1)),
            math.sqrt(1 + self.ep2 * (self.sbet2 * self.sbet2)),
        )
        self.lam12 = lon12 * DEGREE
        self.slam12 = 0.0 if lon12 == 180 else math.sin(self.lam12)

    def along_meridian(self) -> float | None:
        """The distance for b = 1, None where the meridian is not the shortest way."""
        ssig1, csig1 = self.sbet1, math.cos(self.lam12) * self.cbet1
        ssig2, csig2 = self.sbet2, self.cbet2
        sig12 = math.atan2(max(0.0, csig1 * ssig2 - ssig1 * csig2), csig1 * csig2 + ssig1 * ssig2)
        distance, reduced = self.earth.lengths(self.n, sig12, (ssig1, csig1), (ssig2, csig2), self.dn)
        return distance if sig12 < 1 or reduced >= 0 else None

    def generally(self) -> float:
        """The distance for b = 1, by Newton's method on the first azimuth, which is kept between two bounds."""
        short, salp1, calp1 = self._start()
        if short is not None:
            return short
        low, high = (TINY, 1.0), (TINY, -1.0)
        near = narrow = False
        for step in range(ALL_STEPS):
            guess = _Guess(self, salp1, calp1, step < NEWTON_STEPS)
            error = guess.lam12 - self.lam12
            if narrow or not abs(error) >= (8 if near else 2) * EPSILON:
                break
            if error > 0 and (step > NEWTON_STEPS or calp1 / salp1 > high[1] / high[0]):
                high = salp1, calp1
            elif error < 0 and (step > NEWTON_STEPS or calp1 / salp1 < low[1] / low[0]):
                low = salp1, calp1
            if step < NEWTON_STEPS and guess.slope > 0:
                change = -error / guess.slope
                s, c = math.sin(change), math.cos(change)
                fresh = salp1 * c + calp1 * s
                if fresh > 0 and abs(change) < math.pi:
                    salp1, calp1 = _unit(fresh, calp1 * c - salp1 * s)
                    near = abs(error) <= 16 * EPSILON
                    continue
            salp1, calp1 = _unit((low[0] + high[0]) / 2, (low[1] + high[1]) / 2)
            near = False
            enough = EPSILON * ROOT_EPSILON
            narrow = (
                abs(low[0] - salp1) + (low[1] - calp1) < enough or abs(salp1 - high[0]) + (calp1 - high[1]) < enough
            )
        return self.earth.lengths(guess.eps, guess.sig12, guess.sig1, guess.sig2, self.dn)[0]

    def _start(self) -> tuple[float | None, float, float]:
        """The distance itself if it is very short, and the sine and cosine of a first guess at the azimuth."""
        sbet1, cbet1, sbet2, cbet2 = self.sbet1, self.cbet1, self.sbet2, self.cbet2
        sbet12 = sbet2 * cbet1 - cbet2 * sbet1
        sum12 = sbet2 * cbet1 + cbet2 * sbet1
        omg12 = self.lam12
        dnm = 0.0
        if cbet2 * cbet1 + sbet2 * sbet1 >= 0 and sbet12 < 0.5 and cbet2 * self.lam12 < 0.5:
            middle = (sbet1 + sbet2) * (sbet1 + sbet2)
            middle /= middle + (cbet1 + cbet2) * (cbet1 + cbet2)
            dnm = math.sqrt(1 + self.ep2 * middle)
            omg12 /= self.f1 * dnm
        somg12, comg12 = math.sin(omg12), math.cos(omg12)
        salp1 = cbet2 * somg12
        if comg12 >= 0:
            calp1 = sbet12 + cbet2 * sbet1 * (somg12 * somg12) / (1 + comg12)
        else:
            calp1 = sum12 - cbet2 * sbet1 * (somg12 * somg12) / (1 - comg12)
        ssig12 = _length(salp1, calp1)
        csig12 = sbet1 * sbet2 + cbet1 * cbet2 * comg12
        if dnm and ssig12 < self.short_arc:
            return math.atan2(ssig12, csig12) * dnm, salp1, calp1
        near_antipode = ssig12 < 6 * abs(self.n) * math.pi * (cbet1 * cbet1)
        if self.n <= 0.1 and csig12 < 0 and near_antipode:
            salp1, calp1 = self._start_near_antipode(sum12)
        return (None, *_unit(salp1, calp1)) if salp1 > 0 else (None, 1.0, 0.0)

    def _start_near_antipode(self, sum12: float) -> Pair:
        """There, the geodesics' envelope is an astroid."""
        sbet1, cbet1 = self.sbet1, self.cbet1
        scale = self.f * cbet1 * self.earth.a3(self.earth_eps(sbet1)) * math.pi
        x = (self.lam12 - math.pi) / scale
        y = sum12 / (scale * cbet1)
        if y > -200 * EPSILON and x > -1 - 1000 * ROOT_EPSILON:
            salp1 = min(1.0, -x)
            return salp1, -math.sqrt(1 - salp1 * salp1)
        k = _astroid(x, y)
        omg12 = scale * (-x * k / (1 + k))
        somg12, comg12 = math.sin(omg12), -math.cos(omg12)
        return self.cbet2 * somg12, sum12 - self.cbet2 * sbet1 * (somg12 * somg12) / (1 - comg12)

    def earth_eps(self, calp0: float) -> float:
        """The small parameter of the geodesic that crosses the equator at an azimuth of this cosine."""
        k2 = calp0 * calp0 * self.ep2
        return k2 / (2 * (1 + math.sqrt(1 + k2)) + k2)


class _Guess:
    """Where a geodesic with a first azimuth gets to at the second latitude: the longitude, and how that changes."""

    __slots__ = ("eps", "lam12", "sig1", "sig2", "sig12", "slope")

    def __init__(self, places: _Places, salp1: float, calp1: float, wants_slope: bool) -> None:
        sbet1, cbet1, sbet2, cbet2 = places.sbet1, places.cbet1, places.sbet2, places.cbet2
        if sbet1 == 0 and calp1 == 0:
            calp1 = -TINY
        salp0, calp0 = salp1 * cbet1, _length(calp1, salp1 * sbet1)
        somg1, comg1 = salp0 * sbet1, calp1 * cbet1
        self.sig1 = ssig1, csig1 = _unit(sbet1, comg1)
        if cbet2 != cbet1 or abs(sbet2) != -sbet1:
            south = cbet1 < -sbet1
            rest = (cbet2 - cbet1) * (cbet1 + cbet2) if south else (sbet1 - sbet2) * (sbet1 + sbet2)
            calp2 = math.sqrt(calp1 * cbet1 * (calp1 * cbet1) + rest) / cbet2
        else:
            calp2 = abs(calp1)
        somg2, comg2 = salp0 * sbet2, calp2 * cbet2
        self.sig2 = ssig2, csig2 = _unit(sbet2, comg2)
        self.sig12 = math.atan2(max(0.0, csig1 * ssig2 - ssig1 * csig2), csig1 * csig2 + ssig1 * ssig2)
        omg12 = math.atan2(max(0.0, comg1 * somg2 - somg1 * comg2), comg1 * comg2 + somg1 * somg2)
        self.eps = places.earth_eps(calp0)
        c3 = places.earth.c3(self.eps)
        b312 = series.sine_sum(ssig2, csig2, c3) - series.sine_sum(ssig1, csig1, c3)
        self.lam12 = omg12 + salp0 * (-places.f * places.earth.a3(self.eps)) * (self.sig12 + b312)
        self.slope = 0.0
        if wants_slope:
            if calp2 == 0:
                self.slope = -2 * places.f1 * places.dn[0] / sbet1
            else:
                reduced = places.earth.lengths(self.eps, self.sig12, self.sig1, self.sig2, places.dn)[1]
                self.slope = reduced * (places.f1 / (calp2 * cbet2))


def _astroid(x: float, y: float) -> float:
    """The positive root k of k^4 + 2 k^3 - (x^2 + y^2 - 1) k^2 - 2 y^2 k - y^2 = 0."""
    p, q = x * x, y * y
    r = (p + q - 1) / 6
    if q == 0 and r <= 0:
        return 0.0
    s = p * q / 4
    r3 = r * (r * r)
    discriminant = s * (s + 2 * r3)
    u = r
    if discriminant >= 0:
        t3 = s + r3
        t3 += -math.sqrt(discriminant) if t3 < 0 else math.sqrt(discriminant)
        t = math.copysign(math.pow(abs(t3), 1 / 3), t3)
        u += t + (r * r / t if t != 0 else 0)
    else:
        u += 2 * r * math.cos(math.atan2(math.sqrt(-discriminant), -(s + r3)) / 3)
    v = math.sqrt(u * u + q)
    uv = q / (v - u) if u < 0 else u + v
    w = (uv - q) / (2 * v)
    return uv / (math.sqrt(uv + w * w) + w)
