"""`cifar10_fast` beside the record's program, airbench94_muon: accuracy on the test file and seconds, over seeds.

python benchmarks/airbench.py PATH/cifar10 [--seeds 0 1 2] [--arithmetic mixed|bfloat16|float32|float16] [--compile]

The two run in turn, a process each, on the GPU where there is one: then the file is airbench-gpu.json. Seeds that
it has and that are not asked for stay. Our seconds are those of two whole commands, `resnet train` and the `resnet
evaluate --tta` that makes the figure, reading and start-up included; the record's are those of its own clock, which
leaves them out. Beside them stand our seconds of training alone, and the record's of the whole process.
"""

import argparse
import csv
import json
import sys
import tempfile
from pathlib import Path
from statistics import mean

from accuracy import DEVICE, JUDGING, answer_of, command_of, interval_of_mean, matrix_products, train_once
from peers.run_airbench import KINDS
from record import RESULTS, header, here, save

from resnetkit.training.precision import has_bfloat16

ON_GPU = DEVICE.type == "cuda"
FILE = RESULTS / ("airbench-gpu.json" if ON_GPU else "airbench.json")
PEER = Path(__file__).parent / "peers" / "run_airbench.py"
FLAGS = ["--recipe", "cifar10_fast"]
COMMAND = command_of("cifar10", FLAGS, JUDGING)


def ours(data: str, seed: int) -> dict:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "run")
        run, _ = train_once(data, FLAGS, seed, folder, JUDGING)
        with open(folder / "results.csv", encoding="utf-8") as table:
            training = sum(float(epoch["seconds"]) for epoch in csv.DictReader(table))
    kept = {name: run[name] for name in ("seconds", "top1", "top1_of_training")}
    return kept | {"seconds_of_training": round(training, 2)}


def record_program(data: str, seed: int, flags: list[str]) -> dict:
    found, whole, _ = answer_of([sys.executable, str(PEER), data, "--seed", str(seed), *flags])
    kept = {key: found[key] for key in ("seconds", "top1", "curve")}
    return {"command": peer_command(flags)} | kept | {"seconds_of_process": round(whole, 1)}


def summary(runs: list[dict]) -> dict:
    scores = [run["top1"] for run in runs]
    return {
        "top1_mean": mean(scores),
        "top1_mean_interval": interval_of_mean(scores),
        "seconds_mean": mean(run["seconds"] for run in runs),
    }


def measured() -> dict:
    """The result so far."""
    return json.loads(FILE.read_text()) if FILE.exists() else {"command": COMMAND, "pairs": []}


def others(result: dict, seeds: list[int], flags: list[str]) -> list[dict]:
    """The pairs of other seeds in a result. Ends where one is of another commit, machine, command or peer, for it
    would be lost."""
    now = here(DEVICE)
    found = [pair for pair in result["pairs"] if pair["seed"] not in seeds]
    if any(result["command"] != COMMAND or not _alike(pair, now, flags) for pair in found):
        sys.exit(
            f"{FILE.name} has seeds of another commit, machine or command, which would be lost; move it away first"
        )
    return found


def _alike(pair: dict, now: dict, flags: list[str]) -> bool:
    """Whether code and machine are the same, as far as is known: what a dirty commit held is not, nor one that git does
    not tell."""
    return (
        not now["commit"].endswith(("-dirty", "unknown"))
        and all(pair["environment"].get(part) == now[part] for part in ("commit", "processor", "gpu", "threads"))
        and pair["record"]["command"] == peer_command(flags)
    )


def peer_command(flags: list[str]) -> str:
    return f"{PEER.name} {' '.join(flags)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arithmetic = "float16" if ON_GPU else "mixed" if has_bfloat16(DEVICE) else "float32"
    what = "of the record's program [default: mixed; float16 on a GPU, float32 on processors without bfloat16]"
    parser.add_argument("--arithmetic", choices=KINDS, default=arithmetic, help=what)
    what = "the record's program [default: on a GPU, as its author's is]"
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=ON_GPU, help=what)
    given = parser.parse_args()
    flags = ["--arithmetic", given.arithmetic, *(["--compile"] if given.compile else [])]
    before = measured()
    pairs, older = others(before, given.seeds, flags), {pair["seed"] for pair in before["pairs"]}
    for seed in given.seeds:
        origin = {"seed": seed, "environment": here(DEVICE), "gflops": matrix_products()}
        pair = {"record": record_program(given.data, seed, flags), "ours": ours(given.data, seed)}
        pairs = sorted([*pairs, origin | pair], key=lambda pair: pair["seed"])
        result = header(FILE.stem, COMMAND, [pair["seed"] for pair in pairs], DEVICE)
        result |= {name: summary([pair[name] for pair in pairs]) for name in ("ours", "record")}
        result["speed_ratio"] = result["record"]["seconds_mean"] / result["ours"]["seconds_mean"]
        if older <= {pair["seed"] for pair in pairs}:  # a try that fails takes none away
            save(result | {"pairs": pairs}, FILE)
        for name, run in pair.items():
            print(f"{name} seed {seed}: top-1 {run['top1']:.2%} in {run['seconds']:.3g} s", flush=True)
    print(f"{result['speed_ratio']:.2f} times as fast as the record's program over {len(pairs)} seeds, in {FILE.name}")


if __name__ == "__main__":
    main()
