"""What held-out images teach about a network's probabilities: pure functions of its logits (N, classes) and labels."""

from math import sqrt

from torch import Tensor

from resnetkit.errors import ResnetkitError
from resnetkit.evaluation.intervals import wilson_interval
from resnetkit.weights.calibration import LEVELS, Calibration

ONE_SIDED = 0.90  # a two-sided interval whose lower end is a one-sided 95 % bound
SHARPEST, FLATTEST = 100.0, 0.01  # factors on the logits that no network of use goes beyond


def fit_calibration(logits: Tensor, labels: Tensor, data: str) -> Calibration:
    """Temperature and thresholds from images that neither trained the network nor will test it.

    `data` names them in the record. Raises ResnetkitError when there is none.
    """
    if not len(labels):
        raise ResnetkitError(f"{data}: no image to calibrate on")
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

    The loss is convex in 1/T; Newton's method finds its minimum, halving an interval where a step would leave it.
    Where every answer is right no T is too small, and 1 is kept.
    """
    z = logits.double()
    if bool((z.argmax(1) == labels).all()):
        return 1.0
    truth = z.gather(1, labels[:, None])[:, 0]
    low, high, factor = FLATTEST, SHARPEST, 1.0
    for _ in range(100):
        p = (factor * z).softmax(1)
        mean = (p * z).sum(1)
        slope = float((mean - truth).mean())
        curvature = float(((p * z * z).sum(1) - mean * mean).mean())
        low, high = (low, factor) if slope > 0 else (factor, high)
        step = factor - slope / curvature if curvature > 0 else low
        following = step if low < step < high else sqrt(low * high)
        if abs(following - factor) <= 1e-12 * factor:
            break
        factor = following
    return 1 / factor


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
    threshold on few images does not promise what luck gave.
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
