"""What the peers that read folders of JPEGs share: a DataLoader, a worker process a core, an epoch at a time."""

from collections.abc import Callable
from typing import Any

from resnetkit.benchmark.worker import Stopwatch, peak_bytes, serve, timed


class LoaderPeer:
    """`make(job)` is the data set of the folder `job["data"]`/train, random crop and flip among what it does."""

    def __init__(self, make: Callable[[dict], Any], name: str) -> None:
        self.make, self.name = make, name

    def serve(self) -> None:
        serve({"prepare": self.prepare, "sample": self.sample})

    def prepare(self, job: dict) -> dict:
        watch = Stopwatch()
        from torch.utils.data import DataLoader

        watch.lap("import")
        self.loader = DataLoader(self.make(job), job["batch_size"], shuffle=True, num_workers=job["threads"])
        watch.lap("build")
        self.epoch()
        watch.lap("first")
        return {"runs": self.name, "start_seconds": watch.parts, "peak_bytes": peak_bytes()}

    def epoch(self) -> int:
        return sum(len(labels) for _, labels in self.loader)

    def sample(self, seconds: float) -> dict:
        return timed(self.epoch, seconds)
