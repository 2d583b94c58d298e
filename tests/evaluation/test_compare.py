"""The paired comparison against SciPy and statsmodels, its interval by simulation, and on real models."""

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

import resnetkit as rk
from resnetkit.evaluation.compare import compare, mcnemar, paired
from resnetkit.evaluation.intervals import difference_interval
from resnetkit.weights.load import load


@pytest.mark.parametrize(("a", "b"), [(0, 0), (0, 1), (3, 9), (12, 4), (7, 7), (250, 301), (3000, 2800)])
def test_mcnemar_is_scipys_binomial_test(a, b):
    theirs = binomtest(a, a + b, 0.5).pvalue if a + b else 1.0
    assert mcnemar(a, b) == pytest.approx(theirs, rel=1e-9)


def test_mcnemar_is_statsmodels():
    tables = pytest.importorskip("statsmodels.stats.contingency_tables")
    assert mcnemar(5, 17) == pytest.approx(tables.mcnemar([[80, 5], [17, 20]], exact=True).pvalue, rel=1e-9)


def test_interval_of_a_textbook():
    """Agresti, Categorical Data Analysis, section 10.1: of 1600 people asked twice, 150 and 86 changed their minds."""
    assert difference_interval(150, 86, 1600) == pytest.approx([-0.059, -0.021], abs=5e-4)


@pytest.mark.parametrize("cells", [(0.02, 0.02), (0.03, 0.06), (0.10, 0.05)])
def test_interval_covers_95_percent(cells):
    n, (first, second) = 500, cells
    counts = np.random.default_rng(0).multinomial(n, [first, second, 1 - first - second], 10_000)
    ends = np.array([difference_interval(a, b, n) for a, b, _ in counts.tolist()])
    assert np.mean((ends[:, 0] <= second - first) & (second - first <= ends[:, 1])) == pytest.approx(0.95, abs=0.01)


def test_paired_counts():
    first = torch.tensor([True, True, True, False, False, True])
    second = torch.tensor([True, False, True, True, True, True])
    found = paired(first, second)
    assert (found["only_first_right"], found["only_second_right"], found["n"]) == (1, 2, 6)
    assert found["top1"] == [4 / 6, 5 / 6] and found["difference"] == pytest.approx(1 / 6)
    assert found["p_value"] == 1.0


def test_runs_on_the_same_images(digits_runs):
    first, second = digits_runs
    found = compare(first, second)
    figures = [rk.evaluate(run) for run in (first, second)]
    assert found["top1"] == [f["top1"] for f in figures]
    assert found["split"] == "test" and found["n"] == 359
    assert found["difference_interval"][0] <= found["difference"] <= found["difference_interval"][1]
    assert compare(second, first)["difference"] == -found["difference"]
    same = compare(first, first)
    assert same["difference"] == 0 and same["p_value"] == 1


def test_each_of_the_two_is_shown_its_own_views(digits_runs):
    plain, mirrored = (load(digits_runs[0]) for _ in range(2))
    mirrored.provenance["recipe"]["flip"] = True
    figures = [rk.evaluate(model, "digits", tta=True) for model in (plain, mirrored)]
    assert compare(plain, mirrored, "digits", tta=True)["top1"] == [f["top1"] for f in figures]
    assert figures[0]["top1"] != figures[1]["top1"]


def test_other_images_are_refused(digits_runs, tmp_path):
    table = (digits_runs[1] / "split.csv").read_text().splitlines()
    for name in ("model.safetensors", "command.json"):
        (tmp_path / name).write_bytes((digits_runs[1] / name).read_bytes())
    tests = [line for line in table if ",test," in line]
    (tmp_path / "split.csv").write_text("\n".join(line for line in table if line != tests[0]) + "\n")
    with pytest.raises(rk.ResnetkitError, match="tested on different images; name the images"):
        compare(digits_runs[0], tmp_path)
    assert compare(digits_runs[0], tmp_path, "digits")["n"] == 359
