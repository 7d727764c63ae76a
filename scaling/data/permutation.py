"""A permutation of 0..n-1 that is computed, not stored.

The order of batches must be a pure function of (seed, step) for any number of windows: a run that resumes, forks or
leaves its stack has no sampler to restore, and 25 million windows need no array. The same function splits the
documents, so that neither order depends on the random generator of some library's version.

A number below a*b is a pair (left, right) with left < a, right < b. Adding any function of one half to the other,
modulo its range, is a bijection; a few such steps in turn (a Feistel network) mix well. With a and b next to the square
root of n, a*b exceeds n by little, and the rare result that is not below n goes through again until it is: that follows
the cycle of its start, so the whole stays a bijection on range(n) (Black and Rogaway 2002, section 5).
"""

import math

import numpy as np

_ROUNDS = 6


def permute(index: np.ndarray, n: int, *key: int | np.ndarray) -> np.ndarray:
    """Where a keyed pseudo-random permutation of range(n) sends `index`.

    Args:
        index: whole numbers in [0, n), of any shape.
        n: size of the permuted range.
        key: whole numbers that choose the permutation, each of a shape that broadcasts to that of `index`.

    Returns:
        int64, of the shape of `index`.
    """
    a = math.isqrt(n - 1) + 1
    ranges = np.uint64(a), np.uint64(-(-n // a))
    keys = [np.broadcast_to(mixed(*key, r), np.shape(index)) for r in range(_ROUNDS)]

    def once(x: np.ndarray, chosen: np.ndarray | slice) -> np.ndarray:
        halves = list(np.divmod(x, ranges[1]))
        for r, k in enumerate(keys):
            one, other = r % 2, 1 - r % 2
            halves[one] = (halves[one] + _mix(halves[other] + k[chosen]) % ranges[one]) % ranges[one]
        return halves[0] * ranges[1] + halves[1]

    out = once(np.asarray(index, dtype=np.uint64), slice(None))
    while (outside := out >= np.uint64(n)).any():
        out[outside] = once(out[outside], outside)
    return out.astype(np.int64)


def mixed(*key: int | np.ndarray) -> np.ndarray:
    """64 pseudo-random bits (uint64, of the shape to which the keys broadcast) for a tuple of whole numbers."""
    state = np.zeros(1, dtype=np.uint64)
    for k in key:
        state = _mix(state + np.asarray(k).astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15))
    return state


def _mix(x: np.ndarray) -> np.ndarray:
    """The finalizer of splitmix64 (Steele, Lea, Flood 2014), a bijection on 64 bits; multiplication wraps."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
