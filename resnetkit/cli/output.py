"""What verbs print: JSON for programs, sentences for people."""

import json
from typing import Annotated, Any

import typer

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else on standard output.")]

NAMES = {"top1": "top-1", "exact_match": "exact match"}
WEAKEST = 3  # classes named
SIGNIFICANT = 0.05


PIXELS = "imagenet, cifar10, kuangliu, caffe, tf, unit, raw, or mean=...,std=...,size=...,channels=bgr"

PreprocessingOption = Annotated[
    str | None,
    typer.Option(help=f"Of another library's checkpoint: {PIXELS},crop=... (left out: mean 0, std 1)."),
]

MaxBadOption = Annotated[
    float | None, typer.Option(min=0, max=1, help="Share of unreadable images left out [default: 0.1].")
]

WorkersOption = Annotated[
    int | None,
    typer.Option(min=0, help="Processes that decode photos [default: one a core, at most 4, with a GPU 16]."),
]

ProbeOption = Annotated[
    str | None,
    typer.Option(
        metavar="DATA",
        help="Images like those that a foreign checkpoint was trained on: settle what it does not tell.",
    ),
]


def print_json(value: dict[str, Any]) -> None:
    print(json.dumps(value), flush=True)


def describe_metrics(metrics: dict[str, Any]) -> str:
    if "exact_match" in metrics:
        return _describe_labels(metrics)
    five = f"top-5 {_in_short(metrics, 'top5')}, " if len(metrics["per_class"]) > 5 else ""
    return (
        f"{metrics['split']}: top-1 {_with_interval(metrics, 'top1')}, {five}"
        f"loss {metrics['loss']:.4f}, calibration error {_in_short(metrics, 'ece')}, "
        f"{metrics['n']:,} images"
    )


def describe_evaluation(figures: dict[str, Any]) -> str:
    lines = [describe_metrics(figures)]
    if "balanced_accuracy" in figures:
        lines.append(
            f"balanced accuracy {_with_interval(figures, 'balanced_accuracy')}, "
            f"macro F1 {_with_interval(figures, 'macro_f1')}"
        )
    if "ece_uncalibrated" in figures:
        lines.append(
            f"calibration error {figures['ece']:.2%} at the stored temperature {figures['temperature']:.3f}, "
            f"{figures['ece_uncalibrated']:.2%} without it"
        )
    ranked = sorted((row for row in figures["per_class"] if row["n"]), key=lambda row: row["recall"])
    weakest = ", ".join(f"{row['class']} {row['recall']:.1%} of {row['n']:,}" for row in ranked[:WEAKEST])
    lines.append(f"weakest classes: {weakest}")
    for kind, rows in figures["slices"].items():
        shares = ", ".join(f"{row['slice']} {_with_interval(row, _headline(row))} of {row['n']:,}" for row in rows)
        lines.append(f"by {kind}: {shares}")
    if "corruptions" in figures:
        lines += _corruption_table(figures["corruptions"])
    return "\n".join(lines)


def describe_probe(found: dict[str, Any]) -> str:
    """Candidates by their distance from the stored moments, the nearest first."""
    lines = ["distance from the stored moments at the first norm, by preprocessing:"]
    lines += [f"  {row['distance']:10.4g}  {row['preprocessing']}" for row in found["pixels"]]
    lines.append("distance from the stored moments at every norm:")
    for row in found["networks"]:
        words = "; ".join(f"{what} {word}" for what, word in row.items() if isinstance(word, str) and what != "images")
        top1 = f"  top-1 {row['top1']:6.1%}" if "top1" in row else ""
        lines.append(f"  {row['distance']:10.4g}{top1}  {words}")
    return "\n".join(lines)


def _corruption_table(found: dict[str, Any]) -> list[str]:
    """Kinds by rows, severities by columns."""
    shares = {kind: [row["top1"] for row in rows] for kind, rows in found["kinds"].items()}
    means = {kind: sum(values) / len(values) for kind, values in shares.items()}
    worst = min(means, key=lambda kind: means[kind])
    width = max(map(len, shares))
    severities = "".join(f"{row['severity']:>8}" for row in found["kinds"][worst])
    return [
        f"corrupted: mean top-1 {found['mean_top1']:.2%}, clean {found['clean_top1']:.2%}; "
        f"worst is {worst}, {means[worst]:.2%} on average",
        f"{'severity':<{width}}{severities}    mean",
        *(
            f"{kind:<{width}}{''.join(f'{value:8.1%}' for value in values)}{means[kind]:8.1%}"
            for kind, values in shares.items()
        ),
    ]


def describe_comparison(found: dict[str, Any], first: str, second: str) -> str:
    headline = _headline(found)
    sign = 1 if found["difference"] > 0 else -1
    better, worse = (first, second)[::-sign]
    low, high = sorted(100 * sign * end for end in found["difference_interval"])
    gap = f"{100 * abs(found['difference']):.2f} points (95 % interval {low:.2f} to {high:.2f})"
    chance = f"McNemar's exact test, p = {found['p_value']:.3g}"
    if found["p_value"] < SIGNIFICANT:
        verdict = f"{better} is better than {worse} by {gap}; chance alone hardly explains it ({chance})"
    else:
        verdict = f"neither is shown to be better: they differ by {gap}, which may be chance ({chance})"
    shares = [
        f"{name} {share:.2%} (95 % interval {low:.2%} to {high:.2%})"
        for name, share, (low, high) in zip((first, second), found[headline], found[f"{headline}_interval"])
    ]
    return (
        f"{found['split']}, {found['n']:,} images: {NAMES[headline]} {shares[0]}, {shares[1]}\n"
        f"only the first is right on {found['only_first_right']:,}, only the second on {found['only_second_right']:,}\n"
        f"{verdict}"
    )


def _describe_labels(metrics: dict[str, Any]) -> str:
    """Of images that may have several labels."""
    return (
        f"{metrics['split']}: mean average precision {_with_interval(metrics, 'map')}, "
        f"exact match {_with_interval(metrics, 'exact_match')}, micro F1 {_share(metrics['micro_f1'])}, "
        f"macro F1 {_share(metrics['macro_f1'])}, loss {metrics['loss']:.4f}, "
        f"calibration error {_in_short(metrics, 'ece')}, {metrics['n']:,} images"
    )


def _headline(figures: dict[str, Any]) -> str:
    """The share of images answered rightly."""
    return next(name for name in NAMES if name in figures)


def _share(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.2%}"


def _with_interval(figures: dict[str, Any], name: str) -> str:
    if figures[name] is None:
        return "undefined"
    low, high = figures[f"{name}_interval"]
    return f"{figures[name]:.2%} (95 % interval {low:.2%} to {high:.2%})"


def _in_short(figures: dict[str, Any], name: str) -> str:
    """A share and its interval in brackets, where it has one: of several labels the calibration error has none, nor has
    top-5 in earlier runs."""
    low_high = figures.get(f"{name}_interval")
    return f"{figures[name]:.2%}" + (" ({:.2%} to {:.2%})".format(*low_high) if low_high else "")
