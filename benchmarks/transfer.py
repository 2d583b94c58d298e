"""Does training on other images help? Fine-tuned from a run against from scratch, in cross-validation of one set.

python benchmarks/transfer.py PATH/flowers RUN...

Each RUN is a resnet20_cifar trained on CIFAR-10 with a seed of its own, which the photos are trained with too. With
every seed a photo is answered once by either, after training on photos that it is not among; the two are compared photo
by photo, each by the share of seeds that answer it rightly.
"""

import argparse
import tempfile
from pathlib import Path

import torch
from answers import own_answers
from record import header, save
from scipy.stats import ttest_rel

import resnetkit as rk
from resnetkit.data.datasets import open_dataset
from resnetkit.data.resplit import SplitPlan, divide, write_division
from resnetkit.data.survey import survey
from resnetkit.weights.load import load

FOLDS = 5
SIZE = {"img_size": 32, "train_size": 32}  # pixels that the start was trained at
ARMS = {
    "scratch": {"recipe": "photos", "model": "resnet20_cifar", "start_size": 1, **SIZE},
    # The recipe of fine-tuning without its weights: what of the difference is the recipe's.
    "untrained": {"recipe": "finetune", "model": "resnet20_cifar", **SIZE},
    "finetuned": {"recipe": "finetune", "freeze": "stem", **SIZE},
}


def write_folds(data: str, folder: Path) -> list[Path]:
    """A table of `data` for each fold, which it is judged by."""
    found = survey(open_dataset(data))
    division = divide(found, SplitPlan(by="random", val=0, test=0, folds=FOLDS))
    return write_division(division, found, folder / "split.csv")[1:]


def stem_is_equal(first: Path, second: Path) -> bool:
    """Weights and batch-norm statistics of the frozen part, to the bit."""
    stems = [load(run).network.stem.state_dict() for run in (first, second)]
    return stems[0].keys() == stems[1].keys() and all(torch.equal(stems[0][key], stems[1][key]) for key in stems[0])


def cross_validate(tables: list[Path], start: Path, seed: int, folder: Path) -> tuple[dict, dict, bool]:
    """By arm: whether each photo is answered rightly, (N,), and the recipe; whether the frozen stem stayed the same."""
    rights: dict[str, list[torch.Tensor]] = {name: [] for name in ARMS}
    recipes, equal = {}, True
    for table in tables:
        for name, settings in ARMS.items():
            out = folder / f"{table.stem}-{name}-{seed}"
            weights = {"weights": str(start)} if name == "finetuned" else {}
            rk.train(table, out=out, seed=seed, **settings, **weights)
            model = load(out)
            rights[name].append(own_answers(out, model).right)
            recipes[name] = model.provenance["recipe"] | ({"weights": "RUN"} if weights else {})
            recipes[name].pop("seed")
        equal = equal and stem_is_equal(start, folder / f"{table.stem}-finetuned-{seed}")
        shares = {name: f"{float(own[-1].float().mean()):.1%}" for name, own in rights.items()}
        print(seed, table.stem, shares, flush=True)
    return {name: torch.cat(own) for name, own in rights.items()}, recipes, equal


def compare(first: torch.Tensor, second: torch.Tensor) -> dict:
    """Of two (seeds, N) tables of right answers: the mean difference, second minus first. Its interval is that over
    photos, for these trainings; what other seeds would give, the differences of the seeds say."""
    shares = [table.double().mean(0) for table in (second, first)]
    test = ttest_rel(*shares)
    return {
        "top1": [float(table.double().mean()) for table in (first, second)],
        "difference_by_seed": (second.double().mean(1) - first.double().mean(1)).tolist(),
        "difference": float((shares[0] - shares[1]).mean()),
        "difference_interval": [float(bound) for bound in test.confidence_interval(0.95)],
        "p_value": float(test.pvalue),
        "test": "paired t over the photos, each by its mean over the seeds",
        "n": first.shape[1],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    arguments = parser.parse_args()
    begun = [load(run).provenance["recipe"] for run in arguments.runs]
    seeds = [recipe["seed"] for recipe in begun]
    if len(set(seeds)) < len(seeds):
        parser.error("the runs must be of different seeds")
    names = [Path(arguments.data).name, *(run.name for run in arguments.runs)]
    result = header("transfer", " ".join(["python benchmarks/transfer.py", *names]), seeds)
    found = []
    with tempfile.TemporaryDirectory() as temporary:
        tables = write_folds(arguments.data, Path(temporary))
        for run, seed in zip(arguments.runs, seeds):
            found.append(cross_validate(tables, run, seed, Path(temporary)))
    rights = {name: torch.stack([own[name] for own, _, _ in found]) for name in ARMS}
    against = {name: compare(rights[name], rights["finetuned"]) for name in ("scratch", "untrained")}
    save(
        result
        | {
            "starts": [{key: recipe[key] for key in ("model", "epochs", "seed")} for recipe in begun],
            "folds": FOLDS,
            "frozen_stem_equal": all(equal for _, _, equal in found),
            "finetuned_against": against,
            "recipes": found[0][1],
        }
    )
    for name, one in against.items():
        print(f"{name} {one['top1'][0]:.1%}, fine-tuned {one['top1'][1]:.1%}, p {one['p_value']:.2g}")


if __name__ == "__main__":
    main()
