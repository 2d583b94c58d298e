"""One benchmark from its question to its answer."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import torch

from resnetkit.architecture.summary import complexity, image_gradient_macs
from resnetkit.benchmark.equal import compare_work
from resnetkit.benchmark.first_step import first_step_seconds
from resnetkit.benchmark.job import Job, make_job
from resnetkit.benchmark.peers import chosen, command
from resnetkit.benchmark.process import Worker, ours
from resnetkit.benchmark.ratios import FEWEST, agrees, ratio, reasons_void, spread
from resnetkit.benchmark.rounds import Rounds, take_rounds
from resnetkit.benchmark.subject import write_photos
from resnetkit.device import PRECISIONS
from resnetkit.errors import ResnetkitError
from resnetkit.training.folder import environment
from resnetkit.weights.load import build

OURS, CONTROL, MACHINE = "ours", "control", "machine"
ROUNDS = 9
SECONDS = 0.3  # of a sample, at least
PASSES = 3  # a training step moves, and but for its images' gradient multiplies, as much as so many forward passes
UNITS = {
    "step": "images_per_second",
    "inference": "images_per_second",
    "loader": "images_per_second",
    "memory": "bytes",
    "startup": "seconds",
}
Commands = Mapping[str, Sequence[str]]
Tell = Callable[[str], None]


def benchmark(
    kind: str,
    model: str,
    *,
    against: Sequence[str] = (),
    rounds: int = ROUNDS,
    seconds: float = SECONDS,
    tell: Tell = lambda line: None,
    **choices: Any,
) -> dict[str, Any]:
    """Measure `kind` (step, inference, loader, memory, startup) of `model`, ours and that of the peers in `against`.

    `choices` are those of `make_job`; `tell` hears how it goes on. A ratio above 1 says by what factor ours is better.
    `void` says that nothing may be concluded, and `reasons` why. Raises ResnetkitError.
    """
    if rounds < FEWEST:
        raise ResnetkitError(f"rounds={rounds}: an interval needs {FEWEST} or more")
    if not seconds > 0:
        raise ResnetkitError(f"seconds={seconds:g}: a sample takes more than none")
    job = make_job(kind, model, **choices)
    peers = chosen(against, job.kind)
    with TemporaryDirectory() as folder:
        if job.kind == "loader" and job.data is None:
            tell("writing photos")
            write_photos(Path(folder) / "photos")
            job = replace(job, data=str(Path(folder) / "photos"))
        if job.kind == "loader":
            job = replace(job, cache=str(Path(folder) / "cache"))
        worked = "step" if job.kind == "memory" else "inference" if job.kind == "startup" else job.kind
        commands = {OURS: ours(worked), CONTROL: ours(worked), MACHINE: ours("machine")}
        commands |= {name: [*command(name, peer), worked, variant] for name, (peer, variant) in peers.items()}
        return measure(job, commands, Path(folder), rounds=rounds, seconds=seconds, tell=tell)


def measure(
    job: Job, commands: Commands, folder: Path, *, rounds: int, seconds: float, tell: Tell = lambda line: None
) -> dict[str, Any]:
    """`benchmark` of contenders that `commands` start; `ours`, `control` and the `machine` are among them."""
    contenders = {name: command for name, command in commands.items() if name != MACHINE}
    fresh = job.kind in ("memory", "startup")
    starts = {}
    if job.kind == "startup":  # before all else, which would be lost where it fails
        tell("starting resnet train digits")
        starts["train_digits_first_step_seconds"] = spread(first_step_seconds(rounds, job.cores, job.device))
    with Worker(MACHINE, commands[MACHINE], job.cores, job.device) as machine:
        tell("measuring the machine's ceilings")
        ceilings = machine.ask("ceilings", device=job.device, threads=job.threads)

        def probe() -> list[float]:
            return machine.ask("probe")

        run = _fresh_processes if fresh else _taking_turns
        found, facts, equal = run(job, contenders, folder, probe, rounds, seconds, tell)
    return _conclude(job, found, facts, equal, ceilings) | starts


Measured = tuple[Rounds, dict[str, dict[str, Any]], dict[str, dict[str, Any]]]


def _taking_turns(
    job: Job,
    commands: Commands,
    folder: Path,
    probe: Callable[[], list[float]],
    rounds: int,
    seconds: float,
    tell: Tell,
) -> Measured:
    """All workers are there before anything is timed; one works, the others wait."""
    facts, equal = {}, {}
    with ExitStack() as stack:
        workers: dict[str, Worker] = {}
        for name, start in commands.items():
            tell(f"starting {name}")
            workers[name] = stack.enter_context(Worker(name, start, job.cores, job.device))
            facts[name] = workers[name].ask("prepare", job=job.to_dict())
            if name not in (OURS, CONTROL) and job.kind != "loader":
                place = folder / name
                place.mkdir()
                exported = workers[name].ask("export", folder=str(place))
                equal[name] = compare_work(exported, build(job.model), predicting=job.kind == "inference")

        def sample(name: str) -> float:
            answer = workers[name].ask("sample", seconds=seconds)
            return answer["images"] / answer["seconds"]

        tell(f"{rounds} rounds, more where the machine is not quiet")
        return take_rounds(list(commands), sample, probe, rounds, partial(_settled, job, tell)), facts, equal


def _fresh_processes(
    job: Job,
    commands: Commands,
    folder: Path,
    probe: Callable[[], list[float]],
    rounds: int,
    seconds: float,
    tell: Tell,
) -> Measured:
    """Each turn is a process of its own, from its start to its first result or, for memory, through a sample."""
    facts: dict[str, dict[str, Any]] = {}

    def sample(name: str) -> float:
        tell(f"starting {name}")
        began = perf_counter()
        with Worker(name, commands[name], job.cores, job.device) as worker:
            facts[name] = worker.ask("prepare", job=job.to_dict())
            passed = perf_counter() - began
            if job.kind == "startup":
                return passed
            worker.ask("sample", seconds=seconds)
            return worker.ask("peak")

    return take_rounds(list(commands), sample, probe, rounds, partial(_settled, job, tell)), facts, {}


def _more_is_better(job: Job) -> bool:
    return UNITS[job.kind] == "images_per_second"


def _control(job: Job, found: Rounds) -> dict[str, float]:
    return ratio(found.values[OURS], found.values[CONTROL], more_is_better=_more_is_better(job))


def _settled(job: Job, tell: Tell, found: Rounds) -> bool:
    """The control says when there are rounds enough, not the ratio that is looked for."""
    control = _control(job, found)
    low, high = control["low"], control["high"]
    tell(f"after {len(found)} rounds and {found.dropped} dropped, ours against ours is {low:.3f} to {high:.3f}")
    return agrees(control)


def _conclude(
    job: Job,
    found: Rounds,
    facts: dict[str, dict[str, Any]],
    equal: dict[str, dict[str, Any]],
    ceilings: dict[str, float],
) -> dict[str, Any]:
    if not len(found):
        raise ResnetkitError(f"all {found.dropped} rounds were dropped: the machine is too busy to measure anything")
    unit = UNITS[job.kind]
    better = _more_is_better(job)
    own, control = found.values[OURS], _control(job, found)
    unequal = {name: work for name, work in equal.items() if not work["equal"]}
    reasons = reasons_void(control, len(found), unequal)
    result: dict[str, Any] = {
        "benchmark": job.kind,
        "job": job.to_dict() | {"data": Path(job.data).name if job.data else None, "cache": bool(job.cache)},
        "unit": unit,
        "ours": {unit: spread(own)} | facts[OURS],
        "control": control,
        "peers": {
            name: {"ratio": ratio(own, values, more_is_better=better), unit: spread(values)}
            | facts[name]
            | ({"work": equal[name]} if name in equal else {})
            for name, values in found.values.items()
            if name not in (OURS, CONTROL)
        },
        "ceilings": ceilings,
        "rounds": len(found),
        "dropped": found.dropped,
        "void": bool(reasons),
        "reasons": reasons,
        "samples": found.values,
        "environment": environment(torch.device(job.device)),
    }
    if job.kind in ("step", "inference"):
        result["ours"] |= shares_of_ceilings(job, result["ours"], ceilings)
    return result


def shares_of_ceilings(job: Job, ours: dict[str, Any], ceilings: dict[str, float]) -> dict[str, float]:
    """`share_of_ceiling`: the rate of multiplications and additions, over that of a matrix product in the same
    precision. `share_of_copy`: the bytes a second that cannot be spared, those of every convolution's output written
    once and read once in each pass, over those of a copy."""
    net = build(job.model)
    net.image_size = (job.img_size, job.img_size)
    step = job.kind == "step"
    rate, costs, passes = ours["images_per_second"]["median"], complexity(net), PASSES if step else 1
    macs = passes * costs["macs"] - (image_gradient_macs(net) if step else 0)
    moved = 2 * passes * costs["activation_bytes"] * PRECISIONS[ours["precision"]].itemsize / torch.float32.itemsize
    return {
        "share_of_ceiling": 2 * rate * macs / 1e9 / ceilings[f"{ours['precision']}_gflops"],
        "share_of_copy": rate * moved / 1e9 / ceilings["copy_gb_per_second"],
    }
