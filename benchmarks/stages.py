"""Where a training step's time goes, part by part, against the machine's ceiling: results/benchmark-stages-MODEL.json.

python benchmarks/stages.py resnet50 --batch-size 16      about a minute on 2 cores

Hooks of the modules take the time, forward and backward. What they do not see (the loss, the optimizer, the pixels)
is the rest of the step.
"""

import argparse
import sys
from collections import defaultdict
from statistics import median
from time import perf_counter

import torch
from record import header, save
from torch import nn

from resnetkit.architecture.summary import image_gradient_macs
from resnetkit.architecture.summary import measure as costs
from resnetkit.benchmark.ceilings import ceilings
from resnetkit.benchmark.job import make_job
from resnetkit.benchmark.subject import prepared_step, training_step
from resnetkit.training.allocator import keep_freed_memory
from resnetkit.training.freezing import parts
from resnetkit.training.run import new_state

STEPS = 7
PASSES = {"forward": 1, "backward": 2}  # multiplications, in those of a forward pass: of inputs' and weights' gradients


class Laps:
    """Seconds of each part of a network, forward and backward, in one step. The first part has no gradient to hand on,
    so its backward pass ends when the optimizer begins."""

    def __init__(self, net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.seconds: dict[tuple[str, str], float] = defaultdict(float)
        self._began: dict[tuple[str, str], float] = {}
        for name, part in parts(net):
            part.register_forward_pre_hook(self._start(name, "forward"))
            part.register_forward_hook(self._stop(name, "forward"))
            if part is net.stem:
                part.register_forward_hook(lambda *io: io[-1].register_hook(self._start("stem", "backward")) and None)
            else:
                part.register_full_backward_pre_hook(self._start(name, "backward"))
                part.register_full_backward_hook(self._stop(name, "backward"))
        optimizer.register_step_pre_hook(self._stop("stem", "backward"))

    def _start(self, name: str, way: str):
        def hook(*_: object) -> None:
            self._began[name, way] = perf_counter()

        return hook

    def _stop(self, name: str, way: str):
        def hook(*_: object) -> None:
            self.seconds[name, way] += perf_counter() - self._began[name, way]

        return hook


def measure(model: str, batch_size: int | None, img_size: int | None) -> dict:
    device = torch.device("cpu")
    keep_freed_memory()
    job = make_job("step", model, batch_size=batch_size, img_size=img_size).to_dict()
    prepared = prepared_step(job, device)
    state, _ = new_state(prepared, device)
    step, laps = training_step(prepared, state), Laps(state.net, state.optimizer)
    steps = []
    for _ in range(STEPS + 1):
        laps.seconds.clear()
        began = perf_counter()
        step()
        steps.append({"step": perf_counter() - began} | dict(laps.seconds))
    steps = steps[1:]
    macs: dict[str, int] = defaultdict(int)
    for cost in costs(state.net):
        macs[next(name for name, _ in parts(state.net) if f"{cost.name}.".startswith(f"{name}."))] += cost.macs
    whole = median(step["step"] for step in steps)
    top = ceilings(device)
    rows = []
    for name, part in parts(state.net):
        for way, passes in PASSES.items():
            seconds = median(step.get((name, way), 0.0) for step in steps)
            spared = image_gradient_macs(state.net) if (part, way) == (state.net.stem, "backward") else 0
            count = passes * macs[name] - spared
            gflops = 2 * count * job["batch_size"] / seconds / 1e9 if seconds else 0.0
            share = gflops / top[f"{prepared.recipe.precision}_gflops"]
            row = {"part": name, "way": way, "seconds": seconds, "share_of_step": seconds / whole}
            rows.append(row | {"gflops": gflops, "share_of_ceiling": share})
    rest = whole - sum(row["seconds"] for row in rows)
    return {
        "job": job,
        "precision": prepared.recipe.precision,
        "seconds": whole,
        "rows": rows,
        "rest": {"seconds": rest, "share_of_step": rest / whole},
        "ceilings": top,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="resnet50")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--img-size", type=int)
    arguments = parser.parse_args()
    name = f"benchmark-stages-{arguments.model}"
    found = header(name, " ".join(["python benchmarks/stages.py", *sys.argv[1:]]), seeds=[0])
    found |= measure(arguments.model, arguments.batch_size, arguments.img_size)
    save(found)
    for row in found["rows"]:
        print(f"{row['part']:<10} {row['way']:<9} {row['share_of_step']:6.1%}, {row['gflops']:,.0f} GFLOP/s")
    print(f"{'the rest':<20} {found['rest']['share_of_step']:6.1%}")


if __name__ == "__main__":
    main()
