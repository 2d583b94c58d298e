"""Training from a folder of JPEGs beside training on images in memory: results/benchmark-folder.json.

python benchmarks/folder.py PATH/flowers      about 10 minutes on 2 cores

A turn is an epoch of resnet18 at 224, as `resnet train` takes it. For each recipe the folder, with and without the
cache of `--cache`, takes turns with batches that are there already; these twice, as the control. The files are read
over and over, so they come from the system's memory: what is measured is decoding and augmentation, not a disk.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from time import perf_counter

import torch
from record import header, save

from resnetkit.benchmark.ceilings import Probe
from resnetkit.benchmark.ratios import FEWEST, agrees, ratio, reasons_void, spread
from resnetkit.benchmark.rounds import Rounds, take_rounds
from resnetkit.benchmark.subject import training_step
from resnetkit.cli.benchmark import VOID
from resnetkit.cores import default_workers
from resnetkit.data.parts import Part
from resnetkit.training.allocator import keep_freed_memory
from resnetkit.training.epochs import Epochs
from resnetkit.training.precision import resolve_precision
from resnetkit.training.prepare import Prepared, prepare
from resnetkit.training.run import new_state

DEVICE = torch.device("cpu")
RECIPES = {"imagenet_paper": "crop and flip", "photos": "crop, flip and TrivialAugment"}
SETTINGS = {
    "model": "resnet18",
    "img_size": 224,
    "train_size": 224,
    "start_size": 1.0,
    "batch_size": 32,
    "epochs": 1000,
}
MEMORY, CONTROL = "memory", "control"

Turn = Callable[[], int]  # an epoch, and how many images it had


def from_folder(prepared: Prepared) -> Turn:
    """Epochs of a run, one after another."""
    state, _ = new_state(prepared, DEVICE)
    epochs = Epochs(prepared, state, default_workers(DEVICE.type))

    def turn() -> int:
        epochs.begin()
        epochs.train(lambda state, waited: None)
        return len(prepared.parts["train"])

    return turn


def from_memory(prepared: Prepared) -> Turn:
    """As many steps on one batch that is there already."""
    state, _ = new_state(prepared, DEVICE)
    epochs = Epochs(prepared, state, workers=0)
    images, labels = next(epochs.batches.epoch(0, epochs.size(0)))
    batch = Part(images, labels, [str(i) for i in range(len(labels))])
    step = training_step(replace(prepared, parts={"train": batch}), state)
    return lambda: sum(step() for _ in range(epochs.steps))


def measure(prepared: Prepared, tell: Callable[[str], None]) -> dict:
    """What epochs took by each way of reading, against those from memory."""
    memory = from_memory(prepared)
    cached = prepared.with_settings(cache=True)
    turns = {"folder": from_folder(prepared), "cache": from_folder(cached), MEMORY: memory, CONTROL: memory}
    tell("filling the cache")
    for _ in range(2):  # the first fills the cache, the second looks at its checksums
        for turn in turns.values():
            turn()

    def images_per_second(name: str) -> float:
        began = perf_counter()
        return turns[name]() / (perf_counter() - began)

    def settled(found: Rounds) -> bool:
        control = ratio(found.values[MEMORY], found.values[CONTROL], more_is_better=True)
        tell(f"after {len(found)} rounds and {found.dropped} dropped the control is {control['median']:.3f}")
        return agrees(control)

    found = take_rounds(list(turns), images_per_second, Probe(DEVICE), FEWEST, settled)
    if not len(found):
        sys.exit(f"no round of {found.dropped} lay between steady probes: the machine is not quiet")
    compared = {n: ratio(v, found.values[MEMORY], more_is_better=True) for n, v in found.values.items() if n != MEMORY}
    for name, values in compared.items():
        tell(f"{name} {values['median']:.3f} ({values['low']:.3f} to {values['high']:.3f}) of the speed from memory")
    return {
        "images_per_second": {name: spread(values) for name, values in found.values.items()},
        "ratio": compared,
        "rounds": len(found),
        "dropped": found.dropped,
        "reasons": reasons_void(compared[CONTROL], len(found), {}),
        "samples": found.values,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    data = parser.parse_args().data
    keep_freed_memory()
    precision = resolve_precision("auto", DEVICE)
    result = header("benchmark-folder", "python benchmarks/folder.py flowers", seeds=[0])
    result |= {"settings": SETTINGS, "precision": precision, "workers": default_workers(DEVICE.type), "cases": []}
    with tempfile.TemporaryDirectory() as cache:
        os.environ["XDG_CACHE_HOME"] = cache
        for recipe, what in RECIPES.items():
            prepared = prepare(data, recipe, SETTINGS | {"precision": precision}, 0.0)
            found = measure(prepared, lambda line, what=what: print(f"{what}: {line}", flush=True))
            result["cases"].append({"recipe": recipe, "what": what, "images": len(prepared.parts["train"])} | found)
    if reasons := [f"{case['what']}: {reason}" for case in result["cases"] for reason in case["reasons"]]:
        print("void, and not written:", *reasons, sep="\n")
        sys.exit(VOID)
    save(result)


if __name__ == "__main__":
    main()
