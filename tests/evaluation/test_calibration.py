"""Temperature against two other implementations; coverage and precision by simulation and on CIFAR-10."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator

import resnetkit as rk
from resnetkit.data.datasets import open_dataset
from resnetkit.data.ingest import ingest
from resnetkit.data.loaders import evaluation_batches
from resnetkit.evaluation.answers import Answers, answer
from resnetkit.evaluation.calibration import answer_thresholds, fit_calibration, fit_temperature, set_thresholds
from resnetkit.evaluation.metrics import expected_calibration_error
from resnetkit.weights.calibration import Calibration
from tests.architecture.test_published_checkpoints import AKAMASTER, load_in_order


def drawn(n, seed, *, sharpness=2.5, classes=6):
    """Logits `sharpness` times too large, and labels drawn from the probabilities that they should have been."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(n, classes, generator=generator)
    labels = logits.double().softmax(1).multinomial(1, generator=generator)[:, 0]
    return sharpness * logits, labels


@pytest.mark.parametrize("sharpness", [0.2, 1.0, 2.5, 20.0])
def test_temperature_is_where_scipy_finds_it(sharpness):
    logits, labels = drawn(2000, seed=0, sharpness=sharpness)

    def loss(log_temperature):
        return float(F.cross_entropy(logits.double() / np.exp(log_temperature), labels))

    theirs = minimize_scalar(loss, bracket=(-1, 1), options={"xtol": 1e-9}).x
    assert fit_temperature(logits, labels) == pytest.approx(np.exp(theirs), rel=1e-6)
    assert fit_temperature(logits, labels) == pytest.approx(sharpness, rel=0.1)


class LogitsThemselves(ClassifierMixin, BaseEstimator):
    def fit(self, x, y):
        self.classes_ = np.unique(y)
        return self

    def decision_function(self, x):
        return x

    def predict(self, x):
        return self.classes_[x.argmax(1)]


def test_temperature_is_scikit_learns():
    logits, labels = drawn(2000, seed=1)
    x = logits.double().numpy()
    theirs = CalibratedClassifierCV(FrozenEstimator(LogitsThemselves().fit(x, labels)), method="temperature")
    expected = theirs.fit(x, labels).predict_proba(x)
    got = Calibration(temperature=fit_temperature(logits, labels)).probabilities(logits)
    assert got.numpy() == pytest.approx(expected, abs=1e-5)


def test_temperature_where_none_is_best():
    logits = 3 * torch.eye(4)
    assert fit_temperature(logits, torch.arange(4)) == 1.0  # all right: the sharper the better
    assert fit_temperature(logits, (torch.arange(4) + 1) % 4) == pytest.approx(100)  # all wrong: the flatter
    assert fit_temperature(torch.zeros(4, 3), torch.tensor([1, 2, 0, 1])) > 0  # says nothing at all


def test_no_image_is_refused():
    with pytest.raises(rk.ResnetkitError, match="no image to calibrate on"):
        fit_calibration(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long), "holdout")


def test_sets_cover_as_often_as_they_say():
    """Over many small held-out parts the mean coverage of split conformal sets is the level, to within 1/(n+1)."""
    logits, labels = drawn(200 * 300, seed=2)
    probabilities = Calibration().probabilities(logits)
    covered = {80: [], 90: [], 95: []}
    for k in range(200):
        held = slice(300 * k, 300 * k + 100)
        new = slice(300 * k + 100, 300 * (k + 1))
        thresholds = set_thresholds(probabilities[held], labels[held])
        for percent, found in covered.items():
            truth = probabilities[new].gather(1, labels[new][:, None])
            found.append(float((truth >= thresholds[percent]).double().mean()))
    for percent, found in covered.items():
        assert percent / 100 - 0.01 < np.mean(found) < percent / 100 + 0.02


def test_levels_that_the_images_cannot_vouch_for_are_absent():
    logits, labels = drawn(30, seed=3)
    found = fit_calibration(logits, labels, "30 images")
    assert max(found.set_thresholds) == 96  # 30 of 31
    with pytest.raises(rk.ResnetkitError, match=r"coverage 0.97 is not among the levels that 30 held-out images gave"):
        found.set_threshold(0.97)
    assert found.set_threshold(0.955) == found.set_thresholds[96]
    with pytest.raises(rk.ResnetkitError, match="needs a calibrated model"):
        Calibration().answer_threshold(0.9)


def test_answers_kept_are_right_as_often_as_they_say():
    """The bound may fail in one of twenty draws of the held-out images, by design."""
    kept, short = [], 0
    logits, labels = drawn(20_000, seed=4)
    new = Calibration().probabilities(logits).max(1)
    for seed in range(100):
        held, truth = drawn(500, seed=100 + seed)
        threshold = answer_thresholds(Calibration().probabilities(held), truth)[80]
        keep = new.values >= threshold
        precision = float((new.indices == labels)[keep].double().mean())
        kept.append(float(keep.double().mean()))
        short += precision < 0.80
    assert short <= 12
    assert np.mean(kept) > 0.2


def test_it_survives_the_model_file(tmp_path):
    from tests.weights.test_model_file import small_model

    model = small_model()
    model.calibration = fit_calibration(*drawn(200, seed=5, classes=3), "holdout")
    model.save(tmp_path / "m.safetensors")
    assert rk.load(tmp_path / "m.safetensors").calibration == model.calibration


@pytest.mark.parametrize(
    "record", [{"temperature": 0}, {"temperature": float("nan")}, {"hotness": 3}, {"set_thresholds": {"x": 1}}]
)
def test_a_broken_record_is_refused(record):
    with pytest.raises((rk.ResnetkitError, TypeError, ValueError)):
        Calibration.from_dict(record)


@pytest.fixture(scope="module")
def resnet20_on_cifar10(shared):
    """Logits of a published ResNet-20 for the 10,000 test images, 91.73 % of them right, in two halves."""
    dataset = open_dataset(shared / "data/cifar10")
    dataset.parts = {"test": dataset.parts["test"]}
    part = ingest(dataset, 0.0).dataset.parts["test"]
    stored = torch.load(shared / "checkpoints/resnet20-12fca82f.th", map_location="cpu", weights_only=True)
    net = rk.build("resnet20_cifar").eval()
    load_in_order(net, [v for v in stored["state_dict"].values() if v.is_floating_point()])
    found = answer(net, evaluation_batches(part, AKAMASTER, 250, 0), AKAMASTER)
    order = torch.randperm(len(part), generator=torch.Generator().manual_seed(0))
    return [Answers(found.logits[half], found.labels[half]) for half in order.split(5000)]


@pytest.mark.slow
def test_resnet20_on_cifar10(resnet20_on_cifar10):
    """Each half judged with what the other taught, so that the figures rest on 10,000 images: on 5,000 chance alone
    gives a perfectly calibrated network an error of 0.6 %, and moves the coverage by 0.8 points."""
    logits, labels = (torch.cat([getattr(half, name) for half in resnet20_on_cifar10]) for name in ("logits", "labels"))
    probabilities, covered, kept = [], {80: 0, 90: 0, 95: 0, 99: 0}, {93: [], 95: [], 97: [], 99: []}
    for test, held in (resnet20_on_cifar10, resnet20_on_cifar10[::-1]):
        calibration = fit_calibration(held.logits, held.labels, "half of CIFAR-10's test part")
        found = Answers(test.logits, test.labels, calibration)
        print(
            f"\ntemperature {calibration.temperature:.4f}, ece {Answers(test.logits, test.labels).metrics()['ece']:.4f}"
        )
        print(f"-> {found.metrics()['ece']:.4f} on this half, loss {found.metrics()['loss']:.4f}")
        probabilities.append(found.probabilities)
        confidence, predicted = found.probabilities.max(1)
        for percent in covered:
            sets = found.probabilities >= calibration.set_thresholds[percent]
            covered[percent] += int(sets.gather(1, test.labels[:, None]).sum())
        for percent, right in kept.items():
            right += (predicted == test.labels)[confidence >= calibration.answer_thresholds[percent]].tolist()
    both = torch.cat(probabilities)
    ece = expected_calibration_error(both, labels)
    print(f"ece {ece:.4f}; covered {covered}; kept { {p: (len(r), np.mean(r).round(4)) for p, r in kept.items()} }")
    assert torch.equal(both.argmax(1), logits.argmax(1))
    assert Answers(logits, labels).metrics()["ece"] > 0.03 and ece <= 0.01
    for percent, count in covered.items():
        assert count / 10_000 == pytest.approx(percent / 100, abs=0.01)
    for percent, right in kept.items():
        assert np.mean(right) >= percent / 100
