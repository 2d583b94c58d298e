"""The search as a user types it."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

RESNET = [sys.executable, "-m", "resnetkit.cli.main"]
TINY = ["--model", "resnet8_cifar", "--epochs", "1", "--set", "batch_size=128"]


def resnet(*arguments, **options):
    return subprocess.run([*RESNET, *map(str, arguments)], capture_output=True, text=True, **options)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    return folder, resnet("tune", "digits", *TINY, "--trials", 2, cwd=folder)


def test_it_prints_a_table_and_the_next_command_works(tuned):
    folder, done = tuned
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    header = lines[0].split()
    assert header[:3] == ["trial", "lr", "weight_decay"] and header[-1] == "outcome"
    assert [line.split()[0] for line in lines[1:3]] == ["0", "1"]
    assert "95 % interval" in done.stdout and "test part was not run" in done.stdout
    command = lines[-1].removeprefix("next: resnet ").split()
    assert command == ["train", "digits", "--recipe", "runs/tune-digits-1/best.toml"]
    trained = resnet(*command, "--json", cwd=folder)
    assert trained.returncode == 0 and json.loads(trained.stdout)["split"] == "test"


def test_json_is_one_object(tuned):
    folder, _ = tuned
    done = resnet("tune", "--resume", "runs/tune-digits-1", "--json", cwd=folder)
    found = json.loads(done.stdout)
    assert found["recipe"] == "runs/tune-digits-1/best.toml" and found["split"] == "holdout"
    assert [trial["trial"] for trial in found["trials"]] == [0, 1]
    assert found["top1"] == found["best"]["top1"] and found["top1_interval"][0] < found["top1"]


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_ctrl_c_exits_75_and_only_what_is_missing_runs(tmp_path):
    study = tmp_path / "search" / "study.jsonl"
    process = subprocess.Popen(
        [*RESNET, "tune", "digits", *TINY, "--epochs", "3", "--trials", "3", "--out", "search"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while (not study.exists() or "user_attrs" not in study.read_text()) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75, errors
    assert "go on with: resnet tune --resume search" in errors
    before = study.read_text()
    done = resnet("tune", "--resume", "search", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert study.read_text().startswith(before) and study.read_text().count("user_attrs") == 3
    assert "trial 0 of 3" not in done.stderr and "trial 2 of 3" in done.stderr
