"""Hostile checkpoints are refused in one line, soon, cheaply, and nothing in them runs: a canary would tell."""

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from resnetkit.errors import ModelFileRefused
from resnetkit.weights import pickled
from resnetkit.weights.checkpoint import open_checkpoint
from resnetkit.weights.pickle_scan import Declared, Storage
from tests.faults.hostile import FILES, FOLDERS, PICKLES, archive, state

MEGABYTE = 1 << 20


class Canary:
    """A payload that leaves a file, sets a variable and calls a socket, and whether any of it happened."""

    def __init__(self, folder: Path, listener: socket.socket) -> None:
        self.file, self.listener = folder / "canary", listener
        self.source = (
            f"import os, socket; open({str(self.file)!r}, 'w').close(); os.environ['RESNETKIT_CANARY'] = '1'; "
            f"socket.create_connection({listener.getsockname()!r}, 5).close()"
        )

    def sang(self) -> bool:
        try:
            self.listener.accept()[0].close()
        except BlockingIOError:
            return self.file.exists() or "RESNETKIT_CANARY" in os.environ
        return True


@pytest.fixture
def canary(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield Canary(tmp_path, listener)
    os.environ.pop("RESNETKIT_CANARY", None)


@pytest.fixture
def no_child(monkeypatch):
    """Fails where a file that should be refused at once gets as far as the process that unpickles."""

    def started(*_arguments):
        raise AssertionError("the scan let it pass")

    monkeypatch.setattr(pickled, "unpickled", started)


def peak_memory() -> int:
    """The most bytes this process has held since the mark was last reset."""
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024


def cost_of_refusal(path: Path) -> tuple[str, float, int]:
    """The message, the seconds of processor time, those of processes that were started among them, and the additional
    bytes of memory."""
    Path("/proc/self/clear_refs").write_text("5")
    before, start = peak_memory(), sum(os.times()[:4])
    with pytest.raises(ModelFileRefused) as refused:
        open_checkpoint(path)
    assert refused.value.exit_code == 4
    return str(refused.value), sum(os.times()[:4]) - start, peak_memory() - before


def check_refusal(path: Path, empty: Path) -> None:
    _, empty_seconds, empty_memory = cost_of_refusal(empty)
    message, seconds, memory = cost_of_refusal(path)
    assert str(path) in message and len(message.splitlines()) == 1 and message.isprintable()
    assert len(message) < len(str(path)) + 500
    assert ";" in message  # a cure follows
    assert seconds - empty_seconds < 1
    assert memory - empty_memory < 100 * MEGABYTE


def test_a_damaged_archive_costs_no_process(tmp_path, monkeypatch):
    """Starting one takes seconds. Of single bytes changed in an archive's directory and end, what PyTorch refuses is
    refused before, but for a few in a hundred that only its own reader sees."""

    class Started(Exception):
        pass

    def started(*_arguments):
        raise Started

    monkeypatch.setattr(pickled, "unpickled", started)
    path = tmp_path / "damaged.pth"
    torch.save(state(), path)
    sound = path.read_bytes()
    refused = {"here": 0, "there": 0}
    for at in range(sound.find(b"PK\1\2"), len(sound)):
        path.write_bytes(sound[:at] + bytes([sound[at] ^ 0x81]) + sound[at + 1 :])
        try:
            with pytest.raises(ModelFileRefused):
                open_checkpoint(path)
            refused["here"] += 1
        except Started:
            try:
                torch.load(path, weights_only=True)
            except Exception:
                refused["there"] += 1
    assert refused["here"] > 100 and refused["there"] < 0.05 * refused["here"], refused


@pytest.fixture
def empty(tmp_path):
    (tmp_path / "empty.pth").touch()
    return tmp_path / "empty.pth"


def test_there_are_forty():
    assert len(FILES) + len(FOLDERS) >= 40


@pytest.mark.parametrize("name", FILES)
def test_hostile_files(tmp_path, canary, empty, no_child, name):
    path = tmp_path / name
    path.write_bytes(FILES[name](canary.source))
    check_refusal(path, empty)
    assert not canary.sang()


@pytest.mark.parametrize("name", FOLDERS)
def test_hostile_folders(tmp_path, empty, no_child, name):
    outside = tmp_path / "outside.safetensors"
    save_file({"a": torch.zeros(1)}, outside)
    check_refusal(FOLDERS[name](tmp_path / "folder", outside), empty)


def test_pipes_devices_and_broken_links(tmp_path, empty):
    os.mkfifo(tmp_path / "pipe.pth")
    (tmp_path / "zero.pth").symlink_to("/dev/zero")
    (tmp_path / "lost.pth").symlink_to(tmp_path / "nothing")
    for name in ("pipe.pth", "zero.pth", "lost.pth"):
        check_refusal(tmp_path / name, empty)


@pytest.mark.parametrize("kind", PICKLES)
def test_the_pickles_do_run_when_opened_without_care(tmp_path, canary, kind):
    (tmp_path / "x.pkl").write_bytes(PICKLES[kind](canary.source))
    careless = "import pickle, sys\ntry: pickle.load(open(sys.argv[1], 'rb'))\nexcept Exception: pass"
    subprocess.run([sys.executable, "-c", careless, str(tmp_path / "x.pkl")], check=True)
    assert canary.sang()


@pytest.fixture
def pickled_call(tmp_path, canary):
    path = tmp_path / "x.pt"
    path.write_bytes(archive({"x/data.pkl": PICKLES["reduce, protocol 2"](canary.source), "x/version": b"3\n"}))
    return path


@pytest.fixture
def no_scan(monkeypatch):
    declared = {"w": Declared(Storage(torch.float32, "0", 1), (1,))}
    monkeypatch.setattr(pickled, "scan_archive", lambda _file: declared)


@pytest.fixture
def careless_child(tmp_path, monkeypatch):
    source = pickled.CHILD.read_text()
    assert source.count("weights_only=True") == 1
    (tmp_path / "child.py").write_text(source.replace("weights_only=True", "weights_only=False"))
    monkeypatch.setattr(pickled, "CHILD", tmp_path / "child.py")


def refused(path: Path) -> str:
    with pytest.raises(ModelFileRefused) as error:
        open_checkpoint(path)
    return str(error.value)


def test_the_scan_guards_alone(pickled_call, canary, careless_child):
    assert "it wants __builtin__.exec" in refused(pickled_call)
    assert not canary.sang()


def test_the_child_guards_alone(pickled_call, canary, no_scan):
    assert "torch does not read it" in refused(pickled_call)
    assert not canary.sang()


def test_without_both_guards_the_canary_sings(pickled_call, canary, no_scan, careless_child):
    refused(pickled_call)
    assert canary.sang()


@pytest.mark.parametrize(
    ("name", "guard"),
    [
        ("overlap.safetensors", "resnetkit.weights.safetensors_file.check_cover"),
        ("trailing.safetensors", "resnetkit.weights.safetensors_file.check_cover"),
        ("not a number.safetensors", "resnetkit.weights.checkpoint.bad_values"),
        ("negative variance.safetensors", "resnetkit.weights.checkpoint.bad_values"),
    ],
)
def test_without_its_guard_a_file_is_let_in(tmp_path, monkeypatch, name, guard):
    (tmp_path / name).write_bytes(FILES[name](""))
    monkeypatch.setattr(guard, lambda *_arguments: [])
    assert open_checkpoint(tmp_path / name).tensors


def test_keys_that_take_for_ever_to_hash_are_refused(tmp_path):
    name = "tuples of tuples.pth"
    (tmp_path / name).write_bytes(FILES[name](""))
    assert "whose dict has keys that are no names" in refused(tmp_path / name)


def test_without_the_check_of_names_another_folder_is_read(tmp_path, monkeypatch):
    save_file({"a": torch.zeros(1)}, tmp_path / "outside.safetensors")
    folder = FOLDERS["traversal"](tmp_path / "folder", tmp_path / "outside.safetensors")
    monkeypatch.setattr("resnetkit.weights.checkpoint.within", lambda folder, name: folder / name)
    assert list(open_checkpoint(folder).tensors) == ["a"]


def test_a_child_that_hangs_is_killed(tmp_path, monkeypatch):
    torch.save(state(), tmp_path / "x.pt")
    (tmp_path / "child.py").write_text("while True: pass")
    monkeypatch.setattr(pickled, "CHILD", tmp_path / "child.py")
    monkeypatch.setattr(pickled, "SECONDS", 0.5)
    start = time.perf_counter()
    assert "took over" in refused(tmp_path / "x.pt")
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize(
    ("crime", "says"),
    [
        ("import os; os.abort()", "ended with signal 6"),
        ("import sys; sys.exit('line 1\\nValueError: x')", "ValueError: x"),
        ("import sys; open(sys.argv[1], 'wb').write(b'x' * 99)", "not a safetensors file"),
    ],
)
def test_a_child_that_fails_is_told_in_a_line(tmp_path, monkeypatch, crime, says):
    torch.save(state(), tmp_path / "x.pt")
    (tmp_path / "child.py").write_text(crime)
    monkeypatch.setattr(pickled, "CHILD", tmp_path / "child.py")
    message = refused(tmp_path / "x.pt")
    assert says in message and len(message.splitlines()) == 1 and str(tmp_path / "x.pt") in message


def test_a_child_that_grows_is_stopped(tmp_path, monkeypatch):
    torch.save(state(), tmp_path / "x.pt")
    grown = pickled.CHILD.read_text().replace("    with open(0,", "    block = bytearray(2 << 30)\n    with open(0,")
    assert "bytearray" in grown
    (tmp_path / "child.py").write_text(grown)
    monkeypatch.setattr(pickled, "CHILD", tmp_path / "child.py")
    assert "MemoryError" in refused(tmp_path / "x.pt")


def test_the_child_knows_no_secrets(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.syspath_prepend("")
    assert "secret" not in pickled.environment().values()
    assert "" not in pickled.environment()["PYTHONPATH"].split(os.pathsep)
