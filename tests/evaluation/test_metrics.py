"""Figures of merit against scikit-learn and a calibration error written another way."""

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from resnetkit.evaluation import metrics
from resnetkit.evaluation.answers import Answers, judge
from resnetkit.evaluation.ranking import Ranking
from resnetkit.weights.calibration import Calibration

LOGITS = 2 * torch.randn(500, 7, generator=torch.Generator().manual_seed(0))
LABELS = torch.randint(7, (500,), generator=torch.Generator().manual_seed(1))
ANSWERS = Answers(LOGITS, LABELS)
NAMES = list("abcdefg")


def exactly(value):
    return pytest.approx(value, abs=1e-12, rel=0, nan_ok=True)


def test_headline_against_scikit_learn():
    got = judge(ANSWERS, NAMES)
    probabilities = LOGITS.double().softmax(1).numpy()
    predicted = LOGITS.argmax(1)
    assert got["top1"] == exactly(sk.accuracy_score(LABELS, predicted))
    assert got["top5"] == exactly(sk.top_k_accuracy_score(LABELS, probabilities, k=5))
    among = sk.top_k_accuracy_score(LABELS, probabilities, k=5, normalize=False)
    assert got["top5_interval"] == exactly(list(binomtest(int(among), 500).proportion_ci(method="wilson")))
    assert got["loss"] == exactly(sk.log_loss(LABELS, probabilities))
    assert got["balanced_accuracy"] == exactly(sk.balanced_accuracy_score(LABELS, predicted))
    assert got["macro_f1"] == exactly(sk.f1_score(LABELS, predicted, average="macro"))
    assert got["brier"] == exactly(sk.brier_score_loss(LABELS, probabilities, labels=range(7), scale_by_half=False))
    assert got["average_precision"] == exactly(sk.average_precision_score(LABELS, probabilities, average="macro"))
    assert got["roc_auc"] == exactly(sk.roc_auc_score(LABELS, probabilities, multi_class="ovr", average="macro"))
    assert got["confusion_matrix"] == sk.confusion_matrix(LABELS, predicted).tolist()


def test_per_class_against_scikit_learn_with_classes_that_are_absent():
    """Class a never occurs, b is never answered, c neither."""
    logits, labels = LOGITS.clone(), LABELS.clone()
    labels[(labels == 0) | (labels == 2)] = 4
    logits[:, 1:3] = -50
    rows = judge(Answers(logits, labels), NAMES)["per_class"]
    theirs = sk.precision_recall_fscore_support(labels, logits.argmax(1), labels=range(7), zero_division=np.nan)
    for i, row in enumerate(rows):
        got = [float("nan") if row[key] is None else row[key] for key in ("precision", "recall", "f1", "n")]
        assert got == [exactly(values[i]) for values in theirs]
    assert rows[2]["recall"] is None and rows[2]["f1"] is None and rows[2]["roc_auc"] is None
    assert rows[0]["f1"] == 0 and rows[1]["precision"] is None
    counts = metrics.ClassCounts.of(metrics.confusion_matrix(logits.argmax(1), labels, 7))
    f1 = sk.f1_score(labels, logits.argmax(1), labels=range(7), average="macro", zero_division=np.nan)
    assert float(counts.macro_f1) == exactly(f1)
    present = sk.recall_score(labels, logits.argmax(1), labels=labels.unique(), average="macro")
    assert float(counts.balanced_accuracy) == exactly(present)


@pytest.mark.parametrize("levels", [3, 50, 10**6], ids=["many ties", "some ties", "no ties"])
def test_ranking_against_scikit_learn(levels):
    random = np.random.default_rng(levels)
    positive = random.random(400) < 0.2
    scores = np.round((random.random(400) + 0.3 * positive) * levels) / levels
    got = Ranking.of(torch.from_numpy(scores), torch.from_numpy(positive))
    assert got.average_precision == exactly(sk.average_precision_score(positive, scores))
    assert got.roc_auc == exactly(sk.roc_auc_score(positive, scores))
    fpr, tpr, _ = sk.roc_curve(positive, scores, drop_intermediate=False)
    assert [c.tolist() for c in got.roc_curve()] == [exactly(fpr.tolist()), exactly(tpr.tolist())]
    precision, recall, thresholds = sk.precision_recall_curve(positive, scores)
    ours = got.precision_recall_curve()
    assert ours[0].flip(0).tolist() == exactly(recall.tolist())
    assert ours[1].flip(0).tolist() == exactly(precision.tolist())
    assert got.thresholds.flip(0).tolist() == thresholds.tolist()


def test_ranking_without_positives_or_negatives_is_undefined():
    scores = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    none = Ranking.of(scores, torch.zeros(3, dtype=torch.bool))
    assert np.isnan(none.average_precision) and np.isnan(none.roc_auc)
    every = Ranking.of(scores, torch.ones(3, dtype=torch.bool))
    assert every.average_precision == 1 and np.isnan(every.roc_auc)


def test_calibration_error_written_another_way():
    probabilities = LOGITS.softmax(1).double().numpy()
    confidence, right = probabilities.max(1), probabilities.argmax(1) == LABELS.numpy()
    edges = np.linspace(0, 1, 16)
    total = 0.0
    for low, high in zip(edges[:-1], edges[1:]):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert metrics.expected_calibration_error(LOGITS.softmax(1), LABELS) == pytest.approx(total, abs=1e-9)


def test_reliability_against_scikit_learn():
    confidence, predicted = ANSWERS.probabilities.max(1)
    found = metrics.reliability(confidence, predicted == LABELS, bins=10)
    filled = found.n > 0
    accuracy, mean = calibration_curve(predicted == LABELS, confidence, n_bins=10)
    assert found.accuracy[filled].tolist() == exactly(accuracy.tolist())
    assert found.confidence[filled].tolist() == exactly(mean.tolist())
    assert found.n.sum() == len(LABELS)


def test_against_torchmetrics():
    tm = pytest.importorskip("torchmetrics.functional.classification")
    probabilities, got = ANSWERS.probabilities, judge(ANSWERS, NAMES)
    assert got["ece"] == pytest.approx(float(tm.multiclass_calibration_error(probabilities, LABELS, 7)), abs=1e-7)
    assert got["macro_f1"] == pytest.approx(float(tm.multiclass_f1_score(probabilities, LABELS, 7)), abs=1e-7)
    assert got["balanced_accuracy"] == pytest.approx(float(tm.multiclass_recall(probabilities, LABELS, 7)), abs=1e-7)


def test_top5_of_three_classes_is_everything():
    assert Answers(torch.randn(8, 3), torch.zeros(8, dtype=torch.long)).metrics()["top5"] == 1.0


def test_of_equal_answers_all_figures_take_the_same():
    """Of a network that says the same of every class, one of them is taken for its answer."""
    answers = Answers(torch.zeros(20, 10), torch.arange(10).repeat(2))
    figures = judge(answers, [str(i) for i in range(10)])
    assert figures["top1"] == figures["balanced_accuracy"] == 0.1 and figures["top5"] == 0.5
    alike = Answers(answers.logits, answers.predicted)
    assert alike.metrics()["top1"] == alike.metrics()["top5"] == 1


def test_a_temperature_changes_how_sure_answers_are_and_not_what_they_are():
    warm = Answers(LOGITS, LABELS, Calibration(temperature=3.0, n=1))
    raw, got = judge(ANSWERS, NAMES), judge(warm, NAMES)
    assert got["top1"] == raw["top1"] and got["confusion_matrix"] == raw["confusion_matrix"]
    assert got["ece"] < raw["ece"] == got["ece_uncalibrated"]
    assert got["loss"] == exactly(sk.log_loss(LABELS, (LOGITS.double() / 3).softmax(1).numpy()))
    assert raw["temperature"] == 1 and "ece_uncalibrated" not in raw
