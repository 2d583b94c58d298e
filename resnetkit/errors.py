"""Errors that are the user's to mend: one line each, and the exit code the command gives for them."""

import difflib
from collections.abc import Iterable
from errno import EDQUOT, EFBIG, EIO, EMFILE, ENFILE, ENOMEM, ENOSPC, ESTALE, ETIMEDOUT
from math import inf
from numbers import Integral, Real
from typing import Any

FULL = (ENOSPC, EDQUOT)
# What the machine lacks; all else is a path's fault. A write that was cut short has no number.
GAVE_OUT = (*FULL, EFBIG, EIO, ENOMEM, EMFILE, ENFILE, ESTALE, ETIMEDOUT, None)


class ResnetkitError(ValueError):
    """A mistake in what was asked or given; the message names the thing and the cure."""

    exit_code = 2


class TooManyBadImages(ResnetkitError):
    """More images could not be read than `max_bad` tolerates."""

    exit_code = 3


class ModelFileRefused(ResnetkitError):
    """A model file or checkpoint that is not what it claims to be."""

    exit_code = 4


class ResourceExhausted(ResnetkitError):
    """The disk, or another resource of the machine, gave out."""

    exit_code = 5


class Diverged(ResnetkitError):
    """A loss in training, or what a network answers, is not a number."""

    exit_code = 6


class Interrupted(ResnetkitError):
    """Training was told to stop and has saved itself; `--resume` goes on."""

    exit_code = 75


def refused(what: object, error: OSError, cure: str = "", *, full: str = "free some space") -> ResnetkitError:
    """The line for what the system would not do: a ResourceExhausted where the machine gave out. `full` is the cure of
    a full disk, `cure` that of all else."""
    kind = ResourceExhausted if error.errno in GAVE_OUT else ResnetkitError
    cure = full if error.errno in (*FULL, None) else cure
    reason = error.strerror or str(error) or type(error).__name__
    return kind(f"{what}: {reason}" + (f"; {cure}" if cure else ""))


def require_number(name: str, value: Any, least: int, most: int | None = None) -> None:
    """Raise ResnetkitError unless `value` is a whole number, `least` or more, or with `most` any number from the one to
    the other."""
    kind: type[Any] = Integral if most is None else Real
    highest = inf if most is None else most
    if isinstance(value, bool) or not isinstance(value, kind) or not least <= value <= highest:
        wanted = f"a whole number, {least} or more" if most is None else f"a number, {least} to {most}"
        raise ResnetkitError(f"{name}={value!r} is impossible; it must be {wanted}")


# What other libraries call a thing.
SYNONYMS = {
    "pretrained": "weights",
    "learning_rate": "lr",
    "wd": "weight_decay",
    "image_size": "img_size",
    "imgsz": "img_size",
    "batch": "batch_size",
    "input_channels": "in_channels",
    "in_chans": "in_channels",
    "smoothing": "label_smoothing",
    "opt": "optimizer",
    "sched": "schedule",
    "scheduler": "schedule",
    "model_ema_decay": "ema_decay",
    "warmup": "warmup_epochs",
}


def did_you_mean(word: str, known: Iterable[str], *, n: int = 1) -> str:
    """The end of an error message: the nearest known words, or all of them when none is near."""
    known = sorted(known)
    if SYNONYMS.get(word) in known:
        return f"did you mean {SYNONYMS[word]}?"
    near = difflib.get_close_matches(word, known, n=n, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
