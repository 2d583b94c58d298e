"""resnetkit: residual networks, built, trained, judged and put to work.

Names are imported when first used, so that `import resnetkit` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from resnetkit.architecture.memory_plan import plan_memory as plan_memory
    from resnetkit.architecture.spec import NetworkSpec as NetworkSpec
    from resnetkit.architecture.variants import variants as variants
    from resnetkit.data.preprocess import Preprocessing as Preprocessing
    from resnetkit.errors import ResnetkitError as ResnetkitError
    from resnetkit.evaluation.compare import compare as compare
    from resnetkit.evaluation.evaluate import calibrate as calibrate
    from resnetkit.evaluation.evaluate import evaluate as evaluate
    from resnetkit.evaluation.probe import probe as probe
    from resnetkit.export.export import export as export
    from resnetkit.export.to_keras import to_keras as to_keras
    from resnetkit.inference.predictor import Predictor as Predictor
    from resnetkit.training.run import train as train
    from resnetkit.training.tune import tune as tune
    from resnetkit.weights.files import Model as Model
    from resnetkit.weights.load import build as build
    from resnetkit.weights.load import build_resnet as build_resnet
    from resnetkit.weights.load import load as load


__version__ = "0.1.0"

_HOME = {
    "NetworkSpec": "architecture.spec",
    "variants": "architecture.variants",
    "plan_memory": "architecture.memory_plan",
    "ResnetkitError": "errors",
    "build": "weights.load",
    "build_resnet": "weights.load",
    "load": "weights.load",
    "Model": "weights.files",
    "Preprocessing": "data.preprocess",
    "train": "training.run",
    "tune": "training.tune",
    "evaluate": "evaluation.evaluate",
    "calibrate": "evaluation.evaluate",
    "compare": "evaluation.compare",
    "probe": "evaluation.probe",
    "export": "export.export",
    "Predictor": "inference.predictor",
    "to_keras": "export.to_keras",
}
__all__ = [*_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'resnetkit' has no attribute {name!r}")
    value = getattr(import_module(f"resnetkit.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
