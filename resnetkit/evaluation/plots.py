"""Pictures of a run and of an evaluation."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, PercentFormatter, StrMethodFormatter
from torch import Tensor

from resnetkit.atomic import write_atomically
from resnetkit.data.labels import indicators
from resnetkit.evaluation.metrics import Reliability
from resnetkit.evaluation.ranking import Ranking
from resnetkit.tasks.task import TITLES, figures_of

NAMED_CLASSES = 30  # more do not fit on the axes
DRAWN_CLASSES = 10  # more curves cannot be told apart
CORRUPTIONS = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
}


def draw_curves(epochs: list[dict[str, Any]], final: dict[str, Any], path: Path) -> None:
    """Loss, what the task is judged by and learning rate by epoch (lines of results.csv), with the final metrics as a
    star."""
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    loss, shares, rate = figure.subplots(1, 3)
    x = [epoch["epoch"] for epoch in epochs]
    parts = [key.removesuffix("_loss") for key in epochs[0] if key.endswith("_loss")]
    for part in parts:
        loss.plot(x, [epoch[f"{part}_loss"] for epoch in epochs], marker=".", label=part)
        for name in figures_of(epochs[0], part):
            label = part if name == "top1" else f"{part}: {TITLES[name]}"
            shares.plot(x, [epoch[f"{part}_{name}"] for epoch in epochs], marker=".", label=label)
    loss.plot(x[-1], final["loss"], "*", markersize=11, label=f"final {final['split']}")
    chosen = next(name for name in TITLES if name in final)
    shares.plot(x[-1], final[chosen], "*", markersize=11, label=f"final {final['split']}")
    rate.plot(x, [epoch["lr"] for epoch in epochs], marker=".", color="tab:gray")
    shares.yaxis.set_major_formatter(PercentFormatter(1.0))
    for axes, title in ((loss, "loss"), (shares, TITLES[chosen]), (rate, "learning rate")):
        axes.set(title=title, xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
    for axes in (loss, shares):
        axes.legend()
    _save(figure, path)


def draw_confusion(counts: Tensor, classes: list[str], title: str, path: Path) -> None:
    """The confusion matrix (true, predicted): colour is the share of the true class, the number is the count."""
    shares = counts / counts.sum(1, keepdim=True).clamp(min=1)
    named = len(classes) <= NAMED_CLASSES
    side = max(4.5, 0.42 * len(classes) + 2) if named else 9
    figure = Figure(figsize=(side * 1.12, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, format=PercentFormatter(1.0), shrink=0.8, label="share of the true class")
    axes.set(title=title, xlabel="predicted", ylabel="true")
    if named:
        shown = [_literal(name) for name in classes]
        axes.set_xticks(range(len(classes)), shown, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(classes)), shown)
        for (true, predicted), count in ((divmod(i, len(classes)), n) for i, n in enumerate(counts.flatten().tolist())):
            if count:
                colour = "white" if shares[true, predicted] > 0.5 else "black"
                axes.text(predicted, true, str(count), ha="center", va="center", color=colour, fontsize=8)
    _save(figure, path)


def draw_reliability(found: Reliability, counted: str, title: str, path: Path) -> None:
    """Accuracy by confidence against the diagonal of perfect calibration, and how many of what is `counted` each bin
    holds."""
    figure = Figure(figsize=(5, 5.4), layout="constrained")
    shares, counts = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    bins = len(found.n)
    left = [i / bins for i in range(bins)]
    bars = {"width": 1 / bins, "align": "edge", "edgecolor": "white"}
    shares.bar(left, found.accuracy.nan_to_num().tolist(), color="tab:blue", label="share right", **bars)
    shares.plot(found.confidence.tolist(), found.confidence.tolist(), ".", color="tab:orange", label="mean confidence")
    shares.plot([0, 1], [0, 1], "--", color="gray", linewidth=1)
    counts.bar(left, found.n.tolist(), color="tab:gray", **bars)
    shares.set(title=title, ylabel="accuracy", ylim=(0, 1))
    counts.set(xlabel="confidence", ylabel=counted, xlim=(0, 1))
    counts.xaxis.set_major_formatter(PercentFormatter(1.0))
    shares.yaxis.set_major_formatter(PercentFormatter(1.0))
    shares.legend()
    _save(figure, path)


def draw_ranking(probabilities: Tensor, labels: Tensor, per_class: list[dict[str, Any]], folder: Path) -> None:
    """precision_recall.png and roc.png of the classes with the least average precision, each against all others."""
    present = sorted((row["average_precision"], i) for i, row in enumerate(per_class) if row["roc_auc"] is not None)
    positive = indicators(labels, len(per_class))
    chosen = [(per_class[i], Ranking.of(probabilities[:, i], positive[:, i])) for _, i in present[:DRAWN_CLASSES]]
    which = f" (the {DRAWN_CLASSES} weakest classes)" if len(present) > DRAWN_CLASSES else ""
    figure, axes = _unit_square("recall", "precision", f"precision and recall{which}")
    for row, ranking in chosen:
        # The figure first: a label that begins with _ is left out of a legend.
        label = f"{row['average_precision']:.3f} {_literal(row['class'])}"
        axes.step(*ranking.precision_recall_curve(), where="pre", label=label)
    if chosen:
        axes.legend(title="average precision", fontsize=8)
    _save(figure, folder / "precision_recall.png")
    figure, axes = _unit_square("false positive rate", "true positive rate", f"ROC{which}")
    for row, ranking in chosen:
        axes.plot(*ranking.roc_curve(), label=f"{row['roc_auc']:.3f} {_literal(row['class'])}")
    if chosen:
        axes.legend(title="area", fontsize=8)
    _save(figure, folder / "roc.png")


def _literal(name: str) -> str:
    """For matplotlib, which takes what stands between two $ for mathematics."""
    return name.replace("$", r"\$")


def _unit_square(xlabel: str, ylabel: str, title: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(5.6, 5.2), layout="constrained")
    axes = figure.subplots()
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel, xlim=(0, 1), ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    return figure, axes


def draw_corruptions(found: dict[str, Any], split: str, path: Path) -> None:
    """top1 by severity with its interval, one curve a kind, from the clean images (severity 0) on."""
    figure = Figure(figsize=(13, 3.9), layout="constrained")
    panels = figure.subplots(1, len(CORRUPTIONS), sharey=True)
    for axes, (family, kinds) in zip(panels, CORRUPTIONS.items()):
        axes.axhline(found["clean_top1"], color="gray", linestyle="--", linewidth=1)
        for kind in kinds:
            rows = found["kinds"][kind]
            x = [row["severity"] for row in rows]
            low, high = zip(*[row["top1_interval"] for row in rows])
            label = kind.removesuffix("_noise").removesuffix("_blur").replace("_", " ")
            (line,) = axes.plot([0, *x], [found["clean_top1"], *(row["top1"] for row in rows)], marker=".", label=label)
            axes.fill_between(x, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
        axes.set(title=family, xlabel="severity", ylim=(0, 1.02))
        axes.set_xticks(range(6), ["clean", *range(1, 6)])
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    panels[0].set(ylabel="top-1")
    figure.suptitle(f"{split}: top-1 {found['clean_top1']:.2%} clean, {found['mean_top1']:.2%} corrupted, on average")
    _save(figure, path)


def draw_range_test(rates: list[float], losses: list[float], chosen: float, path: Path) -> None:
    """The loss of a learning-rate range test over its rates, and the rate that was chosen."""
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.plot(rates, losses)
    axes.axvline(chosen, color="tab:green", linestyle="--", label=f"chosen: {chosen:.2g}")
    axes.set(title="learning-rate range test", xlabel="learning rate", ylabel="loss, smoothed", xscale="log")
    axes.grid(alpha=0.3)
    axes.legend()
    _save(figure, path)


def draw_trials(rows: list[dict[str, Any]], best: int, logarithmic: dict[str, bool], path: Path) -> None:
    """The held-out accuracy of a search's trials by number and by each setting, whose axis may be logarithmic.

    `rows` have trial, outcome, top1 (None where it diverged) and the settings. What lies far below the complete trials
    is drawn at the lower edge.
    """
    panels = ["trial", *logarithmic]
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(4 * columns, 3 * lines), layout="constrained")
    grid = figure.subplots(lines, columns, sharey=True, squeeze=False).flatten()
    shown = [row for row in rows if row["top1"] is not None]
    complete = [row["top1"] for row in shown if row["outcome"] == "complete"]
    floor = min(complete) - max(0.01, 0.2 * (max(complete) - min(complete)))
    kinds = {
        "complete": [row for row in shown if row["outcome"] == "complete"],
        "given up": [row for row in shown if row["outcome"] == "pruned"],
        "best": [row for row in shown if row["trial"] == best],
    }
    styles: dict[str, dict[str, Any]] = {
        "complete": {"marker": "o", "color": "tab:blue"},
        "given up": {"marker": "o", "facecolor": "none", "edgecolor": "tab:gray"},
        "best": {"marker": "*", "color": "tab:orange", "s": 160, "zorder": 3},
    }
    for axes, name in zip(grid, panels):
        for kind, chosen in kinds.items():
            heights = [max(row["top1"], floor) for row in chosen]
            axes.scatter([row[name] for row in chosen], heights, label=kind, **styles[kind])
        axes.set(xlabel=name)
        if logarithmic.get(name):
            axes.set(xscale="log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
        axes.grid(alpha=0.3)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    if rows[0]["top1"] is not None:
        grid[0].axhline(rows[0]["top1"], color="tab:green", linestyle="--", linewidth=1, label="the recipe as it was")
    grid[0].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    for axes in grid[::columns]:
        axes.set_ylabel("top-1 on images held out")
    grid[0].yaxis.set_major_formatter(PercentFormatter(1.0))
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    write_atomically(path, lambda partial: figure.savefig(partial, dpi=120, format="png"))
