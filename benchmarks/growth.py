"""How time and memory of a training step grow with depth, width, resolution, batch: results/benchmark-growth.json.

python benchmarks/growth.py     about 3 minutes on 2 cores

Time is the median of a few steps in float32, by the recipe of small images throughout; memory is the most bytes that
live at once in a step, weights among them. An exponent is the slope of the logarithms, with Student's interval.
"""

from statistics import median
from time import perf_counter

import torch
from record import header, save

from resnetkit.benchmark.job import make_job
from resnetkit.benchmark.subject import prepared_step, training_step
from resnetkit.data.ingest import SMALL
from resnetkit.lab.statistics import power_law
from resnetkit.training.allocator import keep_freed_memory
from resnetkit.training.memory import step_bytes
from resnetkit.training.run import new_state

STEPS = 5
BASE = {"model": "resnet20_cifar", "img_size": 32, "batch_size": 64}
LADDERS: dict[str, list[tuple[float, dict]]] = {  # what grows: its value, and what differs from BASE
    "depth": [(d, {"model": f"resnet{d}_cifar"}) for d in (20, 32, 56, 110, 200)],
    "width": [(w, {"model": f"wide_resnet16_{w}_cifar", "batch_size": 8}) for w in (1, 2, 4, 8)],
    "resolution": [(s, {"img_size": s}) for s in (16, 24, 32, 48, 64)],  # larger images have another recipe
    "batch": [(b, {"batch_size": b}) for b in (16, 32, 64, 128, 256)],
}


def measure(**choices: object) -> dict[str, float]:
    """Seconds of a training step in float32 and bytes that it keeps."""
    job = make_job("step", choices.pop("model"), precision="float32", **choices).to_dict()
    assert job["img_size"] <= SMALL, "photos are trained with another optimizer"
    device = torch.device("cpu")
    prepared = prepared_step(job, device)
    state, _ = new_state(prepared, device)
    step, seconds = training_step(prepared, state), []
    for _ in range(STEPS + 1):
        began = perf_counter()
        step()
        seconds.append(perf_counter() - began)
    return {"seconds": median(seconds[1:]), "bytes": step_bytes(state, prepared, job["batch_size"])}


def main() -> None:
    keep_freed_memory()
    result = header("benchmark-growth", "python benchmarks/growth.py", seeds=[0]) | {"base": BASE, "ladders": {}}
    for name, rungs in LADDERS.items():
        points = [{"value": value} | measure(**BASE | choices) for value, choices in rungs]
        values = [point["value"] for point in points]
        fits = {cost: power_law(values, [p[cost] for p in points])._asdict() for cost in ("seconds", "bytes")}
        result["ladders"][name] = {"points": points, "fits": fits}
        print(f"{name}: time {fits['seconds']['exponent']:.2f}, memory {fits['bytes']['exponent']:.2f}", flush=True)
    save(result)


if __name__ == "__main__":
    main()
