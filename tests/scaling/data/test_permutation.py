"""The computed permutation is one, depends on its key, and mixes."""

import numpy as np
import pytest

from scaling.data.permutation import mixed, permute


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 15, 16, 17, 97, 1000, 4096, 65537])
def test_bijection(n):
    for seed in (0, 1, 12345):
        assert sorted(permute(np.arange(n), n, seed)) == list(range(n))


def test_a_part_of_the_range_gives_the_same_as_the_whole():
    whole = permute(np.arange(10007), 10007, 3, 1)
    some = np.array([10006, 0, 55, 4000])
    assert np.array_equal(permute(some, 10007, 3, 1), whole[some])


def test_keys_may_differ_by_element():
    index, key = np.arange(50), np.arange(50) % 3
    expected = np.where(key == 0, permute(index, 50, 7, 0), np.where(key == 1, permute(index, 50, 7, 1), -1))
    expected[key == 2] = permute(index, 50, 7, 2)[key == 2]
    assert np.array_equal(permute(index, 50, 7, key), expected)


def test_25_million_without_a_table():
    n = 25_000_000
    out = permute(np.arange(0, n, 997), n, 5)
    assert len(np.unique(out)) == len(out) and out.min() >= 0 and out.max() < n


def test_close_to_random():
    n = 20_000
    one, other = permute(np.arange(n), n, 1), permute(np.arange(n), n, 2)
    # Standard error of a correlation of random orders is 1 / sqrt(n) = .007.
    assert abs(np.corrcoef(np.arange(n), one)[0, 1]) < 0.035
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.035
    assert abs(np.corrcoef(one[:-1], one[1:])[0, 1]) < 0.035
    # In a random order about one pair of neighbours in n stays neighbours: a Poisson number with mean 2.
    assert (np.abs(np.diff(one)) == 1).sum() < 12
    # Tenths of the range are visited evenly by each tenth of the input: binomial, sd 13.
    counts = np.histogram2d(np.arange(n), one, bins=10)[0]
    assert np.abs(counts - n / 100).max() < 5 * 13


def test_hash_depends_on_every_part_and_its_place():
    values = {int(mixed(*key)[0]) for key in [(1,), (2,), (1, 2), (2, 1), (1, 2, 0), (0, 1, 2)]}
    assert len(values) == 6
