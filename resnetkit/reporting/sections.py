"""The sections of the page: each takes what it shows from the record, or is None where the run has no such data."""

import shlex
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import file_digest
from itertools import pairwise
from pathlib import Path
from typing import Any

from resnetkit.architecture.summary import measure, repeated
from resnetkit.reporting import judgement, outcome
from resnetkit.reporting.album import Album, Picture
from resnetkit.reporting.charts import line_chart
from resnetkit.reporting.record import Answered, Listed, Record, compiled
from resnetkit.reporting.wording import count
from resnetkit.tasks.task import TITLES, figures_of

LINES = 100  # of bad files and groups of copies; the rest is counted
COPIES = 20  # of a group
FRAMED_A_CLASS, FRAMED = 3, 36
WORST = 24
MATRIX_CLASSES = 30  # more do not fit across a page; the commonest mistakes are listed instead
LISTED_PAIRS = 40
PHOTOS_A_PAIR, PAIR_PHOTOS = 5, 240
LARGE, SMALL = 176, 104  # pixels a side of a picture

Facts = dict[str, Any] | None


@dataclass(frozen=True)
class Section:
    """`key` is its anchor and the name of its template, which shows `facts`."""

    key: str
    title: str
    facts: dict[str, Any]


def sections(run: Record, album: Album) -> list[Section]:
    """Those that the run has data for, in the order of the page."""
    made = [(key, title, make(run, album)) for key, (title, make) in SECTIONS.items()]
    return [Section(key, title, facts) for key, title, facts in made if facts is not None]


def _advice(run: Record, album: Album) -> Facts:
    return {"findings": judgement.findings(run), "watched": any(part in run.parts for part in ("holdout", "val"))}


def _data(run: Record, album: Album) -> Facts:
    counts = Counter((label, image.part) for image in run.images for label in run.classes_of(image.label))
    groups = judgement.copies(run)
    across = [group for group in groups if len({image.part for image in group}) > 1]
    contradictory = [group for group in groups if len({image.label for image in group}) > 1]
    return {
        "rows": [(label, [counts[label, part] for part in run.parts]) for label in run.classes],
        "bad": run.bad[:LINES],
        "bad_beyond": max(0, len(run.bad) - LINES),
        "check": shlex.join(["resnet", "data", "check", run.command["data"]]),
        "copies": sum(len(group) - 1 for group in groups),
        "lists": [
            ("The same image in several parts", [_some(group) for group in across[:LINES]], len(across)),
            (
                "The same image in several classes",
                [_some(group) for group in contradictory[:LINES]],
                len(contradictory),
            ),
        ],
    }


def _some(group: list[Listed]) -> tuple[list[Listed], int]:
    """Of equal images one of each part and class, then others, COPIES in all; and how many more there are."""
    first: dict[tuple[str, str], Listed] = {}
    for image in group:
        first.setdefault((image.part, image.label), image)
    shown = [*first.values(), *(image for image in group if first[image.part, image.label] is not image)]
    return shown[:COPIES], max(0, len(group) - COPIES)


def _framing(run: Record, album: Album) -> Facts:
    by_class: dict[str, list[str]] = {}
    for image in run.images:
        for label in run.classes_of(image.label):
            by_class.setdefault(label, []).append(image.path)
    each = max(1, min(FRAMED_A_CLASS, FRAMED // len(run.classes)))
    chosen = [(label, path) for label in run.classes[:FRAMED] for path in by_class.get(label, [])[:each]]
    seen = [(label, path, album.thumbnail(path, SMALL), album.framed(path, SMALL)) for label, path in chosen]
    there = [(label, path, whole, framed) for label, path, whole, framed in seen if whole and framed]
    same = all(
        (whole.tiny, whole.width, whole.height) == (True, framed.width, framed.height) for _, _, whole, framed in there
    )
    return {"seen": there, "changed": not same}


def _curves(run: Record, album: Album) -> Facts:
    if not run.epochs:
        return None
    parts = [key.removesuffix("_loss") for key in run.epochs[0] if key.endswith("_loss")]
    losses = {part: [epoch[f"{part}_loss"] for epoch in run.epochs] for part in parts}
    figures = {part: figures_of(run.epochs[0], part) for part in parts}
    final = run.metrics or {}
    shares = []
    for figure, title in TITLES.items():
        lines = {part: [epoch[f"{part}_{figure}"] for epoch in run.epochs] for part in parts if figure in figures[part]}
        if lines:
            shares.append(line_chart(title[0].upper() + title[1:], lines, share=True, final=final.get(figure)))
    return {
        "charts": [
            line_chart("Loss", losses, may_leap=True, final=final.get("loss")),
            *shares,
            line_chart("Learning rate", {"rate": [epoch["lr"] for epoch in run.epochs]}),
        ],
        "parts": parts,
        "columns": [(part, figure, TITLES[figure]) for part in parts for figure in figures[part]],
        "mixed": any(run.recipe.get(name) for name in ("mixup", "cutmix")),
        "pruned": run.recipe.get("prune_easy"),
    }


def _mistakes(run: Record, album: Album) -> Facts:
    if not run.answers:
        return None
    wrong = [answer for answer in run.answers if not answer.right]
    wrong.sort(key=lambda answer: answer.probability if answer.loss is None else answer.loss, reverse=True)
    return {"n": len(wrong), "worst": _pictured(wrong[:WORST], album, LARGE)}


def _pictured(answers: Iterable[Answered], album: Album, side: int) -> list[tuple[Answered, Picture | None]]:
    return [(answer, album.thumbnail(answer.path, side)) for answer in answers]


def _confusion(run: Record, album: Album) -> Facts:
    if not run.answers or run.multilabel:
        return None
    held = outcome.pairs(run.answers, run.classes)
    matrix = None
    if len(run.classes) <= MATRIX_CLASSES:
        cells = {(pair.true, pair.predicted): pair for pair in held}
        matrix = [[cells.get((i, j)) for j in range(len(run.classes))] for i in range(len(run.classes))]
    else:
        wrong = [pair for pair in held if not pair.right]
        held = sorted(wrong, key=lambda pair: -len(pair.answers))[:LISTED_PAIRS]
    each = max(1, min(PHOTOS_A_PAIR, PAIR_PHOTOS // max(1, len(held))))
    return {
        "matrix": matrix,
        "pairs": [(pair, _pictured(pair.answers[:each], album, SMALL)) for pair in held],
        "limit": MATRIX_CLASSES,
    }


def _classes(run: Record, album: Album) -> Facts:
    if not run.answers or run.multilabel:
        return None
    return {"outcomes": outcome.by_class(run.answers, run.classes)}


def _labels(run: Record, album: Album) -> Facts:
    return {"rows": run.metrics["per_class"]} if run.metrics and run.multilabel else None


def _slices(run: Record, album: Album) -> Facts:
    kinds = (run.metrics or {}).get("slices")
    return {"kinds": kinds, "figure": "exact_match" if run.multilabel else "top1"} if kinds else None


def _calibration(run: Record, album: Album) -> Facts:
    if not run.answers or not run.metrics:
        return None
    bins = outcome.listed(run.reliability) if run.multilabel else outcome.calibration(run.answers)
    decisions = sum(found.n for found in bins)
    return {
        "bins": bins,
        "most": max(found.n for found in bins),
        "what": "Label decisions" if run.multilabel else "Images",
        "confidence": sum(found.n * found.confidence for found in bins) / decisions,
        "right": sum(found.n * found.accuracy for found in bins) / decisions,
        "temperature": run.metrics["temperature"] if "ece_uncalibrated" in run.metrics else None,
    }


def _network(run: Record, album: Album) -> Facts:
    if run.model is None:
        return None
    parts = measure(run.model.network)
    return {
        "rows": [(same[0], len(same)) for same in repeated(parts)],
        "size": run.model.network.image_size,
        "parameters": sum(part.parameters for part in parts),
        "macs": sum(part.macs for part in parts),
        "activation_bytes": sum(part.activation_bytes for part in parts),
    }


def _provenance(run: Record, album: Album) -> Facts:
    environment, facts = run.environment, {}
    facts["Data"] = run.command["data"]
    if run.model:
        facts["Split"] = f"hash {run.model.provenance['split_hash']}, of every image's name, class, part and content"
        facts["Model file"] = f"sha256 {_sha256(run.folder / 'model.safetensors')}"
        facts["Steps"] = f"{run.model.provenance['steps']:,}"
    facts |= _times(run)
    facts["Source"] = f"commit {environment['commit']}"
    facts["Python"] = environment["python"]
    facts["Packages"] = ", ".join(f"{name} {version}" for name, version in environment["packages"].items())
    facts["Machine"] = (
        f"{environment['processor']}, {count(environment['threads'], 'thread')}, {environment['platform']}"
    )
    facts["Device"] = run.command["device"] + (f" ({gpu})" if (gpu := environment.get("gpu")) else "")
    return {"facts": facts}


def _times(run: Record) -> dict[str, str]:
    """When it began, and how long it took without the pauses before it was resumed, as far as its log tells them."""
    events = [(event["event"], datetime.fromisoformat(event["time"])) for event in run.events]
    began, ended = (next((time for event, time in events if event == name), None) for name in ("started", "finished"))
    facts = {}
    if began is not None:
        facts["Begun"] = f"{began:%Y-%m-%d %H:%M} UTC"
        if ended is not None:
            resumed = [(last, later) for (_, last), (event, later) in pairwise(events) if event == "resumed"]
            pauses = (later - last for last, later in resumed if later <= ended)
            facts["Took"] = f"{ended - began - sum(pauses, timedelta())} (hours, minutes, seconds)"
    return facts


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _reproduce(run: Record, album: Album) -> Facts:
    argv = run.command["argv"]
    folder = str(run.folder)
    again = ["resnet", "train", run.command["data"], "--recipe", str(run.folder / "recipe.toml")]
    if (memory := run.command.get("memory", "plain")) != "plain":
        again += ["--memory", memory]
    again += ["--max-bad", f"{run.command['max_bad']:g}", "--device", run.command["device"]]
    if (how := compiled(run.command)) != "off":
        again += ["--compile", how]
    again += ["--out", f"{folder}-again"]
    return {
        "typed": shlex.join(["resnet", *argv[1:]]) if Path(argv[0]).name == "resnet" else None,
        "commands": [
            ("Train it again, with every setting as it was", shlex.join(again)),
            ("Measure it again, on the same images", shlex.join(["resnet", "evaluate", folder])),
            ("Make this page again", shlex.join(["resnet", "report", folder])),
        ],
    }


SECTIONS: dict[str, tuple[str, Callable[[Record, Album], Facts]]] = {
    "advice": ("What to do next", _advice),
    "data": ("Data", _data),
    "framing": ("What the network sees", _framing),
    "curves": ("Curves", _curves),
    "mistakes": ("Worst mistakes", _mistakes),
    "confusion": ("Confusion matrix", _confusion),
    "classes": ("Class by class", _classes),
    "labels": ("Class by class", _labels),
    "slices": ("By kind of image", _slices),
    "calibration": ("Calibration", _calibration),
    "network": ("Network", _network),
    "provenance": ("Provenance", _provenance),
    "reproduce": ("Reproduce", _reproduce),
}
