"""Compiled loops over spectra: Fourier transforms of short windows, each by itself, and the harmonics of a period."""

import math

import numba
import numpy as np
from numpy.typing import NDArray

from app.series import FloatArray

Integers = NDArray[np.int64]

_SMALLEST = 1e-12
_TURNS = 256
_ROUNDING = 1e-6


@numba.njit(cache=True, nogil=True)
def transform(real: FloatArray, imaginary: FloatArray, cosines: FloatArray, sines: FloatArray) -> None:
    """The discrete Fourier transform of n numbers in place, n a power of two; cosines and sines of 2 pi j / n."""
    n = len(real)
    target = 0
    for source in range(1, n):
        bit = n >> 1
        while target & bit:
            target ^= bit
            bit >>= 1
        target ^= bit
        if source < target:
            real[source], real[target] = real[target], real[source]
            imaginary[source], imaginary[target] = imaginary[target], imaginary[source]
    size = 2
    while size <= n:
        half, step = size // 2, n // size
        for first in range(0, n, size):
            for j in range(half):
                cosine, sine = cosines[j * step], -sines[j * step]
                low, high = first + j, first + j + half
                x = real[high] * cosine - imaginary[high] * sine
                y = real[high] * sine + imaginary[high] * cosine
                real[high], imaginary[high] = real[low] - x, imaginary[low] - y
                real[low], imaginary[low] = real[low] + x, imaginary[low] + y
        size *= 2


@numba.njit(cache=True, nogil=True)
def saliency_map(real: FloatArray, imaginary: FloatArray, cosines: FloatArray, sines: FloatArray) -> None:
    """Put the saliency of n numbers, `real`, into their place: what their spectrum's residual is back in time.

    The residual is that of the logarithm of the amplitudes from its mean over three neighbours. `imaginary` is a
    buffer.
    """
    n = len(real)
    imaginary[:] = 0.0
    transform(real, imaginary, cosines, sines)
    logs = np.empty(n)
    for j in range(n):
        logs[j] = math.log(math.sqrt(real[j] ** 2 + imaginary[j] ** 2) + _SMALLEST)
    logs[0] = logs[1]  # the mean is taken away before
    for j in range(n):
        around = (logs[j - 1] + logs[j] + logs[(j + 1) % n]) / 3.0
        factor = math.exp(-around)
        real[j], imaginary[j] = real[j] * factor, -imaginary[j] * factor
    transform(real, imaginary, cosines, sines)  # of the conjugate: the inverse, but for a conjugate and the factor n
    for j in range(n):
        real[j] = math.sqrt(real[j] ** 2 + imaginary[j] ** 2) / n


@numba.njit(cache=True, nogil=True)
def newest_saliencies(
    values: FloatArray, size: int, extension: int, cosines: FloatArray, sines: FloatArray
) -> FloatArray:
    """How salient the newest of each `size - extension` points is, beside their mean saliency, in [0, size].

    The points are extended by the value to which the mean slope of the points before the newest leads: were the newest
    one's own slope in it, a spike would be drowned in what is to follow it.
    Shape (n - size + extension + 1,).
    """
    points = size - extension
    saliencies = np.empty(len(values) - points + 1)
    real, imaginary = np.empty(size), np.empty(size)
    steps = min(5, points - 2)
    for i in range(len(saliencies)):
        newest = i + points - 1
        last, rise = newest - 1, 0.0
        for j in range(1, steps + 1):
            rise += (values[last] - values[last - j]) / j
        following = values[last - steps + 1] + rise
        total = 0.0
        for j in range(points):
            real[j] = values[i + j]
            total += real[j]
        real[points:] = following
        mean = (total + extension * following) / size
        for j in range(size):
            real[j] -= mean
        saliency_map(real, imaginary, cosines, sines)
        total = 0.0
        for j in range(points):
            total += real[j]
        saliencies[i] = real[points - 1] * points / max(total, _SMALLEST)
    return saliencies


@numba.njit(cache=True, nogil=True)
def saliencies_in_view(values: FloatArray, size: int, cosines: FloatArray, sines: FloatArray) -> FloatArray:
    """How salient each point is in the window that has it near its middle, beside its mean: shape (n,), n >= size."""
    n, quarter = len(values), max(size // 4, 1)
    saliencies = np.empty(n)
    real, imaginary = np.empty(size), np.empty(size)
    first = 0
    while True:
        mean = values[first : first + size].mean()
        for j in range(size):
            real[j] = values[first + j] - mean
        saliency_map(real, imaginary, cosines, sines)
        usual = max(real.mean(), _SMALLEST)
        begin = 0 if first == 0 else quarter
        for j in range(begin, size):
            saliencies[first + j] = real[j] / usual
        if first == n - size:
            return saliencies
        first = min(first + size // 2, n - size)


@numba.njit(cache=True, nogil=True)
def detrended(values: FloatArray, weights: FloatArray, window: int) -> FloatArray:
    """Weighted values without the mean of the odd number of values around each, a line at both ends: shape (n,)."""
    n, half = len(values), window // 2
    sums, counts = np.zeros(n + 1), np.zeros(n + 1)
    for i in range(n):
        sums[i + 1] = sums[i] + values[i] * weights[i]
        counts[i + 1] = counts[i] + weights[i]
    means, last = np.full(n, sums[n] / max(counts[n], 1e-9)), n - window
    if last > 0:
        for i in range(last + 1):
            means[half + i] = (sums[i + window] - sums[i]) / max(counts[i + window] - counts[i], 1e-9)
        step = min(window, last)
        left = (means[half + step] - means[half]) / step
        right = (means[half + last] - means[half + last - step]) / step
        for i in range(half):
            means[i] = means[half] - left * (half - i)
        for i in range(half + last + 1, n):
            means[i] = means[half + last] + right * (i - half - last)
    for i in range(n):
        means[i] = (values[i] - means[i]) * weights[i]
    return means


@numba.njit(cache=True, nogil=True)
def harmonics_of(
    residuals: FloatArray, weights: FloatArray, period: float, edges: Integers, harmonics: int
) -> NDArray[np.complex128]:
    """The Fourier coefficients of the first multiples of a frequency in each stretch: shape (harmonics, stretches).

    residuals, weights: shape (n,). edges: of the stretches, rising indices.
    """
    angle = -2.0 * math.pi / period
    step = complex(math.cos(angle), math.sin(angle))
    sums = np.zeros((harmonics, len(edges) - 1), np.complex128)
    for stretch in range(len(edges) - 1):
        total, turn = 0.0, step
        for i in range(edges[stretch], edges[stretch + 1]):
            if i % _TURNS == 0 or i == edges[stretch]:  # so that the rounding of many turns does not add up
                turn = complex(math.cos(angle * i), math.sin(angle * i))
            total += weights[i]
            product = complex(residuals[i], 0.0)
            for harmonic in range(harmonics):
                product *= turn
                sums[harmonic, stretch] += product
            turn *= step
        for harmonic in range(harmonics):
            sums[harmonic, stretch] /= max(total, 1e-9)
    return sums


@numba.njit(cache=True, nogil=True)
def log_p_value(coefficients: NDArray[np.complex128]) -> float:
    """How likely independent stretches of noise, of whatever spectrum, agree as well on their harmonics.

    coefficients: shape (harmonics, stretches).
    """
    harmonics, stretches = coefficients.shape
    if stretches == 1:
        return 0.0
    evidence = 0.0
    for row in coefficients:
        mean = row.sum() / stretches
        power, spread = mean.real**2 + mean.imag**2, 0.0
        for coefficient in row:
            off = coefficient - mean
            spread += off.real**2 + off.imag**2
        evidence += (stretches - 1) * math.log1p(stretches * power / max(spread, 1e-12 * power + 1e-300))
    total, logarithm = 0.0, math.log(max(evidence, 1e-300))
    highest = -np.inf
    for k in range(harmonics):
        highest = max(highest, k * logarithm - math.lgamma(k + 1.0))
    for k in range(harmonics):
        total += math.exp(k * logarithm - math.lgamma(k + 1.0) - highest)
    return min(highest + math.log(total) - evidence, 0.0)


@numba.njit(cache=True, nogil=True)
def explained_share(residuals: FloatArray, weights: FloatArray, period: float) -> float:
    """The share of the variance that the mean profile explains, adjusted for the number of its parts."""
    parts = max(round(period), 2)
    sums, counts = np.zeros(parts), np.zeros(parts)
    total, n = 0.0, 0.0
    for i in range(len(residuals)):
        part = int(i / period % 1.0 * parts + _ROUNDING) % parts
        sums[part] += residuals[i]
        counts[part] += weights[i]
        total += residuals[i] * residuals[i]
        n += weights[i]
    explained = 0.0
    for part in range(parts):
        explained += sums[part] * sums[part] / max(counts[part], 1e-9)
    return max(1.0 - (1.0 - explained / total) * (n - 1.0) / max(n - parts, 1.0), 0.0)
