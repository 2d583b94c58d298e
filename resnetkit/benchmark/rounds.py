"""Rounds in which every contender has its turn, between two probes of the machine."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

DRIFT = 0.05  # between the probes around a round, at most
LOOKS = (1, 2, 4, 8)  # times the rounds asked for, after which it is seen whether they are enough; the last is the end

Probe = Callable[[], Sequence[float]]  # seconds of fixed pieces of work


@dataclass
class Rounds:
    """What each contender measured in every round that counts, and how many rounds do not."""

    values: dict[str, list[float]] = field(default_factory=dict)
    dropped: int = 0

    def __len__(self) -> int:
        return min(map(len, self.values.values()), default=0)


def orders(names: Sequence[str], seed: int = 0) -> Iterator[list[str]]:
    """Shuffled, then the same backwards (of a pair ABBA), which cancels a drift that is steady; without end."""
    generator = random.Random(seed)
    while True:
        order = generator.sample(names, len(names))
        yield order
        yield order[::-1]


def take_rounds(
    names: Sequence[str],
    sample: Callable[[str], float],
    probe: Probe,
    rounds: int,
    settled: Callable[[Rounds], bool] = lambda found: True,
    *,
    seed: int = 0,
) -> Rounds:
    """`rounds` rounds whose probes agree within DRIFT, and twice, four and eight times as many where they are not
    `settled`. So many, those that were dropped among them, are the end."""
    looks = [times * rounds for times in LOOKS]
    found = Rounds({name: [] for name in names})
    before = probe()
    for order in orders(names, seed):
        values = {name: sample(name) for name in order}
        after = probe()
        if drift(before, after) > DRIFT:
            found.dropped += 1
        else:
            for name, value in values.items():
                found.values[name].append(value)
        before = after
        if len(found) >= looks[0]:
            looks.pop(0)
            if settled(found) or not looks:
                break
        if len(found) + found.dropped == LOOKS[-1] * rounds:
            break
    return found


def drift(before: Sequence[float], after: Sequence[float]) -> float:
    """By how much the more changed piece of work took longer on one side: 0.05 is 5 %."""
    return max(max(a, b) / min(a, b) - 1 for a, b in zip(before, after))
