"""Tables and plots of one evaluation."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from resnetkit.atomic import write_text
from resnetkit.data.parts import numbered_where_equal
from resnetkit.evaluation.answers import Answers
from resnetkit.evaluation.metrics import reliability
from resnetkit.tables import csv_text


def write_evaluation(
    tables: Path, plots: Path, names: Sequence[str], classes: list[str], answers: Answers, figures: dict[str, Any]
) -> None:
    """Write what `judge` found (`figures`, with `split`, and `slices` and `corruptions` if any) and every answer.

    Tables: predictions.csv with every image, mistakes.csv with the wrong ones, surest
    first (or of the largest loss, where images may have several labels), per_class.csv, reliability.csv, slices.csv,
    corruptions.csv, and of one label an image confusion_matrix.csv. Plots: confusion_matrix, reliability,
    precision_recall, roc and corruptions.
    """
    classes = numbered_where_equal(classes)  # a mistake between two of one name is one
    figures = figures | {"per_class": [row | {"class": name} for row, name in zip(figures["per_class"], classes)]}
    # Here, for training to begin without matplotlib.
    from resnetkit.evaluation.plots import draw_corruptions, draw_ranking, draw_reliability

    _write_answers(tables, names, classes, answers)
    if "confusion_matrix" in figures:
        _write_confusion(tables, plots, classes, figures)
    _write_rows(tables / "per_class.csv", figures["per_class"])
    found = reliability(*answers.decisions)
    bins = len(found.n)
    rows = [
        {"above": i / bins, "up_to": (i + 1) / bins, "n": int(n), "confidence": mean, "accuracy": share}
        for i, (n, mean, share) in enumerate(zip(found.n.tolist(), found.confidence.tolist(), found.accuracy.tolist()))
        if n
    ]
    _write_rows(tables / "reliability.csv", rows)
    sliced = [{"kind": kind} | row for kind, rows in figures.get("slices", {}).items() for row in rows]
    if sliced:
        _write_rows(tables / "slices.csv", sliced)
    if "corruptions" in figures:
        kinds = figures["corruptions"]["kinds"]
        _write_rows(tables / "corruptions.csv", [{"kind": kind} | row for kind, rows in kinds.items() for row in rows])
        draw_corruptions(figures["corruptions"], figures["split"], plots / "corruptions.png")
    title = f"{figures['split']}: calibration error {figures['ece']:.2%}"
    draw_reliability(found, answers.DECIDED, title, plots / "reliability.png")
    draw_ranking(answers.probabilities, answers.labels, figures["per_class"], plots)


def write_metrics(path: Path, figures: dict[str, Any]) -> None:
    """All figures; last of all, for with them an evaluation is whole."""
    write_text(path, json.dumps(figures, indent=2) + "\n")


def _write_confusion(tables: Path, plots: Path, classes: list[str], figures: dict[str, Any]) -> None:
    from resnetkit.evaluation.plots import draw_confusion

    confusion = figures["confusion_matrix"]
    write_text(
        tables / "confusion_matrix.csv",
        csv_text(("true", *classes), ((name, *row) for name, row in zip(classes, confusion))),
    )
    title = f"{figures['split']}: top-1 {figures['top1']:.2%} of {figures['n']:,}"
    draw_confusion(torch.tensor(confusion), classes, title, plots / "confusion_matrix.png")


def _write_answers(folder: Path, names: Sequence[str], classes: list[str], answers: Answers) -> None:
    rows = answers.table(names, classes)
    wrong = (row for row in rows if row["class"] != row["predicted"])
    mistakes = sorted(wrong, key=lambda row: -row[answers.WORST])
    for file, chosen in (("predictions.csv", rows), ("mistakes.csv", mistakes)):
        write_text(folder / file, csv_text(tuple(rows[0]), (tuple(row.values()) for row in chosen)))


def _write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Rows with equal keys; an interval becomes two columns, what is undefined an empty one."""
    flat = [_flat(row) for row in rows]
    write_text(path, csv_text(tuple(flat[0]), (tuple(row.values()) for row in flat)))


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in row.items():
        if key.endswith("_interval"):
            name = key.removesuffix("_interval")
            flat[f"{name}_low"], flat[f"{name}_high"] = value or (None, None)
        else:
            flat[key] = value
    return flat
