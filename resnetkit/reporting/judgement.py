"""What the figures of a run mean, and what to do next: plain rules, each with its threshold."""

from collections import Counter
from dataclasses import dataclass, field
from shlex import quote
from statistics import fmean
from typing import Any

from resnetkit.data.preprocess import COLOURS
from resnetkit.evaluation.intervals import wilson_interval
from resnetkit.reporting.record import Listed, Record, compiled
from resnetkit.reporting.wording import count, percent

GAP = 0.10  # of top-1: training this far above held-out images is memory, not skill
KNOWN = 0.90  # of the training images: with fewer of them right at the end there is more to learn from the same ones
SHORT = 10_000  # steps; CIFAR-10 takes 64,000 in He et al. 2015
RISE = 1.05  # of the held-out loss over its lowest: more than epochs differ by chance
LEARNT_FROM = ("train", "holdout")  # weights, and which epoch's weights
WIDE = 0.10  # of top-1: an interval wider than this hides most differences between runs

# What keeps a network from learning images by heart: setting, its value when off, a value to try, what it does.
CURES = (
    ("policy", "none", "trivial", "each image is recoloured or bent a little, anew in every epoch"),
    ("min_scale", 1.0, "0.35", "each photo is cropped anew in every epoch"),  # photos only
    ("erasing", 0.0, "0.25", "a box is blanked out of a quarter of the images"),
    ("mixup", 0.0, "0.2", "images are blended in pairs, and so are their labels"),
    ("label_smoothing", 0.0, "0.1", "full certainty is not rewarded"),
    ("drop_path_rate", 0.0, "0.1", "blocks are skipped at random"),
)


@dataclass(frozen=True)
class Finding:
    """A thing to know before trusting or repeating the run; `cures` are pairs of what to type and what it does."""

    title: str
    text: str
    cures: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Verdict:
    """`right` of the tested images; always answering `commonest`, the class that most of them are of, would get the
    share `baseline`."""

    right: int
    commonest: str
    baseline: float


def verdict(run: Record) -> Verdict | None:
    """None where there is no one class to answer always."""
    if not run.answers or run.multilabel:
        return None
    label, most = Counter(answer.label for answer in run.answers).most_common(1)[0]
    return Verdict(sum(answer.right for answer in run.answers), label, most / len(run.answers))


def findings(run: Record) -> list[Finding]:
    """What stands out, the gravest first."""
    rules = (_unfinished, _copies, _baseline, _overfitting, _underfitting, _interval, _certainty, _calibrated_since)
    return [finding for rule in rules if (finding := rule(run))]


def copies(run: Record) -> list[list[Listed]]:
    """Groups of byte-identical images."""
    groups: dict[str, list[Listed]] = {}
    for image in run.images:
        groups.setdefault(image.hash, []).append(image)
    return [group for group in groups.values() if len(group) > 1]


def _unfinished(run: Record) -> Finding | None:
    if run.metrics:
        return None
    done, wanted = len(run.epochs), run.recipe["epochs"]
    if run.events and run.events[-1]["event"] == "diverged":  # and would again, step by step the same
        slower = (f"--lr {run.recipe['lr'] / 5:.3g}", "smaller steps")
        warmer = (f"--set warmup_epochs={run.recipe.get('warmup_epochs', 0) + 2:g}", "smaller steps at the beginning")
        cures = [slower] if run.recipe.get("schedule") == "one_cycle" else [slower, warmer]  # which warms up by itself
        return Finding("It diverged.", f"After {done} of {wanted} epochs the loss, or an answer, was no number.", cures)
    cure = (f"resnet train --resume {quote(str(run.folder))}", "goes on where it stopped")
    return Finding("It is not finished.", f"{done} of {wanted} epochs are done, and nothing is tested.", [cure])


def _copies(run: Record) -> Finding | None:
    if not run.metrics:
        return None
    tested = run.metrics["split"]
    learnt = {*LEARNT_FROM} - {tested}
    leaked = [group for group in copies(run) if learnt & {image.part for image in group}]
    n = sum(image.part == tested for group in leaked for image in group)
    if not n:
        return None
    lie, test = ("lies", "tests") if n == 1 else ("lie", "test")
    text = (
        f"{count(n, 'tested image')} {lie} among those it was trained or chosen on too, byte for byte, and {test} "
        "nothing. Keep each image in one part and train again; the figure may fall."
    )
    return Finding("The test is not clean.", text)


def _baseline(run: Record) -> Finding | None:
    reached = verdict(run)
    if run.multilabel:
        return _chance(run)
    if not reached or not run.metrics:
        return None
    slower = (f"--lr {run.recipe['lr'] / 5:.3g}", "smaller steps, where the loss leapt about")
    longer = _longer(run, "more time, where it was still falling")
    given = {answer.predicted for answer in run.answers}
    if len(given) == 1 and reached.baseline < 1:
        return Finding("It has not learnt.", f"It answers “{given.pop()}” to every image.", [slower, longer])
    if run.metrics["top1_interval"][0] <= reached.baseline:
        text = (
            f"Always answering “{reached.commonest}” would be right {percent(reached.baseline)} of the time, "
            "which its interval does not exclude."
        )
        return Finding("It is not shown to be better than a constant answer.", text, [slower, longer])
    return None


def chance(run: Record) -> float | None:
    """The mean average precision that a random order of the images would get, in the mean over all orders."""
    counts = [row["n"] for row in run.metrics["per_class"] if row["n"]] if run.metrics else []
    if not run.metrics or not counts:
        return None
    n = run.metrics["n"]
    harmonic = sum(1 / rank for rank in range(1, n + 1))
    return fmean(_random_precision(count, n, harmonic) for count in counts)


def _random_precision(positives: int, n: int, harmonic: float) -> float:
    """The mean of the average precision over all orders of n images, `harmonic` being the sum of 1 / rank: where a
    positive has rank k, 1 + (k - 1) (positives - 1) / (n - 1) of the first k are expected to be positive."""
    others = (positives - 1) / (n - 1) if n > 1 else 0.0
    return others + (1 - others) * harmonic / n


def _chance(run: Record) -> Finding | None:
    by_chance = chance(run)
    if by_chance is None or not run.metrics or run.metrics["map_interval"][0] > by_chance:
        return None
    text = f"Chance alone would rank its images with {percent(by_chance)}, which its interval does not exclude."
    longer = _longer(run, "more time, where the loss was still falling")
    return Finding("It is not shown to be better than chance.", text, [longer])


def watched(run: Record) -> str | None:
    """The held-out part that was measured after every epoch."""
    last = run.epochs[-1] if run.epochs else {}
    return next((name for name in ("holdout", "val") if f"{name}_loss" in last), None)


def _overfitting(run: Record) -> Finding | None:
    """Training above held-out images at the end, by more than chance; the graver where the held-out loss has risen.
    Where images have several labels only the losses can be compared."""
    if not run.epochs or not run.metrics:
        return None
    if run.multilabel:
        return _risen(run, "", _regularisation(run))
    last, (top1, n) = run.epochs[-1], _held_out(run)
    if last["train_top1"] - top1 < GAP or last["train_top1"] < wilson_interval(round(top1 * n), n)[1]:
        return None
    figures = (
        f"At the end {percent(last['train_top1'])} of the training images were right and {percent(top1)} of those "
        "held out. More images of the classes it mistakes help most; next to that:"
    )
    better = Finding("It does better on its training images.", figures, _regularisation(run))
    return _risen(run, figures, better.cures) or better


def _underfitting(run: Record) -> Finding | None:
    """A short training that was not given up, at whose end many training images are wrong, and about as many of those
    held out. Images that are mixed, and an epoch of the hard ones alone, do not say how many are; with a holdout the
    network may be that of an earlier epoch."""
    blind = run.multilabel or any(run.recipe.get(name) for name in ("mixup", "cutmix", "prune_easy", "holdout"))
    if not run.epochs or not run.metrics or not run.model or blind or _baseline(run) or _risen(run, "", []):
        return None
    steps = run.model.provenance.get("steps", SHORT)
    if steps >= SHORT or len(run.epochs) < run.recipe["epochs"]:
        return None
    reached, (held, n) = run.epochs[-1]["train_top1"], _held_out(run)
    if reached >= min(KNOWN, held + GAP) or wilson_interval(round(held * n), n)[1] >= KNOWN:
        return None
    text = (
        f"In {steps:,} steps, which are few, it came to {percent(reached)} of the training images, as training shows "
        f"them, and {percent(held)} of those held out: there is more to learn from the same images."
    )
    return Finding("It was trained for a short time.", text, [_longer(run, "more time"), *_better_start(run)])


def _held_out(run: Record) -> tuple[float, int]:
    """The share of images that are right at the end, and of how many, where training did not look."""
    assert run.metrics
    part = watched(run)
    return (run.epochs[-1][f"{part}_top1"], run.parts[part]) if part else (run.metrics["top1"], run.metrics["n"])


def _longer(run: Record, does: str) -> tuple[str, str]:
    return f"--epochs {3 * run.recipe['epochs']}", does


def _risen(run: Record, figures: str, cures: list[tuple[str, str]]) -> Finding | None:
    """Where the held-out loss is above its lowest at the end."""
    part = watched(run)
    losses = [epoch[f"{part}_loss"] for epoch in run.epochs] if part else [0.0]
    lowest = losses.index(min(losses))
    if losses[-1] <= RISE * losses[lowest]:
        return None
    rise = (
        f"From epoch {lowest + 1} on the held-out loss rose from {losses[lowest]:.3g} to {losses[-1]:.3g}: "
        "what it learnt after that holds for the training images alone."
    )
    return Finding("It overfits.", f"{rise} {figures}".strip(), [*cures, *_stopping(run.recipe, lowest + 1)])


def _regularisation(run: Record) -> list[tuple[str, str]]:
    """Three cures that the run did without, and a better start."""
    off = [
        (f"--set {name}={value}", does)
        for name, unused, value, does in CURES
        if run.recipe.get(name, unused) == unused
        and (name != "min_scale" or run.preprocessing.framing == "crop")
        and (name != "policy" or run.preprocessing.channels in COLOURS)
        and (name != "mixup" or not run.recipe.get("prune_easy"))
        and (name != "drop_path_rate" or _may_skip_blocks(run))
    ]
    return off[:3] + _better_start(run)


def _may_skip_blocks(run: Record) -> bool:
    plain = run.model is not None and run.model.network.spec.shortcut == "none"
    return not plain and compiled(run.command) == "off"


def _better_start(run: Record) -> list[tuple[str, str]]:
    return [] if run.recipe.get("weights") else [("--weights MODEL", "starts from a network that has seen more images")]


def _stopping(recipe: dict[str, Any], epoch: int) -> list[tuple[str, str]]:
    if recipe.get("holdout"):  # the best epoch is kept already
        return []
    return [
        (f"--epochs {epoch}", "ends about where the held-out loss was lowest"),
        ("--set holdout=0.1", "sets training images apart, and keeps the epoch that is best on them"),
    ]


def _interval(run: Record) -> Finding | None:
    if not run.metrics or not (ends := run.metrics[f"{run.task.CHOOSING}_interval"]):
        return None
    low, high = ends
    if high - low <= WIDE:
        return None
    text = (
        f"With {count(run.metrics['n'], 'image')} tested, the true figure may lie anywhere in "
        f"{(high - low) * 100:.0f} points; runs closer than that are hard to tell apart. Four times as many test "
        "images halve it."
    )
    return Finding("The figure is rough.", text)


def _calibrated_since(run: Record) -> Finding | None:
    """Where the model's temperature or thresholds are others than when its figures were taken."""
    if not run.model or not run.metrics:
        return None
    now = run.model.calibration
    decided = [row["threshold"] for row in run.metrics["per_class"]] if run.multilabel else []
    same = not decided or decided == list(now.thresholds_for(len(decided), None, None)["thresholds"])
    if same and now.temperature == run.metrics.get("temperature", 1.0):
        return None
    text = "Probabilities, and what follows from them, are on this page what they were before."
    measure = (f"resnet evaluate {quote(str(run.folder))}", "measures what it says now")
    return Finding("It was calibrated anew after its test.", text, [measure])


def _certainty(run: Record) -> Finding | None:
    """Mean probability outside the interval of top-1. The calibration error will not do: chance makes it above 0."""
    if not run.metrics or not run.answers or run.multilabel or _calibrated_since(run):
        return None
    low, high = run.metrics["top1_interval"]
    sure = sum(answer.probability for answer in run.answers) / len(run.answers)
    if low <= sure <= high:
        return None
    text = (
        f"It gives its answers {percent(sure)} on average and is right {percent(run.metrics['top1'])} of the time. "
        "Rank by its probabilities; do not read them as chances."
    )
    typed = f"resnet evaluate {quote(str(run.folder))} --calibrate IMAGES"
    fit = (typed, "sets its probabilities right on images held out for it")
    return Finding("It is too sure." if sure > high else "It is too doubtful.", text, [fit])
