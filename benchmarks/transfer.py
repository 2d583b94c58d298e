"""Does training on other images help? Fine-tuned from a run against from scratch, in cross-validation of one set.

python benchmarks/transfer.py PATH/flowers RUN

RUN is a resnet20_cifar trained on CIFAR-10. Every photo is answered once by either, after training on photos that it is
not among, and the two are compared photo by photo.
"""

import argparse
import csv
import tempfile
from pathlib import Path

import torch
from record import header, save

import resnetkit as rk
from resnetkit.data.datasets import open_dataset
from resnetkit.data.resplit import SplitPlan, divide, write_division
from resnetkit.data.survey import survey
from resnetkit.evaluation.compare import paired
from resnetkit.evaluation.evaluate import Computing, choose_images
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
    """A table of `data` for each fold, whose test part it is."""
    division = folder / "division.csv"
    found = survey(open_dataset(data))
    write_division(divide(found, SplitPlan(by="random", val=0, test=0, folds=FOLDS)), found, division)
    with open(division, newline="") as file:
        rows = list(csv.DictReader(file))
    tables = []
    for fold in range(1, FOLDS + 1):
        tables.append(folder / f"fold{fold}.csv")
        with open(tables[-1], "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("path", "label", "split"))
            for row in rows:
                writer.writerow((row["path"], row["label"], "test" if int(row["fold"]) == fold else "train"))
    return tables


def right(run: Path) -> torch.Tensor:
    """Whether each image of the run's test part is answered rightly, (N,)."""
    model = load(run)
    computing = Computing(torch.device("cpu"), torch.float32, batch_size=256, workers=0)
    return computing.answers(model, choose_images(run, model, None, None, 0.0)).right


def stem_is_equal(first: Path, second: Path) -> bool:
    """Weights and batch-norm statistics of the frozen part, to the bit."""
    stems = [load(run).network.stem.state_dict() for run in (first, second)]
    return stems[0].keys() == stems[1].keys() and all(torch.equal(stems[0][key], stems[1][key]) for key in stems[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("run", type=Path)
    arguments = parser.parse_args()
    command = f"python benchmarks/transfer.py {Path(arguments.data).name} {arguments.run.name}"
    result = header("transfer", command, seeds=[0])
    answers: dict[str, list[torch.Tensor]] = {name: [] for name in ARMS}
    recipes, frozen = {}, []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for table in write_folds(arguments.data, folder):
            for name, settings in ARMS.items():
                out = folder / f"{table.stem}-{name}"
                start = {"weights": str(arguments.run)} if name == "finetuned" else {}
                rk.train(table, out=out, **settings, **start)
                answers[name].append(right(out))
                recipes[name] = load(out).provenance["recipe"] | ({"weights": "RUN"} if start else {})
            frozen.append(stem_is_equal(arguments.run, out))
            print(
                table.stem, {name: f"{float(own[-1].float().mean()):.1%}" for name, own in answers.items()}, flush=True
            )
    rights = {name: torch.cat(own) for name, own in answers.items()}
    against = {name: paired(rights[name], rights["finetuned"]) for name in ("scratch", "untrained")}
    source = load(arguments.run).provenance["recipe"]
    begun = {key: source[key] for key in ("model", "epochs", "seed")}
    save(
        result
        | {
            "start": begun,
            "folds": FOLDS,
            "frozen_stem_equal": all(frozen),
            "finetuned_against": against,
            "recipes": recipes,
        }
    )
    for name, found in against.items():
        print(f"{name} {found['top1'][0]:.1%}, fine-tuned {found['top1'][1]:.1%}, p {found['p_value']:.2g}")


if __name__ == "__main__":
    main()
