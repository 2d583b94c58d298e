"""Intervals against SciPy, and their coverage by simulation."""

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, bootstrap
from sklearn.metrics import balanced_accuracy_score, f1_score

from resnetkit.evaluation.intervals import (
    calibration_interval,
    percentile_interval,
    resampled_counts,
    wilson_interval,
)
from resnetkit.evaluation.metrics import ClassCounts, confidence_bin


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (10, 10), (1, 3), (355, 359), (9173, 10000)])
def test_wilson_is_scipys(hits, n):
    theirs = binomtest(hits, n).proportion_ci(0.95, method="wilson")
    assert wilson_interval(hits, n) == pytest.approx([theirs.low, theirs.high], abs=1e-12)


@pytest.mark.parametrize("n", [20, 100, 359, 10_000])
def test_wilson_covers_95_percent(n):
    """Over shares between a half and 1: at one share its coverage hops by what a whole number of hits allows."""
    random = np.random.default_rng(0)
    shares = random.uniform(0.5, 1, 10_000)
    intervals = np.array([wilson_interval(hits, n) for hits in range(n + 1)])
    low, high = intervals[random.binomial(n, shares)].T
    assert np.mean((low <= shares) & (shares <= high)) == pytest.approx(0.95, abs=0.01)


def draw(random, n):
    """Labels and answers of three classes, of different sizes and difficulty."""
    chances = np.array([[0.80, 0.15, 0.05], [0.10, 0.85, 0.05], [0.20, 0.20, 0.60]])
    shares = np.array([0.5, 0.3, 0.2])
    return chances, shares, random.multinomial(n, (chances * shares[:, None]).ravel()).reshape(3, 3)


def test_resampled_figures_are_those_of_resampled_images():
    counts = torch.from_numpy(draw(np.random.default_rng(0), 300)[2])
    cells = np.repeat(np.arange(9), counts.flatten().numpy())
    images = (cells // 3, cells % 3)
    resampled = resampled_counts(counts, draws=4000)
    for values, figure in (
        (resampled.balanced_accuracy, balanced_accuracy_score),
        (resampled.macro_f1, lambda y, p: f1_score(y, p, average="macro")),
    ):
        options = {"paired": True, "vectorized": False, "n_resamples": 1000, "method": "percentile", "rng": 0}
        ends = bootstrap(images, figure, **options).confidence_interval
        assert percentile_interval(values) == pytest.approx([ends.low, ends.high], abs=0.01)


@pytest.mark.parametrize(
    ("name", "draws", "within"),
    [("balanced_accuracy", 1000, 0.02), ("macro_f1", 1000, 0.02)]
    + [pytest.param(name, 10_000, 0.01, marks=pytest.mark.slow) for name in ("balanced_accuracy", "macro_f1")],
)
def test_bootstrap_covers_95_percent(name, draws, within):
    random = np.random.default_rng(1)
    chances, shares, _ = draw(random, 1)
    truth = float(getattr(ClassCounts.of(torch.from_numpy(chances * shares[:, None])), name))
    covered = 0
    for _ in range(draws):
        counts = torch.from_numpy(draw(random, 400)[2])
        low, high = percentile_interval(getattr(resampled_counts(counts, draws=400), name))
        covered += low <= truth <= high
    assert covered / draws == pytest.approx(0.95, abs=within)


@pytest.mark.parametrize("n", [359, 5000])
@pytest.mark.parametrize("power", [1.0, 1.05, 1.2, 2.0])
def test_calibration_interval_covers_95_percent_at_least(n, power):
    """Answers are right with chance confidence ** power: calibrated at 1, too sure above it."""
    random = np.random.default_rng(2)
    many = random.uniform(0.4, 1, 1_000_000)
    bins = confidence_bin(torch.from_numpy(many)).numpy()
    truth = np.abs(np.bincount(bins, many - many**power)).sum() / len(many)
    covered = 0
    for _ in range(200):
        confidence = random.uniform(0.4, 1, n)
        right = random.random(n) < confidence**power
        low, high = calibration_interval(torch.from_numpy(confidence), torch.from_numpy(right), draws=1000)
        covered += low <= truth <= high
    assert covered / 200 > 0.93


@pytest.mark.parametrize("confidence", [0.001, 0.9, 0.999, 1.0])
@pytest.mark.parametrize("chance", [0.002, 0.99, 0.998])
def test_calibration_interval_covers_where_hardly_an_answer_differs(confidence, chance):
    """Of equal confidences, so that the true error is the gap of two numbers."""
    random = np.random.default_rng(3)
    sure = torch.full((100,), confidence, dtype=torch.float64)
    covered = 0
    for _ in range(200):
        low, high = calibration_interval(sure, torch.from_numpy(random.random(100) < chance), draws=500)
        covered += low <= abs(confidence - chance) <= high
    assert covered / 200 > 0.93
