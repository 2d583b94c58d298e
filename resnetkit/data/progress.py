"""What a person sees while many images are read: nothing at first, then how far it is, on standard error."""

from collections.abc import Iterable, Iterator
from time import perf_counter
from typing import TypeVar

PATIENCE = 2.0  # seconds before there is anything to see
LINE_EVERY = 30.0  # seconds between lines where there is no terminal

Item = TypeVar("Item")


def watched(items: Iterable[Item], total: int, what: str) -> Iterator[Item]:
    """The same items. What takes longer than PATIENCE has a bar on a terminal, which goes when it ends, else lines."""
    began = perf_counter()
    iterator = iter(items)
    for done, item in enumerate(iterator, 1):
        yield item
        if perf_counter() - began > PATIENCE:
            yield from _shown(iterator, done, total, what)


def _shown(items: Iterator[Item], before: int, total: int, what: str) -> Iterator[Item]:
    # Loaded where it is needed: rich takes a twentieth of a second.
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    hidden = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden, redirect_stdout=False) as bar:
        task = bar.add_task(what, total=total, completed=before)
        last_line = perf_counter() - LINE_EVERY
        for done, item in enumerate(items, before + 1):
            yield item
            bar.update(task, completed=done)
            if hidden and perf_counter() - last_line > LINE_EVERY:
                console.print(f"{what}: {done:,} of {total:,}", soft_wrap=True, markup=False)
                last_line = perf_counter()
