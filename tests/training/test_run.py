"""Runs on the digits: what they write, that a seed repeats them, that an interruption changes nothing."""

import csv
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import resnetkit as rk
from resnetkit.device import within_memory
from resnetkit.errors import Diverged, Interrupted, ModelFileRefused, ResnetkitError, ResourceExhausted
from resnetkit.tasks import classification
from resnetkit.training import loop, run, trainer

TINY = {"model": "resnet8_cifar", "epochs": 3, "drop_path_rate": 0.2, "ema_decay": 0.9}


def train(out, **settings):
    return rk.train("digits", out=out, **TINY | settings)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return train(tmp_path_factory.mktemp("runs") / "run")


def same_tensors(one: Path, other: Path) -> bool:
    a, b = load_file(one), load_file(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_the_run_folder(finished):
    folder = finished.folder
    for name in ("recipe.toml", "command.json", "environment.json", "preprocessing.json", "bad_files.csv", "log.jsonl"):
        assert (folder / name).stat().st_size > 0, name
    for name in ("plots/curves.png", "plots/confusion_matrix.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    assert json.loads((folder / "classes.json").read_text()) == [str(i) for i in range(10)]
    rows = list(csv.DictReader((folder / "split.csv").open()))
    assert len(rows) == 1797 and {row["split"] for row in rows} == {"train", "test"}
    assert len({row["hash"] for row in rows}) > 1790
    epochs = list(csv.DictReader((folder / "results.csv").open()))
    assert [row["epoch"] for row in epochs] == ["1", "2", "3"]
    events = [json.loads(line)["event"] for line in (folder / "log.jsonl").read_text().splitlines()]
    assert events == ["started", "epoch", "epoch", "epoch", "finished"]
    assert not list(folder.rglob("*.partial"))


def test_predictions_agree_with_the_metrics(finished):
    rows = list(csv.DictReader((finished.folder / "evaluation" / "predictions.csv").open()))
    wrong = [row for row in rows if row["class"] != row["predicted"]]
    assert finished.metrics["n"] == len(rows) == 359
    assert finished.metrics["top1"] == pytest.approx(1 - len(wrong) / len(rows), abs=1e-12)
    mistakes = list(csv.DictReader((finished.folder / "evaluation" / "mistakes.csv").open()))
    assert sorted(row["path"] for row in mistakes) == sorted(row["path"] for row in wrong)
    sure = [float(row["probability"]) for row in mistakes]
    assert sure == sorted(sure, reverse=True)


def test_evaluate_repeats_the_runs_figures(finished):
    stored = json.loads((finished.folder / "evaluation" / "metrics.json").read_text())
    assert rk.evaluate(finished.folder) == stored
    assert rk.evaluate(finished.folder / "model.safetensors", "digits")["top1"] == stored["top1"]
    assert finished.model.metrics["top1"] == stored["top1"]
    assert finished.model.provenance["recipe"]["model"] == "resnet8_cifar"


def test_a_seed_repeats_a_run_bit_for_bit(finished, tmp_path):
    again = train(tmp_path / "again")
    assert same_tensors(finished.folder / "model.safetensors", again.folder / "model.safetensors")
    assert same_tensors(finished.folder / "checkpoints/last.safetensors", again.folder / "checkpoints/last.safetensors")
    other = train(tmp_path / "other", seed=1)
    assert not same_tensors(finished.folder / "model.safetensors", other.folder / "model.safetensors")


EVERYTHING = {
    "policy": "trivial",
    "erasing": 0.3,
    "mixup": 0.2,
    "cutmix": 1.0,
    "balance": "sampling",
    "accumulate": 2,
    "clip_norm": 1.0,
    "rate_decay": 0.9,
}


MUON = {"optimizer": "muon", "lr": 0.05}
PRUNED = {"prune_easy": 0.3, "epochs": 3}  # in its second epoch
LAMB = {"optimizer": "lamb", "lr": 0.005, "loss": "binary", "repeats": 3, "schedule": "step"}


@pytest.mark.parametrize(
    "settings", [{}, {"optimizer": "adamw", "lr": 0.002, "holdout": 0.1}, MUON, LAMB, PRUNED, EVERYTHING]
)
@pytest.mark.parametrize("steps", [[1], [10, 23, 24, 40]])
def test_interruptions_change_nothing(tmp_path, monkeypatch, steps, settings):
    """Stopped in mid-epoch, at an epoch's end, after one step of the next, and resumed each time."""
    whole = train(tmp_path / "whole", **settings)
    stops = set(steps)
    after_step = trainer.Trainer._after_step

    def stop_there(self, state, waited):
        if state.step in stops:
            stops.discard(state.step)
            self.stop.requested = True
        after_step(self, state, waited)

    monkeypatch.setattr(trainer.Trainer, "_after_step", stop_there)
    with pytest.raises(rk.ResnetkitError, match="--resume") as stopped:
        train(tmp_path / "in parts", **settings)
    assert stopped.value.exit_code == 75
    assert shlex.split(str(stopped.value))[-2:] == ["--resume", str(tmp_path / "in parts")]
    while stops:
        with pytest.raises(rk.ResnetkitError):
            rk.train(resume=tmp_path / "in parts")
    resumed = rk.train(resume=tmp_path / "in parts")
    for file in ("model.safetensors", "checkpoints/last.safetensors"):
        assert same_tensors(whole.folder / file, resumed.folder / file)
    assert resumed.metrics == whole.metrics
    assert untimed(whole) == untimed(resumed)


def untimed(finished):
    """The lines of results.csv without what another run of the same never has again."""
    timing = ("images_per_second", "data_share", "seconds")
    rows = list(csv.DictReader((finished.folder / "results.csv").open()))
    assert all(float(row["images_per_second"]) > 0 for row in rows)
    return [{name: value for name, value in row.items() if name not in timing} for row in rows]


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("evaluation", [1, 2, 3, 4, 5])
def test_an_evaluation_that_is_stopped_or_killed_is_all_that_a_resume_repeats(
    tmp_path, monkeypatch, evaluation, killed
):
    """Three on the holdout after the epochs, one on it and one on the test part at the end."""
    whole = train(tmp_path / "whole", holdout=0.1)
    real, begun = trainer.answer, []

    def cut_short(net, batches, *how):
        begun.append(1)
        if len(begun) == evaluation:
            if killed:
                raise KeyboardInterrupt
            signal.raise_signal(signal.SIGTERM)
        return real(net, batches, *how)

    monkeypatch.setattr(trainer, "answer", cut_short)
    monkeypatch.setattr(trainer, "SAVE_EVERY", 0.0 if killed else 60.0)
    with pytest.raises(KeyboardInterrupt if killed else Interrupted):
        train(tmp_path / "in parts", holdout=0.1)
    steps = []
    after_step = trainer.Trainer._after_step
    monkeypatch.setattr(trainer.Trainer, "_after_step", lambda *given: (steps.append(1), after_step(*given)))
    resumed = rk.train(resume=tmp_path / "in parts")
    assert len(steps) == 21 * max(0, 3 - evaluation)
    for file in ("model.safetensors", "checkpoints/best.safetensors", "checkpoints/last.safetensors"):
        assert same_tensors(whole.folder / file, resumed.folder / file)
    assert resumed.metrics == whole.metrics and untimed(whole) == untimed(resumed)


def test_a_resume_that_forgot_something_is_caught(tmp_path, monkeypatch):
    """The guard above can fail: without the optimizer's memory the tensors differ."""
    whole = train(tmp_path / "whole", epochs=1)
    monkeypatch.setattr(trainer.Trainer, "_after_step", stop_at(10, trainer.Trainer._after_step))
    with pytest.raises(rk.ResnetkitError):
        train(tmp_path / "parts", epochs=1)
    monkeypatch.setattr("resnetkit.training.state.TrainingState._restore_optimizer", lambda self, tensors: None)
    resumed = rk.train(resume=tmp_path / "parts")
    assert not same_tensors(whole.folder / "model.safetensors", resumed.folder / "model.safetensors")


def stop_at(step, after_step):
    once = {step}

    def stop_there(self, state, waited):
        if state.step in once:
            once.clear()
            self.stop.requested = True
        after_step(self, state, waited)

    return stop_there


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_real_signal_saves_and_resumes_exactly(tmp_path, number):
    """The command itself, stopped three times by signals at whatever step they meet, against the run left alone."""
    resnet = [sys.executable, "-m", "resnetkit.cli.main"]
    settings = ["--model", "resnet20_cifar", "--epochs", "6", "--json"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    whole = subprocess.run(
        [*resnet, "train", "digits", "--out", "whole", *settings],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert whole.returncode == 0, whole.stderr
    command = [*resnet, "train", "digits", "--out", "parts", *settings]
    stopped = 0
    for _ in range(3):
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        events = sum(1 for _ in open_when_there(tmp_path / "parts" / "log.jsonl"))
        wait_for_more_events(tmp_path / "parts" / "log.jsonl", events, process)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        if process.returncode == 0:
            break
        assert process.returncode == 75, err
        assert out == "" and "--resume parts" in err
        assert err.count("resnet: stopping; a second signal stops at once\n") == 1
        stopped += 1
        command = [*resnet, "train", "--resume", "parts", "--json"]
    assert stopped >= 2
    last = subprocess.run(
        [*resnet, "train", "--resume", "parts", "--json"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert last.returncode == 0, last.stderr
    assert same_tensors(tmp_path / "whole/model.safetensors", tmp_path / "parts/model.safetensors")
    drop = lambda text: {k: v for k, v in json.loads(text).items() if k not in ("run", "model", "report")}  # noqa: E731
    assert drop(last.stdout) == drop(whole.stdout)


def open_when_there(path):
    return path.read_text().splitlines() if path.exists() else []


def wait_for_more_events(path, count, process):
    """Until the run has begun (or gone on) and a moment of training has passed."""
    deadline = time.monotonic() + 60
    while len(open_when_there(path)) <= count and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.4)


def test_a_resume_is_refused_when_the_data_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(trainer.Trainer, "_after_step", stop_at(2, trainer.Trainer._after_step))
    with pytest.raises(rk.ResnetkitError):
        train(tmp_path / "run", epochs=1)
    split = tmp_path / "run" / "split.csv"
    split.write_text(split.read_text().replace(",train,", ",test,", 1))
    with pytest.raises(rk.ResnetkitError, match="the data has changed since the run began"):
        rk.train(resume=tmp_path / "run")


def test_a_disk_that_fills_before_the_report_leaves_a_run_to_resume(tmp_path, monkeypatch):
    def full(*_):
        raise ResourceExhausted("no space left")

    monkeypatch.setattr(trainer, "write_report", full)
    with pytest.raises(ResourceExhausted):
        train(tmp_path / "run", epochs=1)
    assert not (tmp_path / "run/evaluation/metrics.json").exists()
    monkeypatch.undo()
    run_again = rk.train(resume=tmp_path / "run")
    assert (tmp_path / "run/report.html").exists() and run_again.metrics["n"] == 359


@pytest.mark.parametrize("wanted", [lambda: torch.empty(2**60), lambda: bytearray(2**62)])
def test_main_memory_that_gives_out_is_one_line_with_a_cure_that_is_to_be_had(tmp_path, monkeypatch, wanted):
    monkeypatch.setattr("resnetkit.architecture.resnet.ResNet.forward", lambda net, x: wanted())
    cure = "too little memory; lower batch_size or img_size, or"
    with pytest.raises(ResourceExhausted, match=f"{cure} give memory=checkpoint"):
        train(tmp_path / "run", lr="auto")
    assert not (tmp_path / "run").exists()
    with pytest.raises(ResourceExhausted, match=f"{cure} resume with memory=checkpoint"):
        train(tmp_path / "run")


def test_a_network_that_does_not_fit_the_device_is_one_line(tmp_path, monkeypatch):
    def place(net, device):
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr("resnetkit.architecture.resnet.ResNet.place", place)
    with pytest.raises(ResourceExhausted, match="cpu has too little memory; free some of it, or give another device"):
        train(tmp_path / "run")


def test_images_that_do_not_fit_the_device_are_one_line(tmp_path, monkeypatch):
    def place(*_, **__):
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr("resnetkit.data.loaders.TrainingBatches.__init__", place)
    with pytest.raises(ResourceExhausted, match="cpu has too little memory; lower batch_size or img_size"):
        train(tmp_path / "run")


def test_runs_that_lead_nowhere_are_named(tmp_path, monkeypatch):
    """As a link to a disk that is not there."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").symlink_to(tmp_path / "gone" / "runs")
    with pytest.raises(ResnetkitError, match="runs/digits-resnet8_cifar-1: .* choose another place with --out"):
        rk.train("digits", **TINY)


def test_weights_whose_path_is_not_utf8(finished, tmp_path):
    odd = tmp_path / os.fsdecode(b"caf\xe9")
    shutil.copytree(finished.folder, odd)
    run = train(tmp_path / "run", weights=odd, epochs=1)
    assert (run.folder / "report.html").is_file() and run.folder.joinpath("evaluation/metrics.json").is_file()


def test_another_error_is_not_taken_for_a_lack_of_memory():
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), within_memory(torch.device("cpu"), "cure"):
        torch.ones(2, 3) @ torch.ones(2, 3)


def test_a_resume_is_refused_when_pixels_would_differ(finished, tmp_path):
    run_folder = shutil.copytree(finished.folder, tmp_path / "run")
    (run_folder / "evaluation/metrics.json").unlink()
    pixels = json.loads((run_folder / "preprocessing.json").read_text())
    (run_folder / "preprocessing.json").write_text(json.dumps(pixels | {"mean": [0.25]}))
    with pytest.raises(ResnetkitError, match="preprocessing.json"):
        rk.train(resume=run_folder)


def test_a_resume_is_refused_when_the_name_means_another_network(finished, tmp_path, monkeypatch):
    """As after an update of the library: the tensors would fit."""
    run_folder = shutil.copytree(finished.folder, tmp_path / "run")
    (run_folder / "evaluation/metrics.json").unlink()
    real = run.build
    monkeypatch.setattr(run, "build", lambda *given, **choices: real(*given, **choices, activation="gelu"))
    with pytest.raises(ModelFileRefused, match="activation was 'relu' and is 'gelu'; train anew"):
        rk.train(resume=run_folder)


def test_a_finished_run_resumes_to_its_figures(finished):
    assert rk.train(resume=finished.folder).metrics == finished.metrics


def test_nothing_is_overwritten(finished):
    with pytest.raises(rk.ResnetkitError, match="would be overwritten"):
        train(finished.folder)


def test_divergence_stops_with_its_own_code_and_keeps_the_last_good_checkpoint(tmp_path, monkeypatch):
    loss = classification.loss
    calls = []

    def spoiled(*arguments):
        calls.append(1)
        return loss(*arguments) * (float("nan") if len(calls) == 30 else 1)

    monkeypatch.setattr(classification, "loss", spoiled)
    with pytest.raises(Diverged, match=r"nan at step 29; lower lr \(it is 0.1, and 0.0\d+ at this step\)") as error:
        train(tmp_path / "run")
    assert error.value.exit_code == 6
    tensors = load_file(tmp_path / "run" / "checkpoints" / "last.safetensors")  # of the first epoch's end
    assert all(t.isfinite().all() for t in tensors.values() if t.is_floating_point())


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"lr": 1e50}, "stem.* is no longer finite"),
        ({"lr": 1e38}, "answers to test images are not finite"),
        ({"lr": 1e38, "holdout": 0.2}, "answers to holdout images are not finite"),
    ],
)
def test_a_last_step_that_spoils_the_network_is_no_finished_run(tmp_path, settings, what):
    with pytest.raises(Diverged, match=f"{what}; lower lr"):
        train(tmp_path / "run", epochs=1, batch_size=1500, optimizer="sgd", ema_decay=0, **settings)
    assert not (tmp_path / "run" / "model.safetensors").exists()
    assert not (tmp_path / "run" / "checkpoints" / "best.safetensors").exists()
    assert json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[-1])["event"] == "diverged"


def test_holdout_picks_the_best_epoch(tmp_path):
    result = train(tmp_path / "run", holdout=0.2, epochs=4)
    rows = list(csv.DictReader((result.folder / "results.csv").open()))
    best = max(float(row["holdout_top1"]) for row in rows)
    stored = rk.load(result.folder / "checkpoints" / "best.safetensors")
    assert stored.metrics["top1"] == best
    assert same_tensors(result.folder / "checkpoints/best.safetensors", result.folder / "model.safetensors")
    assert result.metrics["split"] == "test"


def test_the_test_part_is_never_seen_before_the_end(tmp_path, monkeypatch):
    seen = []
    answer = trainer.answer

    def watched(*arguments):
        result = answer(*arguments)
        seen.append(len(result.labels))
        return result

    monkeypatch.setattr(trainer, "answer", watched)
    train(tmp_path / "run", holdout=0.1)
    assert seen.count(359) == 1 and seen[-1] == 359


def test_weights_move_only_where_they_should(tmp_path):
    """No decay on norms and biases: with a zero gradient only convolutions and the classifier's weight shrink."""
    from resnetkit.training.optimizer import make_optimizer
    from resnetkit.training.recipe import make_recipe

    net = rk.build("resnet8_cifar")
    before = {name: p.clone() for name, p in net.named_parameters()}
    optimizer = make_optimizer(
        net, make_recipe({"model": "resnet8_cifar", "epochs": 1, "lr": 1.0, "weight_decay": 0.1})
    )
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    moved = {name for name, p in net.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {name for name, p in before.items() if p.ndim > 1}


def test_the_average_is_pytorchs():
    from torch.optim.swa_utils import AveragedModel

    from resnetkit.training.averaging import Average

    net = rk.build("resnet8_cifar").train()
    ours = Average(net, 0.3)
    decays = [1 / 10, 2 / 11, 3 / 12, 0.3, 0.3]  # TensorFlow's ExponentialMovingAverage with num_updates

    def averaged(values, currents, _):
        for value, current in zip(values, currents):
            value.copy_(decays[step] * value + (1 - decays[step]) * current)

    theirs = AveragedModel(net, multi_avg_fn=averaged, use_buffers=True)
    theirs.update_parameters(net)  # its first update copies
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-5)
    for step in range(5):
        net(torch.randn(4, 3, 16, 16)).square().sum().backward()
        optimizer.step()
        ours.update(step)
        theirs.update_parameters(net)
    reference = theirs.module.state_dict()
    for name, value in ours.values.items():
        torch.testing.assert_close(value, reference[name])


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"workers": -2}, "workers=-2 is impossible; it must be a whole number, 0 or more"),
        ({"workers": "2"}, "workers='2' is impossible"),
        ({"max_bad": "10%"}, "max_bad='10%' is impossible; it must be a number, 0 to 1"),
        ({"max_bad": 3}, "max_bad=3 is impossible"),
        ({"weights": True}, "a checkpoint or an id is wanted, not bool"),
    ],
)
def test_wrong_arguments_leave_no_folder(tmp_path, wrong, says):
    with pytest.raises(ResnetkitError, match=says):
        rk.train("digits", out=tmp_path / "run", epochs=1, **wrong)
    assert not (tmp_path / "run").exists()


def test_a_step_is_plain_pytorch(tmp_path):
    """Four steps of ours against a loop written straight from the documentation; in float64, since four steps make
    float32's rounding, which differs by processor, a thousand times larger (the loss stays float32)."""
    from itertools import islice
    from types import SimpleNamespace

    from resnetkit.data.loaders import TrainingBatches
    from resnetkit.training.prepare import prepare
    from resnetkit.training.schedule import learning_rate

    settings = {"model": "resnet8_cifar", "epochs": 1, "precision": "float32"}
    prepared = prepare("digits", None, settings, 0.1)
    state, _ = run.new_state(prepared, torch.device("cpu"))
    state.net.double()
    reference = rk.build("resnet8_cifar", 10, in_channels=1).double()
    reference.load_state_dict(state.net.state_dict())
    recipe, preprocessing = prepared.recipe, prepared.preprocessing
    batches = TrainingBatches(
        prepared.parts["train"], preprocessing, prepared.augmentation, batch_size=recipe.batch_size, seed=0, workers=0
    )
    loop.train_epoch(
        state,
        islice(batches.epoch(0, (8, 8)), 4),
        recipe,
        rate=lambda step: learning_rate(recipe, step, batches.steps),
        preprocessing=SimpleNamespace(normalise=lambda images: preprocessing.normalise(images).double()),
        after_step=lambda *_: None,
    )
    decayed = [p for p in reference.parameters() if p.ndim > 1]
    rest = [p for p in reference.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 5e-4}, {"params": rest}]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True)
    reference.train()
    for step, (images, labels) in enumerate(islice(batches.epoch(0, (8, 8)), 4)):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, step, batches.steps)
        x = preprocessing.normalise(images).double()
        torch.testing.assert_close(x.float(), (images / 255 - preprocessing.mean[0]) / preprocessing.std[0])
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(reference(x), labels).backward()
        optimizer.step()
    ours = state.net.state_dict()
    for name, value in reference.state_dict().items():
        torch.testing.assert_close(ours[name], value, rtol=1e-5, atol=1e-6)
