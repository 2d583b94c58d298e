"""What trackers were told, read back by their own libraries; and that none can end a run."""

import csv
import json
import struct
import subprocess
import sys
from importlib.machinery import PathFinder
from unittest.mock import MagicMock

import pytest

import resnetkit as rk
from resnetkit.errors import ResnetkitError
from resnetkit.training import tracking, trainer
from resnetkit.training.journal import Journal

TINY = {"model": "resnet8_cifar", "epochs": 3}


def train(out, *track, **settings):
    return rk.train("digits", out=out, track=track, **TINY | settings)


def interrupt(monkeypatch, step):
    """Stop the next run after `step` (23 an epoch), once."""
    after_step = trainer.Trainer._after_step

    def stop_there(self, state, waited):
        self.stop.requested |= state.step == step
        after_step(self, state, waited)

    monkeypatch.setattr(trainer.Trainer, "_after_step", stop_there)


def interrupted_and_resumed(out, monkeypatch, *track):
    with monkeypatch.context() as patched:
        interrupt(patched, 30)
        with pytest.raises(rk.ResnetkitError, match="--resume"):
            train(out, *track)
    return rk.train(resume=out)


def table(run):
    """results.csv by column."""
    rows = list(csv.DictReader((run.folder / "results.csv").open()))
    return {name: [float(row[name]) for row in rows] for name in rows[0]}


def place(folder, name):
    return json.loads((folder / "command.json").read_text())["track"][name]


def read_events(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder / "tensorboard"))
    found.Reload()
    return found


def test_tensorboard_reads_the_runs_figures(tmp_path, monkeypatch):
    run = interrupted_and_resumed(tmp_path / "run", monkeypatch, "tensorboard")
    found = read_events(run.folder)
    for name, column in table(run).items():
        if name != "epoch":
            scalars = found.Scalars(name)
            assert [scalar.step for scalar in scalars] == [1, 2, 3]
            assert [scalar.value for scalar in scalars] == pytest.approx(column, rel=1e-6)
    assert found.Scalars("final_test_top1")[0].value == pytest.approx(run.metrics["top1"])
    assert found.Scalars("final_test_n")[0].value == 359
    assert "| model | resnet8_cifar |" in found.Tensors("settings/text_summary")[0].tensor_proto.string_val[0].decode()


def test_epochs_past_the_checkpoint_are_told_once(tmp_path):
    """As after a crash between an epoch's figures and its checkpoint: TensorBoard shows the second telling."""
    journal = Journal(tmp_path, tracking.Trackers(tmp_path, {"tensorboard": {"folder": "tensorboard"}}))
    journal.write("started", lr=0.1)
    for epoch in (1, 2):
        journal.write_epoch(epoch=epoch, train_loss=float(epoch))
    journal.write("interrupted", step=0)
    journal = Journal(tmp_path, tracking.Trackers(tmp_path, {"tensorboard": {"folder": "tensorboard"}}))
    journal.resume(1)
    journal.write("resumed", step=0, epochs=1)
    journal.write_epoch(epoch=2, train_loss=7.0)
    journal.write("finished", split="test", top1=0.5)
    scalars = read_events(tmp_path).Scalars("train_loss")
    assert [(scalar.step, scalar.value) for scalar in scalars] == [(1, 1.0), (2, 7.0)]


@pytest.fixture
def mlflow_store(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    pytest.importorskip("alembic", reason="MLflow keeps its local store with it")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    return tmp_path


def test_mlflow_reads_the_runs_figures(mlflow_store, monkeypatch):
    from mlflow import MlflowClient

    run = interrupted_and_resumed(mlflow_store / "run", monkeypatch, "mlflow")
    client = MlflowClient()
    (experiment,) = (e for e in client.search_experiments() if e.name == "resnetkit")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.run_id == place(run.folder, "mlflow")["run"]
    assert (found.info.status, found.info.run_name) == ("FINISHED", "run")
    assert found.data.params["model"] == "resnet8_cifar" and found.data.params["lr"] == "0.1"
    for name, column in table(run).items():
        if name != "epoch":
            told = client.get_metric_history(found.info.run_id, name)
            assert {metric.step: metric.value for metric in told} == dict(enumerate(column, 1))
    assert found.data.metrics["final_test_top1"] == run.metrics["top1"]


def test_mlflow_knows_how_a_run_ended(mlflow_store, monkeypatch):
    from mlflow import MlflowClient

    def status(name):
        return MlflowClient().get_run(place(mlflow_store / name, "mlflow")["run"]).info.status

    with monkeypatch.context() as patched:
        interrupt(patched, 2)
        with pytest.raises(rk.ResnetkitError):
            train(mlflow_store / "stopped", "mlflow", epochs=1)
    assert status("stopped") == "KILLED"
    with pytest.raises(rk.ResnetkitError, match="the loss is"):
        train(mlflow_store / "diverged", "mlflow", epochs=1, lr=1e20)
    assert status("diverged") == "FAILED"
    monkeypatch.setattr(Journal, "write_epoch", lambda journal, **values: bytearray(2**62))
    with pytest.raises(rk.ResnetkitError, match="too little memory"):
        train(mlflow_store / "full", "mlflow", epochs=1)
    assert status("full") == "FAILED"


class Refusing(tracking.Tracker):
    @staticmethod
    def begin():
        raise ConnectionError("no such host")


def test_a_tracker_that_refuses_leaves_no_folder_behind(tmp_path, monkeypatch):
    monkeypatch.setitem(tracking.TRACKERS, "tensorboard", Refusing)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(rk.ResnetkitError, match="track tensorboard: no such host"):
        rk.train("digits", track="tensorboard", **TINY)
    assert list(tmp_path.iterdir()) == []


class Listening(tracking.Tracker):
    heard: list[str] = []

    def started(self, settings):
        self.heard.append("started")

    def failed(self, values):
        self.heard.append("failed")

    def finished(self, metrics):
        self.heard.append("finished")


@pytest.mark.parametrize("fault", ["disk", "path", "memory"])
def test_trackers_hear_of_a_run_that_the_machine_ends(tmp_path, monkeypatch, fault):
    monkeypatch.setitem(tracking.TRACKERS, "tensorboard", Listening)
    monkeypatch.setattr(Listening, "heard", [])

    log = tmp_path / "run" / "log.jsonl"

    def full(journal, **values):
        if fault == "memory":
            bytearray(2**62)
        log.unlink()
        if fault == "disk":
            log.symlink_to("/dev/full")
        else:
            log.mkdir()  # nothing can be written to it any more
        journal.write("epoch", **values)

    monkeypatch.setattr(Journal, "write_epoch", full)
    with pytest.raises(ResnetkitError) as ended:
        train(tmp_path / "run", "tensorboard", epochs=1)
    assert ended.value.exit_code == (2 if fault == "path" else 5)
    assert Listening.heard == ["started", "failed"]


def test_mlflow_passwords_are_not_written_down(mlflow_store, monkeypatch):
    assert "uri" in tracking.begin(["mlflow"])["mlflow"]
    monkeypatch.setattr("mlflow.get_tracking_uri", lambda: "https://me:secret@host")
    monkeypatch.setattr("mlflow.MlflowClient", lambda uri: MagicMock())
    assert "uri" not in tracking.begin(["mlflow"])["mlflow"]


def test_a_store_that_is_not_there_is_an_error_before_the_run(mlflow_store, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nowhere://else")
    with pytest.raises(rk.ResnetkitError, match="track mlflow: .*nowhere"):
        train(mlflow_store / "run", "mlflow")
    assert not (mlflow_store / "run").exists()


def records(file):
    """The payloads of a .wandb file: after 7 bytes, LevelDB's log format (blocks of 32 KiB; checksum, length, kind)."""
    data, position, whole = file.read_bytes(), 7, b""
    while position + 7 <= len(data):
        left = 2**15 - position % 2**15
        if left < 7:
            position += left
            continue
        length, kind = struct.unpack_from("<HB", data, position + 4)
        whole += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield whole
            whole = b""


def history(folder, run):
    """What a folder of offline files tells of a run: every epoch's values, the summary, the settings."""
    from wandb.proto import wandb_internal_pb2

    def values(items):
        return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}

    steps, summary, config = {}, {}, {}
    for file in sorted(folder.glob(f"wandb/offline-run-*-{run}/run-{run}.wandb")):
        for payload in records(file):
            record = wandb_internal_pb2.Record.FromString(payload)
            if items := values(record.history.item):
                steps[record.history.step.num or items["_step"]] = items
            summary |= values(record.summary.update)
            config |= values(record.config.update)
    return steps, summary, config


def test_wandb_reads_the_runs_figures(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = interrupted_and_resumed(tmp_path / "run", monkeypatch, "wandb")
    steps, summary, config = history(run.folder, place(run.folder, "wandb")["run"])
    for name, column in table(run).items():
        if name != "epoch":
            assert {step: items[name] for step, items in steps.items()} == dict(enumerate(column, 1))
    assert summary["final_test_top1"] == run.metrics["top1"]
    assert config["model"] == "resnet8_cifar"


class Broken(tracking.Tracker):
    """Works until the second epoch."""

    asked: list[str] = []

    def epoch(self, values):
        self.asked.append("epoch")
        if values["epoch"] == 2:
            raise ConnectionError("the network\nis gone")

    def finished(self, metrics):
        self.asked.append("finished")


def test_a_tracker_that_fails_is_named_once_and_the_run_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(tracking.TRACKERS, "tensorboard", Broken)
    monkeypatch.setattr(Broken, "asked", [])
    run = train(tmp_path / "run", "tensorboard")
    assert run.metrics["n"] == 359 and Broken.asked == ["epoch", "epoch"]
    said = capsys.readouterr().err
    assert said.count("does not follow") == 1
    assert "resnet: tensorboard does not follow the run any more: the network is gone\n" in said


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_full_disk_ends_no_training(tmp_path, monkeypatch, capsys):
    """The real writer, whose thread cannot write."""

    def refuse(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tensorboard.summary.writer.record_writer.RecordWriter.write", refuse)
    assert train(tmp_path / "run", "tensorboard", epochs=2).metrics["n"] == 359
    assert capsys.readouterr().err.count("does not follow") == 1


def test_tracking_changes_no_figure(tmp_path):
    one, other = train(tmp_path / "one", epochs=1), train(tmp_path / "other", "tensorboard", epochs=1)
    assert one.metrics == other.metrics


@pytest.mark.parametrize("name", ["tensorboard", "mlflow", "wandb"])
def test_a_missing_package_is_named_before_anything_is_read(tmp_path, monkeypatch, name):
    (tmp_path / name).mkdir()  # such as wandb leaves behind; it is no package
    monkeypatch.setattr(tracking, "find_spec", lambda name: PathFinder.find_spec(name, [str(tmp_path)]))
    with pytest.raises(rk.ResnetkitError) as refused:
        rk.train("nowhere", track=[name])
    assert str(refused.value) == f"track {name} needs a package that is not here: pip install 'resnetkit[{name}]'"


def test_unknown_trackers_and_resumes_are_refused(tmp_path):
    with pytest.raises(rk.ResnetkitError, match="no tracker is called 'tensorbord'; did you mean tensorboard?"):
        rk.train("nowhere", track=["tensorbord"])
    with pytest.raises(rk.ResnetkitError, match="no tracker is called 'tensorbord'"):
        rk.train("nowhere", track="tensorbord")
    with pytest.raises(rk.ResnetkitError, match="give --resume alone"):
        rk.train(resume=tmp_path, track=["tensorboard"])


def test_one_tracker_needs_no_list(tmp_path):
    run = rk.train("digits", out=tmp_path / "run", track="tensorboard", **TINY | {"epochs": 1})
    assert place(run.folder, "tensorboard") and list((run.folder / "tensorboard").iterdir())


def test_no_library_is_imported_unasked(tmp_path):
    code = (
        "import sys, resnetkit as rk\n"
        f"rk.train('digits', out={str(tmp_path / 'run')!r}, model='resnet8_cifar', epochs=1)\n"
        "print([name for name in ('tensorboard', 'mlflow', 'wandb', 'tifffile') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
