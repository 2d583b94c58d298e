"""What peers in PyTorch share: a training step and a forward pass as their scripts write them, and their variants."""

import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from time import perf_counter
from typing import Any

from resnetkit.benchmark.worker import Stopwatch, peak_bytes, serve, timed

TRIAL = 3  # steps that a way of running is judged by
CHECKED = 4  # images whose logits are compared


class TorchPeer:
    """`make(job)` builds a network that gives logits, in a fresh process whose libraries it imports.

    `default` is float32, eager, as the tensors come; `compiled` the same under torch.compile; `mixed` eager, in
    bfloat16 under autocast and channels_last; `best` the fastest of channels_last in float32 (but on a GPU) and in
    bfloat16 under autocast, eager and compiled. On a GPU all have the settings with which the libraries' scripts begin.
    """

    def __init__(self, make: Callable[[dict], Any], versions: Callable[[], str]) -> None:
        self.make, self.versions = make, versions
        self.kind, self.variant = sys.argv[1], sys.argv[2]

    def serve(self) -> None:
        serve({"prepare": self.prepare, "sample": self.sample, "export": self.export})

    def prepare(self, job: dict) -> dict:
        watch = Stopwatch()
        import torch

        self.torch, self.job = torch, job
        self.versions()  # imports the library
        watch.lap("import")
        torch.manual_seed(job["seed"])
        if job["device"] == "cpu":
            torch.set_num_threads(job["threads"])
        else:
            torch.backends.cudnn.benchmark = True
            torch.backends.cuda.matmul.allow_tf32 = True
        self.network = self.make(job).to(job["device"])
        self.x = torch.randn(job["batch_size"], 3, job["img_size"], job["img_size"], device=job["device"])
        self.labels = torch.randint(job["classes"], (job["batch_size"],), device=job["device"])
        watch.lap("build")
        trials = {}
        if self.variant == "best":
            runs = self.fastest(trials)
        else:
            mixed = self.variant == "mixed"
            runs = self.set_up(channels_last=mixed, bfloat16=mixed, compiled=self.variant == "compiled")
        self.work()
        self.synchronise()
        watch.lap("first")
        return {
            "runs": f"{self.versions()}, {runs}",
            "start_seconds": watch.parts,
            "trials": trials,
            "torch": torch.__version__,
            "peak_bytes": peak_bytes(),
        }

    def fastest(self, trials: dict[str, float]) -> str:
        kinds = (True,) if self.x.device.type == "cuda" else (False, True)  # on a GPU float32 is never the faster
        ways = [{"channels_last": True, "bfloat16": b, "compiled": c} for b in kinds for c in (False, True)]
        found = {}
        for way in ways:
            name = self.set_up(**way)
            self.work()
            self.synchronise()
            began = perf_counter()
            for _ in range(TRIAL):
                self.work()
            self.synchronise()
            trials[name], found[name] = (perf_counter() - began) / TRIAL, way
        best = min(trials, key=trials.__getitem__)
        return self.set_up(**found[best])

    def set_up(self, *, channels_last: bool, bfloat16: bool, compiled: bool) -> str:
        """Make `work` run in one way; its name."""
        torch = self.torch
        if channels_last:
            self.network.to(memory_format=torch.channels_last)
            self.x = self.x.contiguous(memory_format=torch.channels_last)
        run = torch.compile(self.network) if compiled else self.network
        device = self.x.device.type
        cast = (lambda: torch.autocast(device, torch.bfloat16)) if bfloat16 else nullcontext
        self.work = self.training_step(run, cast) if self.kind == "step" else self.forward(run, cast)
        words = ["channels_last" if channels_last else "as it comes", "bfloat16" if bfloat16 else "float32"]
        return ", ".join([*words, "compiled" if compiled else "eager"])

    def training_step(self, run: Any, cast: Callable[[], Any]) -> Callable[[], int]:
        """The loop that the libraries' training scripts have in common."""
        torch = self.torch
        self.network.train()
        criterion = torch.nn.CrossEntropyLoss()
        optimizer = torch.optim.SGD(self.network.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4)

        def step() -> int:
            with cast():
                output = run(self.x)
                loss = criterion(output, self.labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            self.look(output, loss)
            return len(self.x)

        return step

    def look(self, output: Any, loss: Any) -> None:
        """What is read after a step: they print the loss."""
        loss.item()

    def forward(self, run: Any, cast: Callable[[], Any]) -> Callable[[], int]:
        self.network.eval()

        def predict() -> int:
            with self.torch.no_grad(), cast():
                run(self.x).softmax(1)
            return len(self.x)

        return predict

    def sample(self, seconds: float) -> dict:
        return timed(self.work, seconds, self.synchronise)

    def synchronise(self) -> None:
        if self.x.device.type == "cuda":
            self.torch.cuda.synchronize()

    def export(self, folder: str) -> dict[str, str]:
        """Weights, images and their logits in float32 and evaluation mode, by a copy on the CPU."""
        import copy

        import numpy as np

        network = copy.deepcopy(self.network).cpu().float().eval()
        for module in network.modules():  # scales that start at 0 would hide what a branch computes
            if isinstance(module, self.torch.nn.BatchNorm2d):
                self.torch.nn.init.uniform_(module.weight, 0.5, 1.5)
        x = self.torch.randn(CHECKED, *self.x.shape[1:])
        with self.torch.no_grad():
            logits = network(x)
        place = Path(folder)
        np.save(place / "images.npy", x.numpy())
        np.save(place / "logits.npy", logits.numpy())
        return {"weights": self.save(network, place)} | {n: str(place / f"{n}.npy") for n in ("images", "logits")}

    def save(self, network: Any, place: Path) -> str:
        file = place / "weights.pth"
        self.torch.save(network.state_dict(), file)
        return str(file)
