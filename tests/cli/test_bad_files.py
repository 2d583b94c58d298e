"""A folder as bad as folders get: it trains, and every other image is answered."""

import ctypes
import json
import os
import re
import subprocess
import sys
import time

import pytest

from resnetkit.tables import read_csv
from tests.data.bad_files import GOOD, make_folder

DROP_BOUND, OVERRIDE, SEARCH = 24, 1, 2  # linux/prctl.h and linux/capability.h


def without_privilege():
    """Permissions bind the owner of a file, but not root; this makes them bind root too."""
    for capability in (OVERRIDE, SEARCH):
        ctypes.CDLL(None).prctl(DROP_BOUND, capability, 0, 0, 0)


def resnet(*arguments, cwd):
    command = [sys.executable, "-m", "resnetkit.cli.main", *map(str, arguments)]
    options = {"preexec_fn": without_privilege} if os.geteuid() == 0 else {}
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, timeout=300, **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("bad") / "photos"
    bad, odd = make_folder(root)
    yield root, bad, odd
    (root / "cat" / "locked").chmod(0o700)


@pytest.fixture(scope="module")
def trained(folder):
    root, _, _ = folder
    arguments = ("--model", "resnet8_cifar", "--epochs", 1, "--img-size", 32, "--workers", 0, "--out", "run")
    return resnet("train", root, *arguments, cwd=root.parent)


def test_it_trains_and_every_bad_file_has_its_reason(folder, trained):
    root, bad, odd = folder
    assert trained.returncode == 0, trained.stderr.decode()
    told = {row["path"]: row["reason"] for row in read_csv(root.parent / "run" / "bad_files.csv")}
    assert set(told) == set(bad)
    for path, reason in bad.items():
        assert re.search(reason, told[path]), f"{path}: {told[path]}"
    assert not [reason for reason in told.values() if "\n" in reason or "Errno" in reason]
    used = {row["path"]: row["class"] for row in read_csv(root.parent / "run" / "split.csv")}
    assert len(used) == 2 * GOOD + len(odd) and odd < set(used)
    assert json.loads((root.parent / "run" / "classes.json").read_text()) == ["cat", "dog"]


def test_predict_answers_all_others_and_names_the_bad(folder, trained):
    root, bad, odd = folder
    assert trained.returncode == 0
    done = resnet("predict", "run", "photos", "--json", cwd=root.parent)
    assert done.returncode == 3, done.stderr.decode()
    answered = {json.loads(line)["path"] for line in done.stdout.splitlines()}
    unclassed = {"beside.png", "cat/far.png"}  # images, though of no class, or elsewhere
    expected = odd | unclassed | {f"{name}/{i:03d}.jpg" for name in ("cat", "dog") for i in range(GOOD)}
    assert {path.removeprefix("photos/") for path in answered} == expected
    for path in set(bad) - unclassed:
        assert f"photos/{path}: ".encode() in done.stderr


def test_no_file_takes_long(folder):
    from resnetkit.data.preprocess import BadImage, decode

    root, bad, odd = folder
    for path in [*bad, *odd]:
        begun = time.perf_counter()
        try:
            decode(root / path, "rgb")
        except BadImage:
            pass
        assert time.perf_counter() - begun < 5, path
