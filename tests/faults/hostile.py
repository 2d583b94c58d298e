"""Files that want to run code, or to take time, memory or other files. Each maker writes one and says where.

A payload is Python source. That the pickles do run it when they are opened without care is tested, too.
"""

import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save

from resnetkit.weights.pickled import MAGIC, PROTOCOL


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


# Pickles that run the source they are given, each by another way.
PICKLES: dict[str, Callable[[str], bytes]] = {
    f"reduce, protocol {protocol}": lambda source, protocol=protocol: pickle.dumps(Call(exec, source), protocol)
    for protocol in range(6)
}
PICKLES |= {
    "inst": lambda source: b"(" + text(source) + b"ibuiltins\nexec\n.",
    "obj": lambda source: b"(cbuiltins\nexec\n" + text(source) + b"o.",
    "stack global": lambda source: b"\x80\x04" + text("builtins") + text("exec") + b"\x93" + text(source) + b"\x85R.",
    "stack global, no protocol": lambda source: text("builtins") + text("exec") + b"\x93" + text(source) + b"\x85R.",
    "build": lambda source: (
        b"\x80\x02cfunctools\npartial\ncbuiltins\nlen\n\x85R(cbuiltins\nexec\n" + text(source) + b"\x85}Ntb)R."
    ),
    "newobj": lambda source: (
        b"\x80\x02cbuiltins\ntuple\ncbuiltins\nmap\ncbuiltins\nexec\n]" + text(source) + b"a\x86\x81\x85\x81."
    ),
    "newobj_ex": lambda source: (
        b"\x80\x04cbuiltins\ntuple\ncbuiltins\nmap\ncbuiltins\nexec\n]" + text(source) + b"a\x86}\x92\x85}\x92."
    ),
    "nested pickle": lambda source: pickle.dumps(Call(pickle.loads, pickle.dumps(Call(exec, source))), 2),
    "eval of compile": lambda source: pickle.dumps(Call(eval, f"exec({source!r})"), 2),
    "getattr chain": lambda source: (
        b"\x80\x02cbuiltins\ngetattr\nc__builtin__\n__import__\n" + text("builtins") + b"\x85R" + text("exec")
        + b"\x86R" + text(source) + b"\x85R."
    ),
    "timeit": lambda source: b"\x80\x02ctimeit\ntimeit\n" + text("pass") + text(source) + b"\x86R.",
    "python 2 names": lambda source: b"c__builtin__\neval\n" + text(f"exec({source!r})") + b"\x85R.",
    "after pop": lambda source: b"\x80\x02cbuiltins\nexec\n" + text(source) + b"\x85R0}.",
    "dup and memo": lambda source: b"\x80\x02cbuiltins\nexec\nq\x000h\x00" + text(source) + b"\x85R.",
}  # fmt: skip


def archive(records: dict[str, bytes], packing: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", packing) as made:
        for name, content in records.items():
            made.writestr(name, content)
    return buffer.getvalue()


def legacy(content: bytes, sys_info: bytes | None = None, keys: bytes | None = None) -> bytes:
    first = pickle.dumps(MAGIC, 2) + pickle.dumps(PROTOCOL, 2)
    return first + (sys_info or pickle.dumps({"little_endian": True}, 2)) + content + (keys or pickle.dumps([], 2))


def state() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "conv1.weight": torch.randn(4, 3, 3, 3, generator=generator),
        "bn1.running_var": torch.rand(4, generator=generator) + 0.5,
        "bn1.num_batches_tracked": torch.tensor(7),
        "fc.weight": torch.randn(2, 4, generator=generator),
    }


def saved(content: object, *, zipped: bool = True, protocol: int = 2) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    return buffer.getvalue()


def repickled(content: bytes, edit: Callable[[bytes], bytes]) -> bytes:
    """An archive of torch.save whose pickle is edited, with the checksum of the new one."""
    with zipfile.ZipFile(io.BytesIO(content)) as old:
        records = {name: old.read(name) for name in old.namelist()}
    name = next(name for name in records if name.endswith("data.pkl"))
    return archive(records | {name: edit(records[name])})


def safetensors(header: dict | bytes, data: bytes = b"", length: int | None = None) -> bytes:
    written = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(written) if length is None else length).to_bytes(8, "little") + written + data


def f32(begin: int, end: int, shape: list | None = None, dtype: object = "F32") -> dict:
    return {"dtype": dtype, "shape": [(end - begin) // 4] if shape is None else shape, "data_offsets": [begin, end]}


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def tarred(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in ("storages", "tensors", "pickle"):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def npz(source: str) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, weight=np.array([Call(exec, source)], dtype=object))
    return buffer.getvalue()


def wide_reach(pickled: bytes) -> bytes:
    """The first tensor of the pickle claims to be 4,000,003 channels of no stride, 432 MB from 432 bytes."""
    shape = b"K\x04K\x03K\x03K\x03t"
    assert shape in pickled
    return pickled.replace(shape, b"J\x03\x09\x3d\x00K\x03K\x03K\x03t", 1)


def huge_storage(pickled: bytes) -> bytes:
    """The storage of 108 numbers claims 2^40."""
    assert pickled.count(b"Kl") == 1
    return pickled.replace(b"Kl", b"\x8a\x06\x00\x00\x00\x00\x00\x01")


def flagged(content: bytes, flag: int) -> bytes:
    """Every record of the archive with a flag set, in both places that tell it."""
    changed = bytearray(content)
    for sign, at in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        place = changed.find(sign)
        while place >= 0:
            changed[place + at] |= flag
            place = changed.find(sign, place + 4)
    return bytes(changed)


def seven_zip(source: str) -> bytes:
    return b"7z\xbc\xaf\x27\x1c\x00\x04" + PICKLES["reduce, protocol 2"](source)


def exec_for_hooks(pickled: bytes) -> bytes:
    """The dict of the first tensor's hooks made by another function."""
    return pickled.replace(b"ccollections\nOrderedDict\n", b"cos\nsystem\n", 1)


PLAIN = "reduce, protocol 2"
LONG_CALL = b"cbuiltins\nset\nh\x00\x85R"
DEEP = b"[" * 100_000 + b"]" * 100_000
# name of the file -> its content for a payload
FILES: dict[str, Callable[[str], bytes]] = {f"{kind}.pth": make for kind, make in PICKLES.items()}
FILES |= {
    f"zipped {kind}.pt": lambda s, make=make: archive({"archive/data.pkl": make(s)}) for kind, make in PICKLES.items()
}
FILES |= {
    "legacy object.pth": lambda s: legacy(PICKLES[PLAIN](s)),
    "legacy sys_info.pth": lambda s: legacy(pickle.dumps({}, 2), sys_info=PICKLES[PLAIN](s)),
    "legacy keys.pth": lambda s: legacy(pickle.dumps({}, 2), keys=PICKLES[PLAIN](s)),
    "beside the weights.pth": lambda s: saved({"state_dict": state(), "args": Call(exec, s)}),
    "beside the weights, legacy.pth": lambda s: saved({"state_dict": state(), "args": Call(exec, s)}, zipped=False),
    "deep inside.bin": lambda s: saved({"a": [{"b": ({"c": Call(exec, s)},)}], "state_dict": state()}),
    "as a key.bin": lambda s: saved({"state_dict": state() | {("x", Call(exec, s)): 1}}),
    "hook of a tensor.ckpt": lambda s: repickled(saved(state()), exec_for_hooks),
    "protocol 4.pt": lambda s: saved({"state_dict": state(), "x": Call(exec, s)}, protocol=4),
    "two pickles.pth": lambda s: pickle.dumps({}, 2) + PICKLES[PLAIN](s),
    "pickle named.safetensors": lambda s: PICKLES[PLAIN](s),
    "pickle named.tar": lambda s: PICKLES[PLAIN](s),
    "pickle named.h5": lambda s: PICKLES[PLAIN](s),
    "archive named.safetensors": lambda s: archive({"a/data.pkl": PICKLES[PLAIN](s)}),
    "real tar.tar": lambda s: tarred(PICKLES[PLAIN](s)),
    "object array.npz": npz,
    "seven.pt": seven_zip,
    "torchscript.pt": lambda s: archive({"a/data.pkl": b"}.", "a/constants.pkl": b").", "a/code/x.py": s.encode()}),
    "pt2.pt2": lambda s: archive({"a/archive_format": b"pt2", "a/data/sample_inputs/model.pt": PICKLES[PLAIN](s)}),
    "two data pickles.pt": lambda s: archive({"a/data.pkl": pickle.dumps({}, 2), "b/data.pkl": PICKLES[PLAIN](s)}),
    "pickle after junk.pt": lambda s: b"PK\3\4" + b"junk" * 9 + archive({"a/data.pkl": PICKLES[PLAIN](s)}),
    "bad checksum.pt": lambda s: flipped(x := archive({"a/data.pkl": PICKLES[PLAIN](s)}), x.find(b"exec") + 8),
    "bad checksum of weights.pt": lambda s: flipped(x := saved(state()), x.find(state()["fc.weight"].numpy().data)),
    "encrypted flag.pt": lambda s: flagged(archive({"a/data.pkl": PICKLES[PLAIN](s)}), 1),
    "packed.pt": lambda s: archive({"a/data.pkl": PICKLES[PLAIN](s)}, zipfile.ZIP_DEFLATED),
    "zip bomb.pt": lambda s: archive({"a/data.pkl": b"}.", "a/data/0": bytes(64 << 20)}, zipfile.ZIP_DEFLATED),
    "cut archive.pt": lambda s: saved(state())[:-30],
    "many records.pt": lambda s: archive({f"a/{number}": b"" for number in range(60_000)}),
    "records to the limit.pt": lambda s: archive({f"a/{number}": b"" for number in range(34_000)}),
    "records outside.pt": lambda s: archive({"a/data.pkl": b"}.", "b/x": b""}),
    "calls with a long list.pth": lambda s: b"\x80\x02](" + b"N" * 200_000 + b"eq\x00" + LONG_CALL * 50_000 + b".",
    "huge storage.pt": lambda s: repickled(saved(state()), huge_storage),
    "tensor beyond its storage.pt": lambda s: repickled(saved(state()), wide_reach),
    "huge legacy storage.pth": lambda s: huge_storage(saved(state(), zipped=False)),
    "many opcodes.pth": lambda s: b"\x80\x02" + b"]" * (8 << 20) + b".",
    "tuples of tuples.pth": lambda s: b"\x80\x02}" + b")q\x00" + b"h\x00\x86q\x00" * 60 + b"Ns.",
    "recursive.pth": lambda s: b"\x80\x02]q\x00h\x00a.",
    "memo of 2^32.pth": lambda s: b"\x80\x02}r\xff\xff\xff\xffj\xfe\xff\xff\xff.",
    "long text.pth": lambda s: b"\x80\x02X\xff\xff\xff\xffabc",
    "git lfs.pth": lambda s: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n",
    "page.pth": lambda s: b"<html>not found</html>",
    "header of 2^63.safetensors": lambda s: safetensors({"a": f32(0, 4)}, bytes(4), 2**63),
    "header beyond the file.safetensors": lambda s: safetensors({"a": f32(0, 4)}, bytes(4), 1000),
    "header of 17 MB.safetensors": lambda s: safetensors(b'{"__metadata__":{"a":"' + b"x" * (17 << 20) + b'"}}'),
    "many values.safetensors": lambda s: safetensors(b'{"a":[' + b"{}," * (5 << 20) + b"{}]}"),
    "deep.safetensors": lambda s: safetensors(b'{"a":' + DEEP + b"}"),
    "twice.safetensors": lambda s: safetensors(b'{"a":%b,"a":%b}' % ((json.dumps(f32(0, 4)).encode(),) * 2), bytes(4)),
    "metadata twice.safetensors": lambda s: safetensors(b'{"__metadata__":{"a":"1","a":"2"}}'),
    "overlap.safetensors": lambda s: safetensors({"a": f32(0, 8), "b": f32(4, 12)}, bytes(12)),
    "same place.safetensors": lambda s: safetensors({"a": f32(0, 8), "b": f32(0, 8)}, bytes(8)),
    "hole.safetensors": lambda s: safetensors({"a": f32(0, 4), "b": f32(8, 12)}, bytes(12)),
    "trailing.safetensors": lambda s: safetensors({"a": f32(0, 4)}, bytes(4)) + PICKLES[PLAIN](s),
    "terabyte.safetensors": lambda s: safetensors({"a": f32(0, 1 << 40)}, bytes(4)),
    "overflowing shape.safetensors": lambda s: safetensors({"a": f32(0, 0, [2**40, 2**40, 0])}),
    "shape of floats.safetensors": lambda s: safetensors({"a": f32(0, 4, [1.0])}, bytes(4)),
    "shape of truth.safetensors": lambda s: safetensors({"a": f32(0, 4, [True])}, bytes(4)),
    "negative.safetensors": lambda s: safetensors({"a": f32(0, 4, [-1, -1])}, bytes(4)),
    "backwards.safetensors": lambda s: safetensors({"a": f32(8, 4, [0])}, bytes(8)),
    "rank.safetensors": lambda s: safetensors({"a": f32(0, 4, [1] * 1000)}, bytes(4)),
    "dtype.safetensors": lambda s: safetensors({"a": f32(0, 4, dtype="Q9")}, bytes(4)),
    "dtype list.safetensors": lambda s: safetensors({"a": f32(0, 4, dtype=["F32"])}, bytes(4)),
    "extra field.safetensors": lambda s: safetensors({"a": f32(0, 4) | {"run": s}}, bytes(4)),
    "metadata.safetensors": lambda s: safetensors({"__metadata__": {"a": ["x"]}, "a": f32(0, 4)}, bytes(4)),
    "no object.safetensors": lambda s: safetensors(b"[1, 2, 3]"),
    "not utf-8.safetensors": lambda s: safetensors(b'{"\xff\xfe": {}}'),
    "long number.safetensors": lambda s: safetensors(b'{"a":' + b"9" * 100_000 + b"}"),
    "not a number.safetensors": lambda s: save({"w": torch.tensor([1.0, float("nan")])}),
    "infinite.safetensors": lambda s: save({"w": torch.tensor([1.0, float("inf")], dtype=torch.bfloat16)}),
    "negative variance.safetensors": lambda s: save({"bn.running_var": torch.tensor([1.0, -1e-8])}),
    "nothing.safetensors": lambda s: save({}),
}  # fmt: skip


def folder(path: Path, files: dict[str, bytes]) -> Path:
    path.mkdir()
    for name, content in files.items():
        (path / name).write_bytes(content)
    return path


def index(**places: str) -> bytes:
    return json.dumps({"weight_map": places}).encode()


def linked(path: Path, outside: Path, name: str) -> Path:
    """A folder whose file `name` is a link to a file beside the folder."""
    folder(path, {"config.json": b"{}"} if name != "config.json" else {"model.safetensors": save(state())})
    (path / name).symlink_to(outside)
    return path


def pipe(path: Path, name: str) -> Path:
    folder(path, {})
    os.mkfifo(path / name)
    return path


SHARD = "model.safetensors.index.json"
# name -> what makes the folder, given its path and a sound model file outside of it
FOLDERS: dict[str, Callable[[Path, Path], Path]] = {
    "traversal": lambda p, out: folder(p, {SHARD: index(a=f"../{out.name}")}),
    "absolute": lambda p, out: folder(p, {SHARD: index(a=str(out))}),
    "backslash": lambda p, out: folder(p, {SHARD: index(a=f"..\\{out.name}")}),
    "parent": lambda p, out: folder(p, {SHARD: index(a="..")}),
    "no text": lambda p, out: folder(p, {SHARD: b'{"weight_map": {"a": 1}}'}),
    "no map": lambda p, out: folder(p, {SHARD: b"{}"}),
    "deep index": lambda p, out: folder(p, {SHARD: DEEP}),
    "missing shard": lambda p, out: folder(p, {SHARD: index(a="x.safetensors")}),
    "other tensors": lambda p, out: folder(p, {SHARD: index(a="x.safetensors"), "x.safetensors": save(state())}),
    "linked weights": lambda p, out: linked(p, out, "model.safetensors"),
    "linked pickle": lambda p, out: linked(p, out, "pytorch_model.bin"),
    "linked config": lambda p, out: linked(p, out, "config.json"),
    "config list": lambda p, out: folder(p, {"model.safetensors": save(state()), "config.json": b"[]"}),
    "config of 2 MB": lambda p, out: folder(p, {"model.safetensors": save(state()), "config.json": b" " * (2 << 20)}),
    "pipe": lambda p, out: pipe(p, "model.safetensors"),
    "piped pickle": lambda p, out: pipe(p, "pytorch_model.bin"),
    "empty": lambda p, out: folder(p, {}),
}
