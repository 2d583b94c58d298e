"""Pictures of a run: curves and the confusion matrix."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from torch import Tensor

from resnetkit.atomic import write_atomically

NAMED_CLASSES = 30  # more do not fit on the axes


def draw_curves(epochs: list[dict[str, Any]], final: dict[str, Any], path: Path) -> None:
    """Loss, accuracy and learning rate by epoch (lines of results.csv), with the final metrics as a star."""
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    loss, accuracy, rate = figure.subplots(1, 3)
    x = [epoch["epoch"] for epoch in epochs]
    parts = [key.removesuffix("_loss") for key in epochs[0] if key.endswith("_loss")]
    for part in parts:
        loss.plot(x, [epoch[f"{part}_loss"] for epoch in epochs], marker=".", label=part)
        accuracy.plot(x, [epoch[f"{part}_top1"] for epoch in epochs], marker=".", label=part)
    loss.plot(x[-1], final["loss"], "*", markersize=11, label=f"final {final['split']}")
    accuracy.plot(x[-1], final["top1"], "*", markersize=11, label=f"final {final['split']}")
    rate.plot(x, [epoch["lr"] for epoch in epochs], marker=".", color="tab:gray")
    accuracy.yaxis.set_major_formatter(PercentFormatter(1.0))
    for axes, title in ((loss, "loss"), (accuracy, "top-1 accuracy"), (rate, "learning rate")):
        axes.set(title=title, xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    for axes in (loss, accuracy):
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
        axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(classes)), classes)
        for (true, predicted), count in ((divmod(i, len(classes)), n) for i, n in enumerate(counts.flatten().tolist())):
            if count:
                colour = "white" if shares[true, predicted] > 0.5 else "black"
                axes.text(predicted, true, str(count), ha="center", va="center", color=colour, fontsize=8)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    write_atomically(path, lambda partial: figure.savefig(partial, dpi=120, format="png"))
