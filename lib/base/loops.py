"""Loops over a row's or a map's pixels, compiled: one pass each, and threads run side by side.

numpy's and torch's forms of the same make an array a step, which costs several times as much.
"""

from __future__ import annotations

from collections.abc import Callable

import numba
import numpy as np

_DIGITS = 2048  # 11 bits: three passes for 32
STEPS = 1e5  # of a map's range, where maps are settled


def _compiled(loop: Callable) -> Callable:
    """Compiled at the first call, and kept for later processes where a folder can be written."""
    try:
        return numba.njit(loop, nogil=True, cache=True, error_model="numpy")
    except RuntimeError:  # neither the package's folder nor a cache of the user's
        return numba.njit(loop, nogil=True, error_model="numpy")


@_compiled
def order_of_bits(bits):
    """The places of float32 numbers, given as uint32 bits, in order; equal ones as they come.

    A radix sort: with its sign handled, a float32 orders as its bits do. -0 equals 0.
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
    """Ranks of numbers in order, less the mean rank, into `centred`.

    settle : numbers that agree once rounded to 1e-5 of the range are equal
    Returns the ranks' length as a vector, and how many numbers are equal to another.
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
    """Sum of `weights[i] * values[order[i]]`."""
    total = 0.0
    for i in range(order.size):
        total += weights[i] * values[order[i]]
    return total


@_compiled
def bilinear(x, before, after, between, out):
    """(height, width, channel) resized into `out`, in TensorFlow's order of float32 operations.

    before, after, between : for each row or column of `out`, as many of each: its two
                             neighbours in `x`, and how far between them it lies
    Truncated where `out` holds whole numbers.
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
    """Mean SSIM over windows of 5 x 5 pixels of two (height, width) maps, in float64.

    inside : (height, width) uint8; windows that hold a 0 of it do not count
    c1, c2 : the two small numbers that keep quotients finite
    Missing if no window counts.
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
            sample = 25 / 24  # of a window's pixels
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
