"""Accuracy and time of `resnet train`, or of that and `resnet evaluate`: one JSON a measurement under results/.

python benchmarks/accuracy.py digits
python benchmarks/accuracy.py cifar10-resnet20 --data PATH/cifar10
python benchmarks/accuracy.py cifar10-fast --data PATH/cifar10      # hours
python benchmarks/accuracy.py cifar10-strong --data PATH/cifar10    # hours

The files' names end with -gpu where the commands ran on one. The interval of a mean is Student's, over several seeds:
what other seeds would give on the same test part.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean, stdev
from time import perf_counter

from record import RESULTS, header, save
from scipy.stats import sem, t

from resnetkit.benchmark.ceilings import products
from resnetkit.device import find_device
from resnetkit.training.precision import has_bfloat16

ROOT = Path(__file__).parents[1]
UNREGULARISED = ("min_scale=1", "flip=false", "policy=none", "label_smoothing=0", "weight_decay=0")
FLOWERS = ["--model", "resnet18"]
DEVICE = find_device("auto")  # that of the commands, too
JUDGING = ["--tta", "--precision", "bfloat16" if has_bfloat16(DEVICE) else "float32"]  # of the recipes cifar10_*
MEASUREMENTS: dict[str, dict] = {
    "digits": {"data": "digits", "flags": [], "seeds": 5},
    "cifar10-fast": {"flags": ["--recipe", "cifar10_fast"], "judging": JUDGING, "seeds": 3},
    "cifar10-strong": {"flags": ["--recipe", "cifar10_strong"], "judging": JUDGING, "seeds": 3},
    "cifar10-resnet20": {"flags": ["--model", "resnet20_cifar", "--epochs", "10"], "seeds": 3},
    "flowers-resnet18": {"flags": FLOWERS, "seeds": 5},
    "flowers-resnet18-unregularised": {
        "flags": [*FLOWERS, *(word for setting in UNREGULARISED for word in ("--set", setting))],
        "seeds": 5,
    },
}


def answer_of(command: list[str]) -> tuple[dict, float, str]:
    """What a command prints as JSON, its seconds from start to end, and what it told, which is passed on."""
    told = []
    started = perf_counter()
    with tempfile.TemporaryFile("w+") as answer:
        with subprocess.Popen(command, stdout=answer, stderr=subprocess.PIPE, text=True) as process:
            for line in process.stderr or ():
                sys.stderr.write(line)
                told.append(line)
        seconds = perf_counter() - started
        if process.returncode:
            sys.exit(f"{' '.join(command)} failed")
        answer.seek(0)
        return json.load(answer), seconds, "".join(told)


def train_once(data: str, flags: list[str], seed: int, folder: Path, judging: list[str]) -> tuple[dict, str]:
    """One run in a process of its own, and its figures by `resnet evaluate` with the flags `judging`, if any. Seconds
    are of the whole commands, start-up and test included."""
    resnet = [sys.executable, "-m", "resnetkit.cli.main"]
    training = ["train", data, *flags, "--seed", str(seed), "--out", str(folder), "--json"]
    figures, seconds, log = answer_of([*resnet, *training])
    run = {"seed": seed}
    if judging:
        run["top1_of_training"] = figures["top1"]
        figures, seconds_more, _ = answer_of([*resnet, "evaluate", str(folder), *judging, "--json"])
        seconds += seconds_more
    return run | {"seconds": round(seconds, 1)} | {k: figures[k] for k in ("top1", "loss", "ece", "n")}, log


def command_of(data: str, flags: list[str], judging: list[str]) -> str:
    """The commands of `train_once` as a user types them."""
    training = " ".join(["resnet train", Path(data).name, *flags])
    return f"{training}; resnet evaluate RUN {' '.join(judging)}" if judging else training


def matrix_products() -> dict[str, int]:
    """The machine's ceilings in GFLOP/s, without which seconds mean nothing."""
    return {name: round(gflops) for name, gflops in products(DEVICE).items()}


def measure(name: str, data: str) -> dict:
    """What is saved after every seed, `seeds_planned` being how many there are to be; over an older result when there
    are as many seeds as that has."""
    plan = MEASUREMENTS[name]
    if DEVICE.type == "cuda":
        name += "-gpu"
    file = RESULTS / f"{name}.json"
    older = min(plan["seeds"], len(json.loads(file.read_text())["seeds"])) if file.exists() else 0
    flags, judging = plan["flags"], plan.get("judging", [])
    before = header(name, command_of(data, flags, judging), [], DEVICE)
    before |= {"seeds_planned": plan["seeds"], "gflops": matrix_products()}
    runs, logs = [], []
    with tempfile.TemporaryDirectory() as temporary:
        folders = [Path(temporary, str(seed)) for seed in range(plan["seeds"])]
        for seed, folder in enumerate(folders):
            run, log = train_once(data, flags, seed, folder, judging)
            runs.append(run)
            logs.append(log)
            result = before | summary(runs)
            if len(runs) >= older:
                save(result)
                keep(name, folders[0], logs[0])
            print(f"{name} seed {seed}: top-1 {run['top1']:.2%} in {run['seconds']:.0f} s", flush=True)
    return result


def summary(runs: list[dict]) -> dict:
    scores = [run["top1"] for run in runs]
    return {
        "seeds": [run["seed"] for run in runs],
        "top1_mean": mean(scores),
        "top1_std": stdev(scores) if len(scores) > 1 else None,
        "top1_mean_interval": interval_of_mean(scores),
        "seconds_max": max(run["seconds"] for run in runs),
        "runs": runs,
    }


def interval_of_mean(scores: list[float]) -> list[float] | None:
    if len(scores) < 2:
        return None
    return list(t.interval(0.95, len(scores) - 1, mean(scores), sem(scores)))


def keep(name: str, folder: Path, log: str) -> None:
    """The first seed's curves, confusion matrix and printed lines, for the documents."""
    images, results = ROOT / "docs" / "images", ROOT / "results"
    for place in (images, results):
        place.mkdir(exist_ok=True)
    for plot in ("curves", "confusion_matrix"):
        shutil.copy(folder / "plots" / f"{plot}.png", images / f"{name}-{plot}.png")
    lines = [line.replace(str(folder), f"runs/{name}") for line in log.splitlines()]
    (results / f"{name}.log").write_text("\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", default="digits", choices=MEASUREMENTS)
    parser.add_argument("--data", help="where the images lie, for a measurement that does not bring its own")
    arguments = parser.parse_args()
    data = MEASUREMENTS[arguments.name].get("data") or arguments.data
    if not data:
        parser.error(f"{arguments.name} needs --data")
    result = measure(arguments.name, data)
    spread = f", spread {result['top1_std']:.2%}" if result["top1_std"] is not None else ""
    print(f"mean top-1 {result['top1_mean']:.2%}{spread}, written to results/{result['id']}.json")


if __name__ == "__main__":
    main()
