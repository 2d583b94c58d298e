"""Our side of a benchmark, a worker: python -m resnetkit.benchmark.ours step|inference|loader|machine.

What it runs is what `resnet train` and `resnet predict` run, not a copy made for the purpose.
"""

import sys
from collections.abc import Callable
from typing import Any

from resnetkit.benchmark.worker import Stopwatch, Work, peak_bytes, serve, timed

Job = dict[str, Any]  # as `benchmark.job.Job` writes it


class Contender:
    """Something that is prepared once and then measured as often as is asked."""

    def __init__(self) -> None:
        self._work: Work = lambda: 0
        self._wait: Callable[[], None] = lambda: None

    def sample(self, seconds: float) -> dict[str, float]:
        return timed(self._work, seconds, self._wait)

    def prepare(self, job: Job) -> dict[str, Any]:
        """Build everything and do the first piece of work; what that took, and what was settled."""
        watch = Stopwatch()
        import torch

        watch.lap("import")
        if job["device"] == "cpu":
            from resnetkit.training.allocator import keep_freed_memory

            torch.set_num_threads(job["threads"])
            keep_freed_memory()
        else:
            self._wait = torch.cuda.synchronize
        facts = self.build(job)
        watch.lap("build")
        self._work()
        self._wait()
        watch.lap("first")
        return facts | {"start_seconds": watch.parts, "torch": torch.__version__, "peak_bytes": peak_bytes()}

    def build(self, job: Job) -> dict[str, Any]:
        raise NotImplementedError


class Step(Contender):
    """Training steps of `train_epoch` on images at hand, with the recipe that such images get."""

    def build(self, job: Job) -> dict[str, Any]:
        from resnetkit.benchmark.subject import prepared_step, training_step
        from resnetkit.device import find_device
        from resnetkit.training.compiling import compile_network
        from resnetkit.training.run import new_state

        device = find_device(job["device"])
        prepared = prepared_step(job, device)
        state, _ = new_state(prepared, device)
        how = ["resnet train", prepared.recipe.precision]
        if job["compile"] != "off":
            compile_network(state, job["compile"])
            how.append(f"compile {job['compile']}")
        self._work = training_step(prepared, state)
        return {"runs": ", ".join(how), "precision": prepared.recipe.precision}


class Inference(Contender):
    """The predictor from framed images, on its device as the peers' are, to probabilities."""

    def build(self, job: Job) -> dict[str, Any]:
        from resnetkit.benchmark.subject import random_model
        from resnetkit.inference.predictor import Predictor

        model, frames = random_model(job)
        predictor = Predictor(model, device=job["device"], precision=job["precision"])

        frames = frames.to(predictor.device)

        def predict() -> int:
            predictor._probabilities(frames)
            return len(frames)

        self._work = predict
        return {"runs": f"Predictor, {job['precision']}", "precision": job["precision"]}


class Loader(Contender):
    """Whole epochs of augmented and normalised batches from a folder of JPEGs. Workers wait between epochs, so none
    works on. Training normalises on its device; peers do in their workers, so it belongs to the time."""

    def build(self, job: Job) -> dict[str, Any]:
        from resnetkit.benchmark.subject import photo_batches

        batches, what = photo_batches(job)
        size = (job["img_size"], job["img_size"])
        epochs = iter(range(2**62))

        def epoch() -> int:
            loaded = batches.epoch(next(epochs), size)
            return sum(len(batches.preprocessing.normalise(images)) for images, _ in loaded)

        self._work = epoch
        return {"runs": what}


class Machine:
    """The ceilings and the probe."""

    def ceilings(self, device: str, threads: int) -> dict[str, float]:
        import torch

        from resnetkit.benchmark import ceilings

        torch.set_num_threads(threads)
        self._probe = ceilings.Probe(torch.device(device))
        return ceilings.ceilings(torch.device(device))

    def probe(self) -> list[float]:
        return self._probe()


def main() -> None:
    kind = sys.argv[1]
    if kind == "machine":
        machine = Machine()
        serve({"ceilings": machine.ceilings, "probe": machine.probe})
    else:
        contender = {"step": Step, "inference": Inference, "loader": Loader}[kind]()
        serve({"prepare": contender.prepare, "sample": contender.sample})


if __name__ == "__main__":
    main()
