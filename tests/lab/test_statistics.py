"""Means, intervals and exponents against tables and closed forms."""

import math

import pytest

from resnetkit.lab.statistics import Mean, both, geometric_mean, lies, mean, power_law


def test_the_interval_is_students():
    found = mean([1.0, 2.0, 3.0])
    assert found.value == 2
    assert found.high - 2 == pytest.approx(4.303 / math.sqrt(3), rel=1e-3)  # t of 2 degrees: 4.303, in any table
    assert 2 - found.low == pytest.approx(found.high - 2)


def test_one_value_has_no_interval():
    assert mean([5.0]) == (5.0, None, None)


def test_sizes_are_averaged_by_factors():
    found = geometric_mean([1.0, 100.0])
    assert found.value == pytest.approx(10)
    assert found.low * found.high == pytest.approx(100)
    assert geometric_mean([0.0, 0.0]) == (0, 0, 0)
    assert geometric_mean([0.0, 2.0]).low == 0  # a size is never below 0
    assert geometric_mean([math.inf, math.inf]) == (math.inf, math.inf, math.inf)
    assert geometric_mean([0.0, math.inf]) == geometric_mean([math.inf]) == (math.inf, None, None)
    assert math.isnan(geometric_mean([math.inf, math.nan]).value) and math.isnan(geometric_mean([math.nan, 1]).value)


def test_an_exponent_is_found_and_a_doubtful_one_is_called_so():
    exact = power_law([20, 56, 110], [3 * depth**0.5 for depth in (20, 56, 110)])
    assert exact.exponent == pytest.approx(0.5)
    assert exact.factor == pytest.approx(3)
    assert exact.high - exact.low < 1e-6
    rough = power_law([20, 56, 110], [1, 5, 3])
    assert rough.high - rough.low > 1
    assert power_law([1, 10], [1, 100]).low is None


def test_a_verdict_is_of_the_whole_interval():
    assert [lies(Mean(1.0, *ends), 0.9, 1.1) for ends in ((0.95, 1.05), (0.8, 1.05), (1.2, 1.3), (0.1, 0.8))] == [
        True,
        None,
        False,
        False,
    ]
    assert lies(Mean(1.0), 0.9, 1.1) is None and lies(Mean(0.0, 0.0, 0.0), low=0.0) is True
    assert (both(True, True), both(True, None), both(None, False)) == (True, None, False)
