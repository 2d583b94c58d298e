"""Workers that take turns: what their made-up times must give, and what must void a run."""

import json
import sys
from contextlib import nullcontext
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import bootstrap
from typer.testing import CliRunner

from resnetkit.benchmark import first_step, peers
from resnetkit.benchmark.first_step import first_step_seconds
from resnetkit.benchmark.job import Job, make_job
from resnetkit.benchmark.process import Worker
from resnetkit.benchmark.ratios import agrees, ratio, reasons_void, spread
from resnetkit.benchmark.rounds import orders, take_rounds
from resnetkit.benchmark.run import benchmark, measure
from resnetkit.benchmark.worker import peak_bytes, timed
from resnetkit.cli.main import app
from resnetkit.errors import ResnetkitError

CORES = make_job("loader", "resnet18").cores
JOB = Job(
    kind="loader", model="stubs", img_size=8, batch_size=1, classes=2, precision="float32", device="cpu", cores=CORES
)


def stub(*arguments: float) -> list[str]:
    return [sys.executable, str(Path(__file__).with_name("stub.py")), *map(str, arguments)]


def measured(tmp_path, control=10.0, probes=(), tell=lambda line: None):
    commands = {"ours": stub(10), "control": stub(control), "peer": stub(5), "machine": stub(0, *probes)}
    return measure(JOB, commands, tmp_path, rounds=9, seconds=0.3, tell=tell)


def test_twice_as_fast(tmp_path):
    found = measured(tmp_path)
    assert found["peers"]["peer"]["ratio"] == {"median": 2.0, "low": 2.0, "high": 2.0}
    assert found["ours"]["images_per_second"]["median"] == 10
    assert (found["rounds"], found["dropped"], found["void"], found["reasons"]) == (9, 0, False, [])


def test_a_control_that_is_off_voids_the_run(tmp_path):
    told = []
    found = measured(tmp_path, control=9.0, tell=told.append)
    assert told[-2:] == [f"after {n} rounds and 0 dropped, ours against ours is 1.111 to 1.111" for n in (36, 72)]
    assert found["void"] and "0.98" in found["reasons"][0] and found["control"]["median"] == pytest.approx(10 / 9)
    assert found["rounds"] == 8 * 9  # in vain


def test_rounds_go_on_until_the_control_is_steady():
    """Here it is off by a tenth for 8 rounds, then never again: the interval of its median closes in."""
    turns = {"ours": 0, "control": 0}

    def sample(name):
        turns[name] += 1
        return 1.1 if name == "control" and turns[name] <= 8 else 1.0

    def settled(found):
        return agrees(ratio(found.values["ours"], found.values["control"], more_is_better=True))

    found = take_rounds(["ours", "control"], sample, lambda: [1.0], 9, settled)
    assert settled(found) and len(found) == 36
    assert len(take_rounds(["ours", "control"], lambda name: 1.0, lambda: [1.0], 9, settled)) == 9


def test_rounds_between_unlike_probes_are_dropped_and_made_up_for(tmp_path):
    found = measured(tmp_path, probes=(1, 1.04, 1, 1.06, 1))  # 4 % is drift that counts as none
    assert (found["rounds"], found["dropped"], found["void"]) == (9, 2, False)


def test_a_machine_that_is_never_steady():
    unsteady = iter(range(1, 100))
    found = take_rounds(["a", "b"], lambda name: 1.0, lambda: [float(next(unsteady) % 2 + 1)], 9)
    assert (len(found), found.dropped) == (0, 72)
    assert reasons_void({"low": 1, "high": 1}, 4, {}) and not reasons_void({"low": 1, "high": 1}, 5, {})


def test_order_of_turns():
    pairs = list(islice(orders(["a", "b"]), 8))
    assert all(second == first[::-1] for first, second in zip(pairs[::2], pairs[1::2]))  # ABBA or BAAB
    many = list(islice(orders(list("abcd")), 40))
    assert all(sorted(order) == list("abcd") for order in many) and len({order[0] for order in many}) == 4


def test_a_sample_is_timed_after_one_piece_that_is_not():
    now, done = [0.0], []

    def work():
        now[0] += 0.1
        done.append(now[0])
        return 4

    found = timed(work, 0.35, clock=lambda: now[0])
    assert found == {"images": 16, "seconds": pytest.approx(0.4)} and len(done) == 5


def test_a_long_piece_is_a_sample_without_one_before():
    now = [0.0]

    def work():
        now[0] += 2.0
        return 32

    assert timed(work, 0.3, clock=lambda: now[0]) == {"images": 32, "seconds": 2.0} and now == [2.0]
    assert timed(work, 3.0, clock=lambda: now[0]) == {"images": 64, "seconds": 4.0} and now == [8.0]


def test_pieces_too_short_to_look_at_the_clock_after_each():
    now, looks = [0.0], []

    def clock():
        looks.append(now[0])
        return now[0]

    def work():
        now[0] += 0.001
        return 1

    found = timed(work, 1.0, clock=clock)
    assert found["seconds"] == pytest.approx(found["images"] / 1000) and len(looks) < 25


def test_interval_is_scipys():
    values = np.random.default_rng(3).normal(1, 0.1, 11)
    theirs = bootstrap((values,), np.median, method="percentile", n_resamples=20_000, rng=0).confidence_interval
    assert spread(values) == pytest.approx({"median": np.median(values), "low": theirs.low, "high": theirs.high}, 0.01)


def test_a_ratio_is_of_each_round_by_itself():
    """The machine halves its speed after the first round; ours is twice as fast, or takes half the seconds, in each."""
    assert ratio([8, 4, 4], [4, 2, 2], more_is_better=True)["low"] == 2
    assert ratio([4, 8, 8], [8, 16, 16], more_is_better=False)["high"] == 2


def test_what_a_worker_says_went_wrong_is_told():
    with Worker("stub", stub(1), CORES) as worker:
        with pytest.raises(ResnetkitError, match="stub: ValueError: no such thing"):
            worker.ask("export", folder="x")
        assert worker.ask("sample", seconds=1)["images"] == 10
    with pytest.raises(ResnetkitError, match="gone: the worker ended: lost"):
        Worker("gone", [sys.executable, "-c", "raise SystemExit('lost')"], CORES)


def test_peers_that_cannot_be_had(monkeypatch, tmp_path):
    assert list(peers.chosen(["torchvision", "timm-compiled"], "step")) == [
        "torchvision",
        "torchvision-best",
        "timm-compiled",
    ]
    assert list(peers.chosen(["timm", "torchvision-default"], "memory")) == ["timm", "torchvision"]
    for words, kind, message in (
        (["torchvison"], "step", "did you mean torchvision"),
        (["pillow"], "step", "has no step"),
        (["keras-notebook-best"], "step", "measured as default"),
        (["timm-best"], "memory", "memory is measured of a peer as it is; say timm"),
        (["timm-compiled"], "startup", "startup is measured of a peer as it is; say timm"),
    ):
        with pytest.raises(ResnetkitError, match=message):
            peers.chosen(words, kind)
    monkeypatch.setenv(peers.VARIABLE, str(tmp_path / "python"))
    with pytest.raises(ResnetkitError, match=r"\.venv-peers, which is not there"):
        peers.command("timm", peers.PEERS["timm"])
    monkeypatch.setattr(peers, "SCRIPTS", tmp_path)
    with pytest.raises(ResnetkitError, match="from a checkout"):
        peers.command("timm", peers.PEERS["timm"])


def test_fewer_rounds_than_an_interval_needs():
    with pytest.raises(ResnetkitError, match="rounds=4: an interval needs 5 or more"):
        benchmark("step", "resnet18", rounds=4)


def test_memory_on_a_card_is_the_cards(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_initialized", lambda: False)
    assert peak_bytes() > 10 * 2**20  # of the process
    monkeypatch.setattr("torch.cuda.is_initialized", lambda: True)
    monkeypatch.setattr("torch.cuda.max_memory_allocated", lambda: 12345)
    assert peak_bytes() == 12345


def test_memory_of_a_worker_is_its_own():
    """Linux hands the most that a process ever held on to those that it starts."""
    held = bytearray(b"x") * 2**28
    del held
    with Worker("stub", stub(1), CORES) as worker:
        assert 2**20 < worker.ask("peak") < 2**27


@pytest.mark.parametrize(("device", "seen"), [("cpu", ""), ("cuda", "0")])
def test_a_worker_on_a_processor_sees_no_gpu(monkeypatch, device, seen):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    tell = "import os; from resnetkit.benchmark.worker import serve; serve({'seen': lambda: os.environ[%r]})"
    with Worker("x", [sys.executable, "-c", tell % "CUDA_VISIBLE_DEVICES"], CORES, device) as worker:
        assert worker.ask("seen") == seen


def test_a_start_finds_its_bytecode(monkeypatch):
    """Else modules of a checkout are compiled anew in each start, those of an installed package not."""
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    tell = "import sys; from resnetkit.benchmark.worker import serve; serve({'seen': lambda: sys.dont_write_bytecode})"
    with Worker("x", [sys.executable, "-c", tell], CORES) as worker:
        assert worker.ask("seen") is False


def test_a_start_is_on_the_cores_of_the_job(monkeypatch, tmp_path):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(first_step, "TemporaryDirectory", lambda: nullcontext(tmp_path))
    (seconds,) = first_step_seconds(1, CORES[:1], "cpu")
    kept = json.loads((tmp_path / "run/environment.json").read_text())
    assert seconds > 0 and kept["threads"] == 1


def test_a_start_that_fails_is_one_line(monkeypatch, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/letter.txt").touch()
    monkeypatch.setattr(first_step, "TemporaryDirectory", lambda: nullcontext(tmp_path))
    with pytest.raises(ResnetkitError, match="resnet train digits: .* is there already and would be overwritten"):
        first_step_seconds(1, CORES, "cpu")


def test_startup_begins_with_what_may_fail(monkeypatch, tmp_path):
    def fail(times, cores, device):
        raise ResnetkitError("resnet train digits: no")

    commands = {"ours": stub(10), "control": stub(10), "machine": ["not there"]}
    monkeypatch.setattr("resnetkit.benchmark.run.first_step_seconds", fail)
    with pytest.raises(ResnetkitError, match="resnet train digits: no"):
        measure(replace(JOB, kind="startup"), commands, tmp_path, rounds=5, seconds=0.1)
    monkeypatch.setattr("resnetkit.benchmark.run.first_step_seconds", lambda *_: [2.0])
    found = measure(replace(JOB, kind="startup"), commands | {"machine": stub(0)}, tmp_path, rounds=5, seconds=0.1)
    assert found["train_digits_first_step_seconds"]["median"] == 2 and found["unit"] == "seconds"


def test_exit_code_of_a_void_run(monkeypatch, tmp_path):
    monkeypatch.setattr("resnetkit.benchmark.run.benchmark", lambda *_, **__: measured(tmp_path, control=9.0))
    done = CliRunner().invoke(app, ["benchmark", "loader", "resnet18"])
    assert done.exit_code == 7 and "VOID: ours against ours" in done.stdout and "2.00 (95 %" in done.stdout


def test_what_cannot_be_written_is_printed_all_the_same(monkeypatch, tmp_path):
    monkeypatch.setattr("resnetkit.benchmark.run.benchmark", lambda *_, **__: measured(tmp_path))
    (tmp_path / "file").touch()
    done = CliRunner().invoke(app, ["benchmark", "loader", "resnet18", "--out", str(tmp_path / "file" / "x.json")])
    assert "2.00 (95 %" in done.stdout and "not saved: File exists" in str(done.exception)


def test_a_folder_is_refused_before_anything_is_measured(monkeypatch, tmp_path):
    monkeypatch.setattr("resnetkit.benchmark.run.benchmark", lambda *_, **__: pytest.fail("measured"))
    done = CliRunner().invoke(app, ["benchmark", "loader", "resnet18", "--out", str(tmp_path)])
    assert done.exit_code == 2 and "is a directory" in done.stderr
