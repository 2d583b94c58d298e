"""What the peers in Keras share: `fit` and `predict` by its own calls, on the back end that KERAS_BACKEND names."""

import os
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from resnetkit.benchmark.worker import Stopwatch, peak_bytes, serve, timed

CHECKED = 2  # images whose logits are compared


class KerasPeer:
    """`make(job)` builds a model of channels-last images that ends in a softmax; `blue_first` says that our reader
    takes its images for BGR, by the names of its layers, and turns the first convolution round."""

    def __init__(self, make: Callable[[dict], Any], name: str, *, blue_first: bool = False) -> None:
        self.make, self.name, self.blue_first = make, name, blue_first
        self.kind = sys.argv[1]

    def serve(self) -> None:
        serve({"prepare": self.prepare, "sample": self.sample, "export": self.export})

    def prepare(self, job: dict) -> dict:
        os.environ.setdefault("KERAS_BACKEND", "tensorflow" if find_spec("tensorflow") else "torch")
        watch = Stopwatch()
        import keras
        import numpy as np

        watch.lap("import")
        keras.utils.set_random_seed(job["seed"])
        self.model = self.make(job)
        generator = np.random.default_rng(job["seed"])
        shape = (job["batch_size"], job["img_size"], job["img_size"], 3)
        self.x = generator.random(shape, dtype=np.float32)
        self.y = generator.integers(0, job["classes"], job["batch_size"])
        if self.kind == "step":
            self.model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
        watch.lap("build")
        self.work()
        watch.lap("first")
        return {
            "runs": f"{self.name}, Keras {keras.__version__} on {keras.backend.backend()}",
            "start_seconds": watch.parts,
            "peak_bytes": peak_bytes(),
        }

    def work(self) -> int:
        if self.kind == "step":
            self.model.train_on_batch(self.x, self.y)
        else:
            self.model.predict_on_batch(self.x)
        return len(self.x)

    def sample(self, seconds: float) -> dict:
        return timed(self.work, seconds)

    def export(self, folder: str) -> dict[str, str]:
        import numpy as np
        from keras import ops

        place = Path(folder)
        x = np.random.default_rng(1).standard_normal((CHECKED, *self.x.shape[1:]), dtype=np.float32)
        model = without_softmax(self.model)
        ours = x[..., ::-1] if self.blue_first else x
        np.save(place / "images.npy", ours.transpose(0, 3, 1, 2).copy())
        np.save(place / "logits.npy", ops.convert_to_numpy(model(x, training=False)))
        self.model.save(place / "weights.keras")
        return {n: str(place / f"{n}.{end}") for n, end in (("weights", "keras"), ("images", "npy"), ("logits", "npy"))}


def without_softmax(model: Any) -> Any:
    """The same layers, the last without its activation."""
    import keras

    last = model.layers[-1]
    linear = keras.layers.Dense(last.units, name="logits")
    outputs = linear(last.input)
    linear.set_weights(last.get_weights())
    return keras.Model(model.inputs, outputs)
