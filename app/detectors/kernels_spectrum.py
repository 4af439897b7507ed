"""Compiled loops of the spectral residual: Fourier transforms of short windows, each by itself."""

import math

import numba
import numpy as np

from app.series import FloatArray

_SMALLEST = 1e-12


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
