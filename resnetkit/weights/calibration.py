"""What held-out images said of a network's answers: how sure they may be, and which to keep back."""

from dataclasses import asdict, dataclass, field
from math import ceil, isfinite
from typing import Any, ClassVar, Self

from torch import Tensor

from resnetkit.errors import ResnetkitError

LEVELS = range(50, 100)  # in per cent: the coverages and the precisions that thresholds are stored for
EVEN = 0.5  # the probability from which on an image has a label, where nothing else was fitted


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """`temperature` divides the logits. The others map a level in per cent to the least probability, at that
    temperature, with which a class belongs to the set that covers the truth so often (`set_thresholds`), or an answer
    is right so often (`answer_thresholds`); levels that `n` held-out images cannot vouch for are absent.

    Nothing fitted is temperature 1 and no level.
    """

    task: ClassVar[str] = "classification"

    temperature: float = 1.0
    n: int = 0
    data: str = ""  # which images
    set_thresholds: dict[int, float] = field(default_factory=dict)
    answer_thresholds: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (isfinite(self.temperature) and self.temperature > 0):
            raise ResnetkitError(f"calibration: temperature {self.temperature!r} must be above 0")

    def probabilities(self, logits: Tensor) -> Tensor:
        """(N, classes) in float64: float32 would call many a sure answer exactly 1."""
        return (logits.double() / self.temperature).softmax(1)

    def thresholds_for(self, classes: int, coverage: float | None, certainty: float | None) -> dict[str, Any]:
        """What the task's `describe` decides by. Raises ResnetkitError for levels that it has not."""
        return {
            "set_threshold": None if coverage is None else self.set_threshold(coverage),
            "answer_threshold": 0.0 if certainty is None else self.answer_threshold(certainty),
        }

    def set_threshold(self, coverage: float) -> float:
        """For sets that hold the truth this often; the level is rounded up to whole per cent. Raises ResnetkitError."""
        return self._threshold(self.set_thresholds, coverage, "coverage")

    def answer_threshold(self, certainty: float) -> float:
        """For answers that are right this often; the level is rounded up to whole per cent. Raises ResnetkitError."""
        return self._threshold(self.answer_thresholds, certainty, "certainty")

    def _threshold(self, thresholds: dict[int, float], level: float, what: str) -> float:
        if not self.n:
            raise ResnetkitError(
                f"{what} needs a calibrated model, and this one is not: resnet evaluate MODEL --calibrate DATA"
            )
        if not 0 < level < 1:
            raise ResnetkitError(f"{what} {level:g} is impossible; it must be a share, such as 0.9")
        percent = ceil(round(100 * level, 6))
        if percent not in thresholds:
            has = f"it has {min(thresholds)} to {max(thresholds)} %" if thresholds else "it has none"
            raise ResnetkitError(f"{what} {level:g} is not among the levels that {self.n} held-out images gave: {has}")
        return thresholds[percent]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Self:
        """From JSON, whose keys are words. Raises TypeError or ValueError for another's record."""
        levels = {
            name: {int(percent): float(threshold) for percent, threshold in record.get(name, {}).items()}
            for name in ("set_thresholds", "answer_thresholds")
        }
        return cls(**(record | levels))


@dataclass(frozen=True, kw_only=True)
class MultilabelCalibration(Calibration):
    """`thresholds` has the least probability, at that temperature, with which an image has each class; EVEN for all
    where nothing was fitted."""

    task: ClassVar[str] = "multilabel"

    thresholds: tuple[float, ...] = ()

    def probabilities(self, logits: Tensor) -> Tensor:
        """(N, classes) in float64, each class for itself."""
        return (logits.double() / self.temperature).sigmoid()

    def decision_thresholds(self, classes: int) -> tuple[float, ...]:
        """One a class. Raises ResnetkitError where they are of another number of classes."""
        if self.thresholds and len(self.thresholds) != classes:
            raise ResnetkitError(f"calibration: {len(self.thresholds)} thresholds for {classes} classes")
        return self.thresholds or (EVEN,) * classes

    def thresholds_for(self, classes: int, coverage: float | None, certainty: float | None) -> dict[str, Any]:
        if coverage is not None or certainty is not None:
            raise ResnetkitError(
                "coverage and certainty are for one label an image; this model gives any number of labels"
            )
        return {"thresholds": self.decision_thresholds(classes)}

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Self:
        return cls(**(record | {"thresholds": tuple(map(float, record.get("thresholds", ())))}))


CALIBRATIONS: dict[str, type[Calibration]] = {kind.task: kind for kind in (Calibration, MultilabelCalibration)}
