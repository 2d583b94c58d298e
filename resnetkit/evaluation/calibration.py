"""What held-out images teach about a network's probabilities: pure functions of its logits (N, classes) and labels."""

from collections.abc import Callable
from math import sqrt

from torch import Tensor

from resnetkit.data.labels import are_multilabel
from resnetkit.errors import ResnetkitError
from resnetkit.evaluation.intervals import wilson_interval
from resnetkit.evaluation.ranking import Ranking
from resnetkit.weights.calibration import EVEN, LEVELS, Calibration, MultilabelCalibration

ONE_SIDED = 0.90  # a two-sided interval whose lower end is a one-sided 95 % bound
SHARPEST, FLATTEST = 100.0, 0.01  # factors on the logits that no network of use goes beyond


def fit_calibration(logits: Tensor, labels: Tensor, data: str) -> Calibration:
    """Temperature and thresholds from images that neither trained the network nor will test it.

    `data` names them in the record. Raises ResnetkitError when there is none.
    """
    if not len(labels):
        raise ResnetkitError(f"{data}: no image to calibrate on")
    if are_multilabel(labels):
        temperature = fit_sigmoid_temperature(logits, labels)
        probabilities = MultilabelCalibration(temperature=temperature).probabilities(logits)
        thresholds = decision_thresholds(probabilities, labels)
        return MultilabelCalibration(temperature=temperature, n=len(labels), data=data, thresholds=thresholds)
    temperature = fit_temperature(logits, labels)
    probabilities = Calibration(temperature=temperature).probabilities(logits)
    return Calibration(
        temperature=temperature,
        n=len(labels),
        data=data,
        set_thresholds=set_thresholds(probabilities, labels),
        answer_thresholds=answer_thresholds(probabilities, labels),
    )


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The T that makes the cross-entropy of logits / T least (Guo et al. 2017, section 4.2).

    Where every answer is right no T is too small, and 1 is kept.
    """
    z = logits.double()
    if bool((z.argmax(1) == labels).all()):
        return 1.0
    truth = z.gather(1, labels[:, None])[:, 0]

    def derivatives(factor: float) -> tuple[float, float]:
        p = (factor * z).softmax(1)
        mean = (p * z).sum(1)
        return float((mean - truth).mean()), float(((p * z * z).sum(1) - mean * mean).mean())

    return 1 / _least(derivatives)


def fit_sigmoid_temperature(logits: Tensor, labels: Tensor) -> float:
    """The T that makes the binary cross-entropy of logits / T least, over all images and classes; 1 where every label
    decision is right."""
    z, truth = logits.double(), labels.double()
    if bool(((z > 0) == (truth > 0)).all()):
        return 1.0

    def derivatives(factor: float) -> tuple[float, float]:
        p = (factor * z).sigmoid()
        return float(((p - truth) * z).mean()), float((p * (1 - p) * z * z).mean())

    return 1 / _least(derivatives)


def _least(derivatives: Callable[[float], tuple[float, float]]) -> float:
    """Where a convex function of a factor is least, by its first two derivatives: Newton's method, halving an interval
    where a step would leave it."""
    low, high, factor = FLATTEST, SHARPEST, 1.0
    for _ in range(100):
        slope, curvature = derivatives(factor)
        low, high = (low, factor) if slope > 0 else (factor, high)
        step = factor - slope / curvature if curvature > 0 else low
        following = step if low < step < high else sqrt(low * high)
        if abs(following - factor) <= 1e-12 * factor:
            break
        factor = following
    return factor


def decision_thresholds(probabilities: Tensor, labels: Tensor) -> tuple[float, ...]:
    """Of each class the probability from which on calling images so has the best F1, (N, classes) of both.

    It lies halfway to the next lower probability, so that an image like the last one called is called too. A class
    without images keeps EVEN.
    """
    return tuple(_best_f1(scores, present) for scores, present in zip(probabilities.T, labels.T.bool()))


def _best_f1(scores: Tensor, present: Tensor) -> float:
    if not present.any():
        return EVEN
    ranking = Ranking.of(scores, present)
    f1 = 2 * ranking.hits / (ranking.hits + ranking.false_alarms + ranking.hits[-1])
    best = int(f1.argmax())
    return float(ranking.thresholds[best : best + 2].mean())


def set_thresholds(probabilities: Tensor, labels: Tensor) -> dict[int, float]:
    """Coverage in per cent -> the probability from which on a class belongs to the set.

    Split conformal prediction with least ambiguous sets (Sadinle, Lei, Wasserman 2019): of a new image from where these
    n came from, the set holds the true class with at least that chance, whatever the network. A set may be empty.
    """
    of_truth = probabilities.gather(1, labels[:, None])[:, 0].sort(descending=True).values
    n = len(labels)
    ranks = {percent: -(-(n + 1) * percent // 100) for percent in LEVELS}
    return {percent: float(of_truth[rank - 1]) for percent, rank in ranks.items() if rank <= n}


def answer_thresholds(probabilities: Tensor, labels: Tensor) -> dict[int, float]:
    """Precision in per cent -> the least probability from which on answers are right so often.

    The share of right answers among those kept must reach the level with its lower 95 % Wilson bound, so that a
    threshold on few images does not promise what luck gave. It is the least of many that could, so where sure answers
    are right hardly more often than others luck passes that bound more often than one time in twenty.
    """
    confidence, predicted = probabilities.max(1)
    confidence, order = confidence.sort(descending=True)
    right = (predicted == labels)[order].cumsum(0).tolist()
    values = confidence.tolist()
    n = len(values)
    ends = [i for i in range(n) if i == n - 1 or values[i + 1] < values[i]]
    bounds = [(wilson_interval(right[i], i + 1, ONE_SIDED)[0], values[i]) for i in reversed(ends)]
    found = {percent: next((value for low, value in bounds if 100 * low >= percent), None) for percent in LEVELS}
    return {percent: value for percent, value in found.items() if value is not None}
