"""Compiled loops over the pixels of a row or a map: one pass each, and threads run in parallel.

The same steps in numpy or torch allocate one array per step, which costs several times as much.
"""

from __future__ import annotations

from collections.abc import Callable

import numba
import numpy as np

_DIGITS = 2048  # 11 bits, so 32 bits take three passes
STEPS = 1e5  # the number of steps to which a map's range is rounded when maps are settled


def _compiled(loop: Callable) -> Callable:
    """Compile at the first call, and cache the code for later processes if a folder is writable."""
    try:
        return numba.njit(loop, nogil=True, cache=True, error_model="numpy")
    except RuntimeError:  # neither the package's folder nor the user's cache is writable
        return numba.njit(loop, nogil=True, error_model="numpy")


@_compiled
def order_of_bits(bits):
    """Return the positions of float32 numbers in ascending order; equal ones keep their order.

    bits : the numbers' bits as uint32

    This is a radix sort: once the sign is handled, float32 numbers order as their bits do.
    -0 equals 0.
    """
    count = bits.size
    digits = np.zeros((3, _DIGITS), np.int32)
    keys = np.empty(count, np.uint32)
    for i in range(count):
        key = bits[i]
        if key == np.uint32(0x80000000):
            key = np.uint32(0)
        if key & np.uint32(0x80000000):
            key = ~key
        else:
            key |= np.uint32(0x80000000)
        keys[i] = key
        digits[0, key & np.uint32(2047)] += 1
        digits[1, (key >> np.uint32(11)) & np.uint32(2047)] += 1
        digits[2, key >> np.uint32(22)] += 1
    for number in range(3):
        before = 0
        for digit in range(_DIGITS):
            here = digits[number, digit]
            digits[number, digit] = before
            before += here
    sorted_keys = np.empty(count, np.uint32)
    order, sorted_order = np.arange(count).astype(np.int32), np.empty(count, np.int32)
    for number in range(3):
        shift = np.uint32(11 * number)
        for i in range(count):
            digit = (keys[i] >> shift) & np.uint32(2047)
            place = digits[number, digit]
            digits[number, digit] = place + 1
            sorted_keys[place], sorted_order[place] = keys[i], order[i]
        keys, sorted_keys = sorted_keys, keys
        order, sorted_order = sorted_order, order
    return order


@_compiled
def average_ranks(ordered, settle, centred):
    """Write the ranks of ordered numbers, minus the mean rank, into `centred`.

    settle : whether numbers count as equal if they agree once rounded to 1e-5 of the range

    Return the length of the ranks as a vector, and how many numbers are tied.
    """
    count = ordered.size
    numbers = ordered.astype(np.float64)
    if settle:
        low, high = numbers[0], numbers[count - 1]
        span = high - low if high > low else 1.0
        for i in range(count):
            numbers[i] = np.rint((numbers[i] - low) / span * STEPS)
    squares, tied, first = 0.0, 0, 0
    while first < count:
        end = first + 1
        while end < count and numbers[end] == numbers[first]:
            end += 1
        middle = (first + end - count) / 2
        centred[first:end] = middle
        squares += middle * middle * (end - first)
        if end - first > 1:
            tied += end - first
        first = end
    return np.sqrt(squares), tied


@_compiled
def weighted_sum(weights, values, order):
    """Return the sum of `weights[i] * values[order[i]]`."""
    total = 0.0
    for i in range(order.size):
        total += weights[i] * values[order[i]]
    return total


@_compiled
def bilinear(x, before, after, between, out):
    """Resize (height, width, channel) into `out`, in TensorFlow's order of float32 operations.

    before, after, between : for each row or column of `out`: its two neighbours in `x`, and how
                             far it lies between them

    Values are truncated if `out` holds integers.
    """
    side, channels = before.size, x.shape[2]
    rows = np.empty((x.shape[0], side, channels), np.float32)
    for i in range(x.shape[0]):
        for j in range(side):
            for c in range(channels):
                left = np.float32(x[i, before[j], c])
                right = np.float32(x[i, after[j], c])
                rows[i, j, c] = left + (right - left) * between[j]
    for i in range(side):
        for j in range(side):
            for c in range(channels):
                top = rows[before[i], j, c]
                out[i, j, c] = top + (rows[after[i], j, c] - top) * between[i]


@_compiled
def mean_ssim(a, b, inside, c1, c2):
    """Return the mean SSIM of two (height, width) maps over windows of 5 x 5 pixels, in float64.

    inside : (height, width) uint8; windows that contain a 0 of it do not count
    c1, c2 : the two small numbers that keep quotients finite

    The result is NaN if no window counts.
    """
    height, width = a.shape
    first, second = np.zeros(width), np.zeros(width)  # sums of five rows, column by column
    squares, other_squares, products = np.zeros(width), np.zeros(width), np.zeros(width)
    held = np.zeros(width, np.int32)
    found = np.empty(width - 4)
    total, counted = 0.0, 0
    for row in range(height):
        for j in range(width):
            x, y = np.float64(a[row, j]), np.float64(b[row, j])
            first[j] += x
            second[j] += y
            squares[j] += x * x
            other_squares[j] += y * y
            products[j] += x * y
            held[j] += inside[row, j]
        if row < 4:
            continue
        for j in range(width - 4):
            u = (first[j] + first[j + 1] + first[j + 2] + first[j + 3] + first[j + 4]) / 25
            v = (second[j] + second[j + 1] + second[j + 2] + second[j + 3] + second[j + 4]) / 25
            uu = (squares[j] + squares[j + 1] + squares[j + 2] + squares[j + 3]
                  + squares[j + 4]) / 25  # fmt: skip
            vv = (other_squares[j] + other_squares[j + 1] + other_squares[j + 2]
                  + other_squares[j + 3] + other_squares[j + 4]) / 25  # fmt: skip
            uv = (products[j] + products[j + 1] + products[j + 2] + products[j + 3]
                  + products[j + 4]) / 25  # fmt: skip
            sample = 25 / 24  # makes the variance in a window of 25 pixels unbiased
            spread = sample * (uu - u * u + vv - v * v)
            common = sample * (uv - u * v)
            found[j] = (2 * u * v + c1) * (2 * common + c2) / ((u * u + v * v + c1) * (spread + c2))
        for j in range(width - 4):
            if held[j] + held[j + 1] + held[j + 2] + held[j + 3] + held[j + 4] == 25:
                total += found[j]
                counted += 1
        last = row - 4
        for j in range(width):
            x, y = np.float64(a[last, j]), np.float64(b[last, j])
            first[j] -= x
            second[j] -= y
            squares[j] -= x * x
            other_squares[j] -= y * y
            products[j] -= x * y
            held[j] -= inside[last, j]
    return total / counted if counted else np.nan
