"""Figures of merit against scikit-learn, SciPy and a calibration error written another way."""

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from sklearn import metrics as sk

from resnetkit.evaluation import metrics
from resnetkit.evaluation.evaluate import Answers

LOGITS = 2 * torch.randn(500, 7, generator=torch.Generator().manual_seed(0))
LABELS = torch.randint(7, (500,), generator=torch.Generator().manual_seed(1))
ANSWERS = Answers(LOGITS, LABELS)


def test_against_scikit_learn():
    got = ANSWERS.metrics()
    probabilities = LOGITS.double().softmax(1).numpy()
    assert got["top1"] == pytest.approx(sk.accuracy_score(LABELS, LOGITS.argmax(1)), abs=1e-12)
    assert got["top5"] == pytest.approx(sk.top_k_accuracy_score(LABELS, probabilities, k=5), abs=1e-12)
    assert got["loss"] == pytest.approx(sk.log_loss(LABELS, probabilities), abs=1e-12)
    counts = metrics.confusion_matrix(ANSWERS.predicted, LABELS, 7)
    assert (counts.numpy() == sk.confusion_matrix(LABELS, LOGITS.argmax(1))).all()


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (10, 10), (1, 3), (355, 359), (9173, 10000)])
def test_interval_is_scipys(hits, n):
    theirs = binomtest(hits, n).proportion_ci(0.95, method="wilson")
    assert metrics.wilson_interval(hits, n) == pytest.approx([theirs.low, theirs.high], abs=1e-12)


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


def test_top5_of_three_classes_is_everything():
    assert Answers(torch.randn(8, 3), torch.zeros(8, dtype=torch.long)).metrics()["top5"] == 1.0
