"""What the notebook says of residual networks against what was measured: the rows of docs/verdict.md.

A row's verdict is counted from the findings that it names in a results file: true where all of them hold, false where
none does, "does not show" where the numbers decide none of them, else depends. A "!" before a finding stands for its
opposite. Without the file, or where it lacks one of the findings, it is not measured yet. Rows below PROMISES have no
findings; what each says of its figures stands in its function.
"""

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
UNMEASURED, OPEN = "not measured yet", "does not show"
THOUSAND = 1_000  # layers, of the promise of "hundreds or even thousands"

THOUSANDS = "Hundreds or even thousands of layers can be trained"
WITHOUT = "Without shortcuts they cannot"

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
        ("plain_degrades", "residual_does_not", "depth_costs_residual_less"),
    ),
    (THOUSANDS, "lab-depth", ("residual_trains",)),
    (WITHOUT, "lab-depth", ("plain_does_not",)),
    (
        "What lies behind it: many shallow paths, none of which is indispensable",
        "lab-ablate",
        ("residual_survives", "accuracy_falls_gradually", "order_matters_gradually", "paths_are_short"),
    ),
    ("A plain network needs every block", "lab-ablate-twin", ("plain_collapses",)),
    ("Shortcuts smooth the loss", "lab-landscape", ("steeper_20", "steeper_56")),
]


def rows() -> list[tuple[str, str, str]]:
    """What the notebook says, our measurement, the verdict."""
    found = [(promise, *_judged(promise, file, keys)) for promise, file, keys in PROMISES]
    found.append(("Superior on benchmarks, ImageNet included", *_published(_result("published"))))
    found.append(("Flexible: detection and segmentation from the same backbone", UNMEASURED, UNMEASURED))
    found.append(("Complex for beginners", UNMEASURED, UNMEASURED))
    found.append(("Costly to compute", *_cost()))
    found.append(("Overfits", *_overfits()))
    return found


def _result(file: str) -> dict[str, Any] | None:
    path = ROOT / "results" / f"{file}.json"
    return json.loads(path.read_text()) if path.exists() else None


def _judged(promise: str, file: str, keys: tuple[str, ...]) -> tuple[str, str]:
    result = _result(file)
    if result is None or (promise in (THOUSANDS, WITHOUT) and max(result["settings"]["depths"]) < THOUSAND):
        return UNMEASURED, UNMEASURED
    return counted(result, file, keys)


def counted(result: dict[str, Any], file: str, keys: tuple[str, ...]) -> tuple[str, str]:
    """The findings in words, and what they say together."""
    findings = {finding["key"]: finding for finding in result["findings"]}
    if any(key.lstrip("!") not in findings for key in keys):
        return UNMEASURED, UNMEASURED
    asked = [(findings[key.lstrip("!")], key.startswith("!")) for key in keys]
    words = "<br>".join(f"{finding['claim']}: {finding['verdict']}. {finding['says']}" for finding, _ in asked)
    bears = {None if finding["holds"] is None else finding["holds"] != opposite for finding, opposite in asked}
    verdict = {(True,): "true", (False,): "false", (None,): OPEN}.get(tuple(bears), "depends")
    return f"{words}<br>(`{result['command']}`, [results](../results/{file}.json))", verdict


def _published(result: dict[str, Any] | None) -> tuple[str, str]:
    """That checkpoints give their published numbers here says that they are read rightly, not more."""
    if result is None:
        return UNMEASURED, UNMEASURED
    shares = ", ".join(
        f"{row['taken_for']} {row['top1']:.2%}, published {row['published']:.2%}" for row in result["files"]
    )
    words = f"Published checkpoints on CIFAR-10's test images: {shares}; ImageNet and other networks {UNMEASURED}."
    return f"{words}<br>([results](../results/published.json))", UNMEASURED


def _overfits() -> tuple[str, str]:
    """It depends on regularisation, where that helps by more than the seeds differ."""
    found = _result("flowers-resnet18"), _result("flowers-resnet18-unregularised")
    runs = [r for r in found if r and len(r["seeds"]) == r.get("seeds_planned", len(r["seeds"]))]
    if len(runs) < len(found):
        return UNMEASURED, UNMEASURED
    told = [f"{r['top1_mean']:.1%} ({' to '.join(f'{end:.1%}' for end in r['top1_mean_interval'])})" for r in runs]
    words = (
        f"Trained from scratch on 400 photos, ResNet-18 answers {told[0]} of the test photos rightly with the recipe "
        f"that is the default, {told[1]} with augmentation, label smoothing and weight decay off; "
        f"{len(runs[0]['seeds'])} seeds each."
    )
    files = ", ".join(f"[{r['id']}](../results/{r['id']}.json)" for r in runs)
    helps = runs[0]["top1_mean_interval"][0] > runs[1]["top1_mean_interval"][1]
    return f"{words}<br>({files})", "depends" if helps else OPEN


def _cost() -> tuple[str, str]:
    """Arithmetic, and said to be."""
    golden = json.loads((ROOT / "tests/golden/family.json").read_text())
    own, paper = (golden[name]["macs"] / 1e9 for name in ("resnet34_notebook", "resnet34"))
    words = f"The notebook's network needs {own:.1f} GMACs an image of 224x224, ResNet-34 {paper:.2f}: it never strides"
    return (
        f"{words} after its stem.<br>(Counted from the plans, not timed: `tests/golden/family.json`)",
        "not timed yet",
    )
