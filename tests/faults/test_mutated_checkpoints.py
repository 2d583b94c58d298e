"""Ten thousand damaged copies of sound files: each is refused, or gives what safetensors and torch give for it."""

import random
import re
import time
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from resnetkit.errors import ModelFileRefused
from resnetkit.weights import pickled
from resnetkit.weights.checkpoint import open_checkpoint
from tests.faults.hostile import saved, state

SECONDS = 1.0  # of processor time, over which a file counts as a hang


def mutated(content: bytes, seed: int) -> bytes:
    """One to four flips of a bit, bytes overwritten, cuts, splices or doublings, the same for the same seed."""
    draw = random.Random(seed)
    changed = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        at, end = sorted(draw.randrange(len(changed) + 1) for _ in range(2))
        kind = draw.choice(["flip", "flip", "byte", "cut", "splice", "double", "number"])
        if kind == "flip" and at < len(changed):
            changed[at] ^= 1 << draw.randrange(8)
        elif kind == "byte" and at < len(changed):
            changed[at] = draw.choice(b'\x00\xff\x7f09.[]{}",:()cRbQ')
        elif kind == "number":
            changed[at : at + 8] = draw.choice([0, 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1]).to_bytes(8, "little")
        elif kind == "cut":
            del changed[at : min(end, at + draw.choice([1, 8, 1 << 30]))]
        elif kind == "splice":
            changed[at:at] = changed[draw.randrange(len(changed) + 1) :][: draw.randrange(64)]
        elif kind == "double":
            changed[at:at] = changed[at:end]
    return bytes(changed)


def outcome(path: Path, content: bytes) -> dict[str, torch.Tensor] | None:
    """The tensors of a file with that content, None where it is refused."""
    path.unlink(missing_ok=True)  # cutting a file to write it again costs milliseconds
    path.write_bytes(content)
    start = time.process_time()
    try:
        return open_checkpoint(path).tensors
    except ModelFileRefused as refused:
        assert len(str(refused).splitlines()) == 1
        return None
    finally:
        assert time.process_time() - start < SECONDS


def sound_file(zipped: bool) -> bytes:
    """The same bytes in every process: the older layout names and sorts storages by address; here it has one, 0."""
    if zipped:
        return saved({"state_dict": state(), "epoch": 3})
    storage = torch.arange(60.0)
    views = {"conv.weight": storage[:36].view(4, 1, 3, 3), "fc.weight": storage[36:].view(8, 3).t(), "bias": storage[3]}
    content = saved({"state_dict": views, "epoch": 3}, zipped=False)
    return re.sub(rb"X.\0\0\0%d" % storage.untyped_storage()._cdata, b"X\1\0\0\0000", content)


def check_safetensors(path: Path, seeds: range) -> int:
    """How many of the mutations load; each of them as the library loads it."""
    sound = save(state(), {"format": "pt"})
    loaded = 0
    for seed in seeds:
        content = mutated(sound, seed)
        found = outcome(path, content)
        if found is None:
            continue
        loaded += 1
        try:
            expected = load(content)
        except SafetensorError as error:
            raise AssertionError(f"seed {seed}: the library refuses what was let in: {error}") from error
        assert found.keys() == expected.keys(), seed
        assert all(torch.equal(found[name], expected[name]) for name in expected), seed
    return loaded


def test_mutations_of_safetensors(tmp_path):
    loaded = check_safetensors(tmp_path / "x.safetensors", range(10_000))
    assert 0 < loaded < 5_000


@pytest.fixture
def in_this_process(monkeypatch):
    """The child's reading without the child: ten thousand processes would take hours."""

    def unpickled(path, file, keys, needed):
        file.seek(0)
        try:
            found = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:
            raise ModelFileRefused(f"{path}: {str(error).splitlines()[0]}") from error
        for key in keys:
            found = found[key]
        return {name: value for name, value in found.items() if isinstance(value, torch.Tensor)}

    monkeypatch.setattr(pickled, "unpickled", unpickled)


@pytest.mark.parametrize("zipped", [True, False])
def test_mutations_of_torch_files(tmp_path, in_this_process, zipped):
    """What the scan lets pass, torch reads or refuses; what it reads has the shapes that were declared."""
    sound = sound_file(zipped)
    found = [outcome(tmp_path / "x.pth", mutated(sound, seed)) for seed in range(5_000)]
    loaded = [tensors for tensors in found if tensors is not None]
    assert 0 < len(loaded) < 2_500


@pytest.mark.slow
@pytest.mark.parametrize("zipped", [True, False])
def test_mutations_through_the_child(tmp_path, zipped):
    sound = sound_file(zipped)
    path = tmp_path / "x.pth"
    through = 0
    for seed in range(300):
        path.write_bytes(mutated(sound, seed))
        try:
            assert open_checkpoint(path).tensors
            through += 1
        except ModelFileRefused as refused:
            assert len(str(refused).splitlines()) == 1
    assert through >= 5
