"""Figures where an image has none, one or several classes, against scikit-learn and SciPy."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from resnetkit.errors import ResnetkitError
from resnetkit.evaluation import metrics, multilabel
from resnetkit.evaluation.answers import Answers, MultilabelAnswers, judge
from resnetkit.evaluation.calibration import decision_thresholds, fit_calibration
from resnetkit.evaluation.intervals import wilson_interval
from resnetkit.evaluation.slices import Look, slices
from resnetkit.tasks import multilabel as task
from resnetkit.tasks.task import task_of
from resnetkit.weights.calibration import Calibration, MultilabelCalibration

NAMES = list("abcde")


def drawn(n, seed, sharpness=1.0):
    """Logits `sharpness` times too large, and labels drawn from the probabilities that they should have been."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, 5, generator=generator) - 1
    labels = torch.rand(n, 5, generator=generator) < logits.sigmoid()
    return sharpness * logits, labels.to(torch.uint8)


LOGITS, LABELS = drawn(400, seed=0)
THRESHOLDS = (0.2, 0.4, 0.5, 0.6, 0.8)
ANSWERS = MultilabelAnswers(LOGITS, LABELS, MultilabelCalibration(temperature=1.5, n=1, thresholds=THRESHOLDS))


def exactly(value):
    return pytest.approx(value, abs=1e-12, rel=0, nan_ok=True)


def test_figures_against_scikit_learn():
    got = judge(ANSWERS, NAMES)
    probabilities = 1 / (1 + np.exp(-LOGITS.double().numpy() / 1.5))
    predicted, truth = probabilities >= np.array(THRESHOLDS), LABELS.numpy()
    assert got["map"] == exactly(sk.average_precision_score(truth, probabilities, average="macro"))
    assert got["micro_f1"] == exactly(sk.f1_score(truth, predicted, average="micro"))
    assert got["macro_f1"] == exactly(sk.f1_score(truth, predicted, average="macro"))
    assert got["exact_match"] == exactly(sk.accuracy_score(truth, predicted))
    assert got["exact_match_interval"] == wilson_interval(round(400 * got["exact_match"]), 400)
    losses = [sk.log_loss(truth[:, i], probabilities[:, i]) for i in range(5)]
    assert got["loss"] == exactly(sum(losses)) and got["n"] == 400
    precision, recall, f1, support = sk.precision_recall_fscore_support(truth, predicted)
    for i, row in enumerate(got["per_class"]):
        figures = [row[name] for name in ("precision", "recall", "f1", "n")]
        assert figures == exactly([precision[i], recall[i], f1[i], support[i]])
        assert row["average_precision"] == exactly(sk.average_precision_score(truth[:, i], probabilities[:, i]))
        assert row["roc_auc"] == exactly(sk.roc_auc_score(truth[:, i], probabilities[:, i]))
        assert row["threshold"] == THRESHOLDS[i] and row["class"] == NAMES[i]
    names = [name.removesuffix("_interval") for name in got if name.endswith("_interval")]
    assert set(names) | {"recall"} == set(got["intervals"])
    for name in names:
        assert got[f"{name}_interval"][0] <= got[name] <= got[f"{name}_interval"][1]
    assert set(ANSWERS.SUMMARY) <= set(got)


def test_classes_that_are_absent_are_undefined_and_left_out():
    """Class a never occurs, b is never answered, c neither: scikit-learn's zero_division=nan."""
    logits, labels = LOGITS.clone(), LABELS.clone()
    labels[:, 0] = labels[:, 2] = 0
    logits[:, 1:3] = -50
    got = judge(MultilabelAnswers(logits, labels), NAMES)
    predicted = logits.sigmoid() >= 0.5
    theirs = sk.precision_recall_fscore_support(labels, predicted, zero_division=np.nan)
    for i, row in enumerate(got["per_class"]):
        figures = [float("nan") if row[name] is None else row[name] for name in ("precision", "recall", "f1", "n")]
        assert figures == [exactly(values[i]) for values in theirs]
    assert got["macro_f1"] == exactly(sk.f1_score(labels, predicted, average="macro", zero_division=np.nan))
    present = sk.average_precision_score(labels[:, [1, 3, 4]], logits.double().sigmoid()[:, [1, 3, 4]])
    assert got["map"] == exactly(present)
    assert got["per_class"][2]["f1"] is None and got["per_class"][0]["roc_auc"] is None
    nothing = judge(MultilabelAnswers(logits - 50, torch.zeros_like(labels)), NAMES)
    assert nothing["map"] is None and nothing["map_interval"] is None and nothing["micro_f1"] is None
    assert nothing["exact_match"] == 1.0


def test_what_a_calibration_changes_is_listed():
    """Of several labels and of one, with other temperatures and thresholds."""
    one = LABELS.float().argmax(1)
    for answers, calibration in (
        (ANSWERS, MultilabelCalibration(temperature=0.5, n=1, thresholds=(0.1, 0.9, 0.2, 0.8, 0.3))),
        (Answers(LOGITS, one), Calibration(temperature=2.0, n=1)),
    ):
        before, after = answers.metrics(), replace(answers, calibration=calibration).metrics()
        changed = {name for name in answers.SUMMARY if name in before and before[name] != after[name]}
        assert changed == set(answers.CALIBRATED)


def test_an_interval_where_some_resamples_have_no_label_at_all():
    labels = torch.zeros_like(LABELS)
    labels[5, 1] = labels[6, 2] = 1
    found = judge(MultilabelAnswers(LOGITS, labels), NAMES)
    low, high = found["map_interval"]
    assert 0 < low <= found["map"] <= high < 1


def test_calibration_error_is_over_all_label_decisions():
    confidence, truth = ANSWERS.decisions
    found = metrics.reliability(confidence, truth, bins=10)
    share, mean = calibration_curve(LABELS.flatten(), ANSWERS.probabilities.flatten(), n_bins=10)
    assert found.accuracy[found.n > 0].tolist() == exactly(share.tolist())
    assert found.confidence[found.n > 0].tolist() == exactly(mean.tolist())
    gap = float((found.n * (found.accuracy - found.confidence).abs()).nansum() / found.n.sum())
    assert metrics.calibration_gap(confidence, truth, bins=10) == exactly(gap) and found.n.sum() == 2000


@pytest.mark.parametrize("levels", [4, 10**6], ids=["many ties", "no ties"])
def test_resampled_precision_is_that_of_the_images_drawn(levels):
    probabilities = (LOGITS.double().sigmoid() * levels).round() / levels
    got = multilabel.resampled_map(probabilities, LABELS, draws=5, seed=3)
    random = np.random.default_rng(3)
    for value in got.tolist():
        images = random.integers(400, size=400)
        assert value == exactly(sk.average_precision_score(LABELS[images], probabilities[images], average="macro"))
    assert torch.equal(got, multilabel.resampled_map(probabilities, LABELS, draws=5, seed=3))


def test_no_mistake_is_not_certainty():
    labels = torch.eye(5).repeat(20, 1)
    figures = judge(MultilabelAnswers(9 * (2 * labels - 1), labels), NAMES)
    assert figures["map"] == 1 and 0.9 < figures["map_interval"][0] < 1
    labels = torch.eye(2).repeat_interleave(6, 0)
    figures = judge(MultilabelAnswers((labels - 0.5) * torch.arange(1, 13)[:, None], labels), NAMES[:2])
    assert figures["map"] == pytest.approx(1, abs=1e-12) and figures["map_interval"] == wilson_interval(12, 12)


@pytest.mark.parametrize("sharpness", [0.3, 1.0, 4.0])
def test_temperature_is_where_scipy_finds_it(sharpness):
    logits, labels = drawn(2000, 1, sharpness)

    def loss(log_temperature):
        return float(F.binary_cross_entropy_with_logits(logits.double() / np.exp(log_temperature), labels.double()))

    theirs = minimize_scalar(loss, bracket=(-1, 1), options={"xtol": 1e-9}).x
    found = fit_calibration(logits, labels, "made up")
    assert found.temperature == pytest.approx(np.exp(theirs), rel=1e-6)
    assert found.temperature == pytest.approx(sharpness, rel=0.1)
    assert MultilabelCalibration.from_dict(found.to_dict()) == found
    sure = 9 * (2 * labels.float() - 1)
    assert fit_calibration(sure, labels, "made up").temperature == 1.0


def test_no_threshold_has_a_better_f1_than_those_that_are_chosen():
    probabilities = LOGITS.double().sigmoid()
    labels = LABELS.clone()
    labels[:, 4] = 0
    thresholds = decision_thresholds(probabilities, labels)
    assert thresholds[4] == 0.5  # nothing to choose on
    for i in range(4):
        precision, recall, _ = sk.precision_recall_curve(labels[:, i], probabilities[:, i])
        best = np.nanmax(2 * precision * recall / (precision + recall))
        assert sk.f1_score(labels[:, i], probabilities[:, i] >= thresholds[i]) == exactly(best)
        assert not (probabilities[:, i] == thresholds[i]).any()  # between two images


def test_loss_is_pytorchs_with_smoothed_targets_and_weighted_positives():
    weights, targets = torch.rand(5), LABELS.float()
    theirs = F.binary_cross_entropy_with_logits(LOGITS, targets * 0.9 + 0.05, pos_weight=weights)
    torch.testing.assert_close(task.loss(LOGITS, LABELS, 0.1, weights), 5 * theirs)
    assert task.right(LOGITS, LABELS) / 400 == pytest.approx(1 - sk.hamming_loss(LABELS, LOGITS > 0), abs=1e-6)
    mixed = 0.7 * targets + 0.3 * targets.flip(0)
    both = float(0.7 * task.right(LOGITS, LABELS) + 0.3 * task.right(LOGITS, LABELS.flip(0)))
    assert task.right(LOGITS, mixed) == pytest.approx(both, rel=1e-5)
    assert task_of(LABELS) is task and task_of(LABELS[:, 0]) is not task


def test_an_answer_lists_what_reaches_its_threshold():
    probabilities = torch.tensor([0.9, 0.3, 0.6], dtype=torch.float64)
    answer = task.describe(probabilities, ["a", "b", "c"], 2, thresholds=(0.5, 0.2, 0.7))
    assert answer == {"label": "a", "probability": 0.9, "top": [["a", 0.9], ["c", 0.6]], "labels": ["a", "b"]}
    none = task.describe(probabilities, ["a", "b", "c"], thresholds=(0.95, 0.95, 0.95))
    assert none["label"] is None and none["labels"] == [] and none["probability"] == 0.9
    other = task.describe(probabilities, ["a", "b", "c"], thresholds=(0.95, 0.2, 0.7))
    assert (other["label"], other["probability"]) == ("b", 0.3)  # the likeliest does not pass, another does


def test_levels_of_one_label_an_image_are_refused():
    for levels in ((0.9, None), (None, 0.9)):
        with pytest.raises(ResnetkitError, match="coverage and certainty are for one label an image"):
            ANSWERS.calibration.thresholds_for(5, *levels)


def test_slices_are_of_exact_matches():
    seen = [Look(32, 0.5)] * 200 + [Look(64, 0.5)] * 200
    (rows,) = slices(ANSWERS.right, LABELS, ["x/1"] * 400, seen, ANSWERS.HEADLINE).values()
    assert rows[0]["exact_match"] == exactly(float(ANSWERS.right[:200].double().mean()))
