"""Stopping when asked: the first signal lets the step in progress end, a second one stops at once."""

import os
import signal
import sys
from contextlib import suppress
from types import FrameType, TracebackType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
HEARD = b"resnet: stopping; a second signal stops at once\n"


class StopRequest:
    """While entered, `requested` turns True at the first SIGINT or SIGTERM, which is told on standard error."""

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "StopRequest":
        try:
            self._previous = {number: signal.signal(number, self._on_signal) for number in SIGNALS}
        except ValueError:  # only the main thread receives signals
            self._previous = {}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self._restore()
        with suppress(OSError, ValueError, AttributeError):  # a stream that is no file, closed or None
            os.write(sys.stderr.fileno(), HEARD)  # print raises where the signal came in the middle of another

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
