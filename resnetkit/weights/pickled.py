"""A file of torch.save: scanned here, unpickled by `torch.load(weights_only=True)` in a process that may die.

Two layouts are read: the zip archive (since torch 1.6) with `data.pkl` and one record a storage, and before it five
pickles, then the storages, each behind its count. Source: torch/serialization.py of PyTorch 2.13.
"""

import json
import os
import struct
import subprocess
import sys
import tempfile
import zipfile
from io import BufferedReader
from pathlib import Path
from typing import Any

from torch import Tensor

from resnetkit.errors import ModelFileRefused
from resnetkit.user_cache import require_space
from resnetkit.weights.pickle_scan import PICKLE_BYTES, Declared, Refusal, Scan, Storage
from resnetkit.weights.safetensors_file import read_open_safetensors
from resnetkit.weights.untrusted import one_line, shown, size_of
from resnetkit.weights.wrappings import chosen

CHILD = Path(__file__).with_name("pickled_child.py")
MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
RECORDS = 40_000
RECORD_BYTES = 46  # the least that a record's line in the directory takes
LARGE_END = struct.Struct("<4sQHHIIQQQQ 4sIQI")  # APPNOTE 6.3, sections 4.3.14 and 4.3.15
ALLOWED = 0x808  # bits of a record's flags: sizes stand behind it, its name is UTF-8
SECONDS = 60  # to start, and again for every gigabyte
MEMORY = 1 << 30


def read_pickled(path: Path, file: BufferedReader) -> tuple[dict[str, Tensor], list[str]]:
    """The state dict in a file of torch.save, and what was left out, a line each. Raises ModelFileRefused."""
    try:
        is_archive = file.read(4) == b"PK\3\4"
        file.seek(0)
        tree = scan_archive(file) if is_archive else scan_legacy(file)
        keys, found, notes = chosen(tree)
        expected = {name: value for name, value in found.items() if isinstance(value, Declared)}
        needed = sum(tensor.nbytes for tensor in expected.values())
        if needed > 2 * size_of(file):
            raise Refusal("its tensors need more bytes than the file has; save them without sharing memory")
    except Refusal as refusal:
        raise ModelFileRefused(f"{path}: {refusal}") from refusal
    tensors = unpickled(path, file, keys, needed)
    read = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    if read != {name: (tensor.storage.dtype, tensor.shape) for name, tensor in expected.items()}:
        raise ModelFileRefused(f"{path}: it holds other tensors than it declares; download it again")
    return tensors, notes


def scan_archive(file: BufferedReader) -> Any:
    """What `data.pkl` of an archive would build, its storages found in the file. Raises Refusal."""
    listed = listed_records(file)
    if listed > RECORDS:
        raise Refusal(f"an archive of over {RECORDS} records; save it as safetensors")
    try:
        with zipfile.ZipFile(file) as archive:
            records = checked_records(archive, size_of(file))
            if len(records) != listed:
                raise Refusal(f"an archive of {len(records)} records that claims {listed}; download it again")
            return scan_records(archive, records)
    except Refusal:
        raise
    except (zipfile.BadZipFile, ValueError, RuntimeError, EOFError, OverflowError, OSError, struct.error) as error:
        raise Refusal(f"a damaged zip archive ({one_line(error)}); download it again") from error


def listed_records(file: BufferedReader) -> int:
    """How many records the archive claims, from its end, before memory is given to them. Raises Refusal."""
    start = max(size_of(file) - (1 << 16) - 22, 0)
    file.seek(start)
    tail = file.read()
    at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) < at + 22 or any(tail[at + 4 : at + 8]):  # these four number the disks of a set
        raise Refusal("a zip archive without its end; download it again")
    count, directory = struct.unpack_from("<HI", tail, at + 10)
    if tail[:at][-20:-16] == b"PK\6\7":  # what leads to the end of a large archive
        large = max(at - LARGE_END.size, 0)
        count, directory = large_end(tail[large:at], start + large)
    if directory // RECORD_BYTES > RECORDS:
        return directory // RECORD_BYTES
    if count * RECORD_BYTES > directory:
        raise Refusal("a zip archive that lists more records than it has room for; download it again")
    return count


def large_end(end: bytes, at: int) -> tuple[int, int]:
    """How many records, and how many bytes of them, the end of a large archive tells, at byte `at` of the file. PyTorch
    refuses what it does not find in its place, and here that costs no process. Raises Refusal."""
    if len(end) == LARGE_END.size:
        sign, size, _, _, disk, first, here, count, directory, _, _, other, place, disks = LARGE_END.unpack(end)
        if (sign, size, disk, first, here, other, place, disks) == (b"PK\6\6", 44, 0, 0, count, 0, at, 1):
            return count, directory
    raise Refusal("a zip archive whose end is damaged; download it again")


def checked_records(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """The records by name: stored as they are, within the size of the file. Raises Refusal."""
    found = archive.infolist()
    records = {record.filename: record for record in found}
    if len(records) < len(found):
        raise Refusal("an archive with two records of one name; download it again")
    for record in found:
        plain = record.compress_type == zipfile.ZIP_STORED and record.compress_size == record.file_size
        if not plain or record.flag_bits & ~ALLOWED or record.volume or record.comment:
            raise Refusal(f"an archive that packs {shown(record.filename)}, as torch.save never does; save it again")
    if sum(record.file_size for record in found) > size:
        raise Refusal("an archive that declares more bytes than the file has; download it again")
    return records


def scan_records(archive: zipfile.ZipFile, records: dict[str, zipfile.ZipInfo]) -> Any:
    """What the pickle among the records would build. Raises Refusal, and what zipfile raises."""
    pickles = [name for name in records if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        raise Refusal("a zip archive without the data.pkl of torch.save; save a state_dict with torch.save")
    root = pickles[0].removesuffix("data.pkl")
    if not all(name.startswith(root) for name in records):
        raise Refusal("an archive with records outside its folder; save it again with torch.save")
    if root + "constants.pkl" in records or any(name.startswith(root + "code/") for name in records):
        raise Refusal("a TorchScript program, which is code; save the state_dict of the network")
    if records[pickles[0]].file_size > PICKLE_BYTES:
        raise Refusal("its pickle is too large for one of tensors; save it as safetensors")
    if root + "byteorder" in records and archive.read(root + "byteorder") != b"little":
        raise Refusal("written on a machine of the other byte order; save it as safetensors there")
    scan = Scan(archive.read(pickles[0]))
    tree = scan.load()
    for key, storage in scan.storages.items():
        name = f"{root}data/{key}"
        given = records[name].file_size if name in records else 0
        if given != storage.nbytes:
            raise Refusal(f"it declares {storage.nbytes} bytes where {given} are; download it again")
    for name in records:
        check_sum(archive, name)
    return tree


def check_sum(archive: zipfile.ZipFile, name: str) -> None:
    """Read a record to its end, where zipfile compares the checksum, as torch does not. Raises BadZipFile."""
    with archive.open(name) as record:
        while record.read(1 << 20):
            pass


def scan_legacy(file: BufferedReader) -> Any:
    """What the five pickles of the older layout would build, their storages found in the file. Raises Refusal."""
    file.seek(0)
    scan = Scan(file.read(PICKLE_BYTES))
    if scan.load() != MAGIC or scan.load() != PROTOCOL:
        raise Refusal("a pickle that torch.save did not write; save a state_dict with torch.save")
    machine = scan.load()
    if type(machine) is not dict or machine.get("little_endian") is not True:
        raise Refusal("written on a machine of the other byte order; save it as safetensors there")
    tree = scan.load()
    keys = scan.load()
    if type(keys) is not list or not all(type(key) is str for key in keys) or set(keys) != set(scan.storages):
        raise Refusal("it lists other storages than its tensors use; download it again")
    check_storages(file, scan.file.tell(), [scan.storages[key] for key in keys])
    return tree


def check_storages(file: BufferedReader, at: int, storages: list[Storage]) -> None:
    """Raise Refusal unless the storages follow from byte `at` to the end, each behind its count."""
    for storage in storages:
        file.seek(at)
        count = int.from_bytes(file.read(8), "little")
        if count != storage.numel:
            raise Refusal(f"it declares {storage.numel} numbers where {count} are; download it again")
        at += 8 + storage.nbytes
    if at != size_of(file):
        raise Refusal(f"its numbers should end at byte {at}, but the file has {size_of(file)}; download it again")


def unpickled(path: Path, file: BufferedReader, keys: list[str], needed: int) -> dict[str, Tensor]:
    """The tensors below `keys`, read in a process of its own. Raises ModelFileRefused, and ResourceExhausted where the
    disk has no room for the `needed` bytes of them meanwhile."""
    size = size_of(file)
    memory = MEMORY + 4 * size
    with tempfile.TemporaryDirectory(prefix="resnetkit-") as folder:
        require_space(Path(folder), needed, f"reading {path}", "free some space or set TMPDIR")
        output = Path(folder) / "tensors.safetensors"
        command = [sys.executable, "-P", str(CHILD), str(output), json.dumps(keys), str(memory)]
        os.lseek(file.fileno(), 0, os.SEEK_SET)
        try:
            child = subprocess.run(
                command,
                stdin=file,
                capture_output=True,
                env=environment(),
                cwd=folder,
                timeout=SECONDS * (1 + size / (1 << 30)),
            )
        except subprocess.TimeoutExpired as error:
            raise ModelFileRefused(f"{path}: reading it took over {error.timeout:.0f} s; save it again") from error
        if child.returncode < 0:
            raise ModelFileRefused(f"{path}: reading it ended with signal {-child.returncode}; download it again")
        if child.returncode:
            said = child.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
            raise ModelFileRefused(f"{path}: torch does not read it: {one_line(said[-1])}; save its state_dict again")
        with open(output, "rb") as written:
            return read_open_safetensors(path, written)[0]


def environment() -> dict[str, str]:
    """What the process is told: where Python's packages lie, and none of the user's secrets."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "TMPDIR") if name in os.environ}
    return kept | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
