"""What a person sees while a run goes on: a bar on a terminal, plain lines elsewhere; always on standard error."""

from collections.abc import Sequence
from time import perf_counter

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from resnetkit.tasks.task import figures_of
from resnetkit.training.state import TrainingState

SHOW_EVERY = 0.1  # seconds; the figures of a step on a GPU are waited for where they are shown
LINE_EVERY = 30.0  # seconds between lines within an epoch where there is no bar


class Display:
    """Follows a run of epochs of so many `pixels` in `steps` steps each, from step `first` on; `figure` is what its
    task learns by."""

    def __init__(self, pixels: Sequence[int], steps: int, first: int, figure: str) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._pixels, self._steps, self._first, self._figure = pixels, steps, first, figure
        self._epochs = len(pixels)
        self._start = self._epoch_start = self._shown = perf_counter()
        self._waited = 0.0
        self._images = 0
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"),
        )
        self._progress = Progress(
            *columns, console=self._console, disable=not self._console.is_terminal, transient=True
        )
        self._task = self._progress.add_task("training", total=self._epochs * steps, completed=first, state="")

    def __enter__(self) -> "Display":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def line(self, text: str) -> None:
        self._console.print(text, soft_wrap=True, markup=False)

    def step(self, state: TrainingState, waited: float) -> None:
        self._waited += waited
        now = perf_counter()
        if now - self._shown < (LINE_EVERY if self._progress.disable else SHOW_EVERY):
            return
        self._shown, tally = now, state.tally
        seen = tally.images - self._images
        seconds = perf_counter() - self._epoch_start
        epoch = (state.step - 1) // self._steps + 1
        status = (
            f"loss {tally.loss / tally.images:.3f}  {self._figure} {tally.right / tally.images:.1%}  "
            f"{seen / seconds:,.0f} images/s  data {self._waited / seconds:.0%}  ETA {self._eta(state)}"
        )
        self._progress.update(
            self._task, completed=state.step, description=f"epoch {epoch}/{self._epochs}", state=status
        )
        if self._progress.disable:
            step = (state.step - 1) % self._steps + 1
            self.line(f"epoch {epoch}/{self._epochs}  step {step}/{self._steps}  {status}")

    def epoch(self, state: TrainingState, values: dict[str, float]) -> None:
        """One line for a finished epoch; `values` is its line of the table."""
        parts = [key.removesuffix("_loss") for key in values if key.endswith("_loss")]
        figures = "  ".join(f"{part} {values[f'{part}_loss']:.3f} {self._shares(values, part)}" for part in parts)
        self._progress.update(self._task, completed=state.step)
        width = len(str(self._epochs))
        self.line(
            f"epoch {values['epoch']:>{width}}/{self._epochs}  {values['size']} px  lr {values['lr']:<8.3g}  "
            f"{figures}  {values['images_per_second']:,.0f} images/s  data {values['data_share']:.0%}  "
            f"ETA {self._eta(state)}"
        )

    def _shares(self, values: dict[str, float], part: str) -> str:
        """The figures besides the loss; those that are not the part's alone are named."""
        named = ((name, f"{values[f'{part}_{name}']:.1%}") for name in figures_of(values, part))
        return " ".join(share if name == "top1" else f"{name} {share}" for name, share in named)

    def begin_epoch(self, state: TrainingState) -> None:
        self._epoch_start = self._shown = perf_counter()
        self._waited, self._images = 0.0, state.tally.images

    def speed(self, state: TrainingState) -> dict[str, float]:
        """Images a second and the share of time spent waiting for data, in this epoch since it began or went on."""
        seconds = perf_counter() - self._epoch_start
        images = state.tally.images - self._images
        return {
            "images_per_second": round(images / seconds, 1),
            "data_share": round(self._waited / seconds, 4),
            "seconds": round(seconds, 2),
        }

    def _eta(self, state: TrainingState) -> str:
        now, first = self._pixels_before(state.step), self._pixels_before(self._first)
        if now == first:  # resumed for an epoch's figures alone
            return "-:--:--"
        left = (perf_counter() - self._start) / (now - first) * (sum(self._pixels) - now)
        return f"{int(left // 3600)}:{int(left // 60 % 60):02}:{int(left % 60):02}"

    def _pixels_before(self, step: int) -> float:
        """What has been trained on when so many steps are done: small images take less time."""
        epoch, place = divmod(step, self._steps)
        return sum(self._pixels[:epoch]) + sum(self._pixels[epoch : epoch + 1]) * place / self._steps
