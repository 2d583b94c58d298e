"""How far the probabilities of trained runs can be believed: calibration error with and without their temperature, and
how often their conformal sets hold the truth.

python benchmarks/calibration.py RUN...

The runs differ in their seed and were trained with a holdout, which fitted the temperature and the thresholds; measured
on their test part. The holdout is the same for every seed.
"""

import argparse
import json
from pathlib import Path
from statistics import mean

from answers import own_answers
from record import header, save

from resnetkit.evaluation.intervals import wilson_interval
from resnetkit.evaluation.metrics import expected_calibration_error
from resnetkit.weights.load import load

COVERAGES = (0.8, 0.9, 0.95, 0.99)


def measure(run: Path) -> dict:
    model = load(run)
    answers = own_answers(run, model)
    raw, calibrated = answers.logits.double().softmax(1), model.calibration.probabilities(answers.logits)
    n = len(answers.labels)
    of_truth = calibrated.gather(1, answers.labels[:, None])[:, 0]
    sets = {}
    for coverage in COVERAGES:
        threshold = model.calibration.set_threshold(coverage)
        held = int((of_truth >= threshold).sum())
        size = float((calibrated >= threshold).sum(1).double().mean())
        sets[str(coverage)] = {"share": held / n, "share_interval": wilson_interval(held, n), "mean_size": size}
    return {
        "seed": model.provenance["recipe"]["seed"],
        "temperature": model.calibration.temperature,
        "calibrated_on": model.calibration.n,
        "n": n,
        "top1": float((raw.argmax(1) == answers.labels).double().mean()),
        "answers_changed": int((raw.argmax(1) != calibrated.argmax(1)).sum()),
        "ece_uncalibrated": expected_calibration_error(raw, answers.labels),
        "ece": expected_calibration_error(calibrated, answers.labels),
        "sets": sets,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    folders = parser.parse_args().runs
    told = [load(folder).provenance for folder in folders]
    seeds = [provenance["recipe"].pop("seed") for provenance in told]
    if any(provenance["recipe"] != told[0]["recipe"] for provenance in told) or len(set(seeds)) < len(seeds):
        parser.error("the runs must be of one recipe and of different seeds")
    argv = json.loads((folders[0] / "command.json").read_text())["argv"]
    command = " ".join(["resnet", *(Path(word).name if "/" in word else word for word in argv[1:])])
    runs = [measure(folder) for folder in folders]
    result = header("calibration", command, seeds) | {
        "trained_at": [json.loads((folder / "environment.json").read_text())["commit"] for folder in folders],
        "ece_mean": mean(run["ece"] for run in runs),
        "share_mean": {str(c): mean(run["sets"][str(c)]["share"] for run in runs) for c in COVERAGES},
        "runs": runs,
    }
    save(result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
