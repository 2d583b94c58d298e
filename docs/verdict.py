"""What the notebook says of residual networks against what was measured: the rows of docs/verdict.md.

A row's verdict is counted from the findings that it names in a results file: true where all of them hold, false where
none does, else depends. A "!" before a finding stands for its opposite. Without the file it is not measured yet.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
UNMEASURED = "not measured yet"

# What the notebook says, the results file, the findings.
PROMISES: list[tuple[str, str, tuple[str, ...]]] = [
    (
        "Shortcuts cure vanishing gradients: without them, a deep network's vanish",
        "lab-gradients",
        ("plain_batch_norm_vanishes", "plain_default_vanishes", "!he_cures_plain"),
    ),
    (
        "Shortcuts keep gradients in bounds",
        "lab-gradients",
        ("shortcut_tames", "!residual_explodes"),
    ),
    (
        "Deeper plain networks train worse, deeper residual ones do not",
        "lab-degradation",
        ("plain_degrades", "residual_does_not"),
    ),
    ("Hundreds or even thousands of layers can be trained", "lab-depth", ("residual_trains",)),
    ("Without shortcuts they cannot", "lab-depth", ("plain_does_not",)),
    (
        "What lies behind it: many shallow paths, none of which is indispensable",
        "lab-ablate",
        ("residual_survives", "accuracy_falls_gradually", "order_matters_gradually", "paths_are_short"),
    ),
    ("A plain network needs every block", "lab-ablate", ("plain_collapses",)),
    ("Shortcuts smooth the loss", "lab-landscape", ("steeper_20", "steeper_56")),
]


def rows() -> list[tuple[str, str, str]]:
    """What the notebook says, our measurement, the verdict."""
    found = [(promise, *_judged(file, keys)) for promise, file, keys in PROMISES]
    found.append(("Superior on benchmarks, ImageNet included", *_or_unmeasured("published", _published)))
    found.append(("Flexible: detection and segmentation from the same backbone", UNMEASURED, UNMEASURED))
    found.append(("Complex for beginners", UNMEASURED, UNMEASURED))
    found.append(("Costly to compute", *_cost()))
    found.append(("Overfits", UNMEASURED, UNMEASURED))
    return found


def _judged(file: str, keys: tuple[str, ...]) -> tuple[str, str]:
    return _or_unmeasured(file, lambda result: _counted(result, file, keys))


def _or_unmeasured(file: str, judge: Callable[[dict[str, Any]], tuple[str, str]]) -> tuple[str, str]:
    path = ROOT / "results" / f"{file}.json"
    return judge(json.loads(path.read_text())) if path.exists() else (UNMEASURED, UNMEASURED)


def _counted(result: dict[str, Any], file: str, keys: tuple[str, ...]) -> tuple[str, str]:
    findings = {finding["key"]: finding for finding in result["findings"]}
    asked = [(findings[key.lstrip("!")], key.startswith("!")) for key in keys if key.lstrip("!") in findings]
    if not asked:
        return UNMEASURED, UNMEASURED
    words = "<br>".join(f"{finding['claim']}: {finding['verdict']}. {finding['says']}" for finding, _ in asked)
    bears = [None if finding["holds"] is None else finding["holds"] != opposite for finding, opposite in asked]
    verdict = "true" if all(bears) else "false" if not any(b is not False for b in bears) else "depends"
    return f"{words}<br>(`{result['command']}`, [results](../results/{file}.json))", verdict


def _published(result: dict[str, Any]) -> tuple[str, str]:
    shares = ", ".join(
        f"{row['taken_for']} {row['top1']:.2%}, published {row['published']:.2%}" for row in result["files"]
    )
    return f"Published checkpoints on CIFAR-10's test images: {shares}; ImageNet {UNMEASURED}", "depends"


def _cost() -> tuple[str, str]:
    golden = json.loads((ROOT / "tests/golden/family.json").read_text())
    own, paper = (golden[name]["macs"] / 1e9 for name in ("resnet34_notebook", "resnet34"))
    words = f"The notebook's network needs {own:.1f} GMACs an image of 224x224, ResNet-34 {paper:.2f}: it never strides"
    return f"{words} after its stem", "depends"
