"""What a pickle of tensors would build, found by following its opcodes; nothing that it names is looked up or called.

Opcodes and globals are a narrow part of what `torch.load(weights_only=True)` accepts: what state dicts are made of.
Source: torch/_weights_only_unpickler.py and torch/_utils.py of PyTorch 2.13; pickletools of Python.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from math import prod
from typing import Any

import torch

from resnetkit.garbage import without_collection
from resnetkit.weights.untrusted import shown

# 11,000 tensors in 34 opcodes each; as many take a quarter of a second and build values of up to 70 bytes each.
OPCODES = 400_000
PICKLE_BYTES = 16 << 20
RANK = 16

STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
STORAGE_GLOBALS = {f"{module}.{name}": dtype for module in ("torch", "torch.cuda") for name, dtype in STORAGES.items()}
PLAIN_CALLS = {"torch.Size", "torch.device", "collections.Counter", "builtins.set", "__builtin__.set", "_codecs.encode"}
ARGUMENTS = {  # how many a call may have
    "torch._utils._rebuild_tensor": (4,),
    "torch._utils._rebuild_tensor_v2": (6, 7),
    "torch._utils._rebuild_parameter": (3,),
}
GLOBALS = (
    {f"torch.{name}" for name in ("float16", "bfloat16", "float32", "float64", "int32", "int64")}
    | {"collections.OrderedDict"}
    | PLAIN_CALLS
    | set(ARGUMENTS)
    | set(STORAGE_GLOBALS)
)


class Refusal(ValueError):
    """Why a pickle is not read, and the cure; the caller names the file."""


@dataclass(frozen=True, eq=False)
class Global:
    name: str


@dataclass(frozen=True, eq=False)
class Storage:
    """Numbers as the file declares them: `key` says where they lie."""

    dtype: torch.dtype
    key: str
    numel: int

    @property
    def nbytes(self) -> int:
        return self.numel * self.dtype.itemsize


@dataclass(frozen=True, eq=False)
class Declared:
    """A tensor as the file declares it."""

    storage: Storage
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.storage.dtype.itemsize


@dataclass(frozen=True, eq=False)
class Other:
    """Something that is built and holds no tensor, such as a torch.Size."""

    what: str


MARK = object()
STOP = ord(".")


class Scan:
    """Follows pickles, one after another in the bytes given, and keeps the storages that they name."""

    def __init__(self, content: bytes) -> None:
        self.file = BytesIO(content)
        self.storages: dict[str, Storage] = {}
        self.opcodes = 0

    def load(self) -> Any:
        """What the next pickle builds. Raises Refusal."""
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        try:
            with without_collection():
                self.follow()
            return self.stack.pop()
        except Refusal:
            raise
        except (IndexError, KeyError, TypeError, ValueError, AttributeError, struct.error) as error:
            raise Refusal("a damaged pickle; download it again") from error

    def follow(self) -> None:
        while (code := self.take(1)[0]) != STOP:
            self.opcodes += 1
            if self.opcodes > OPCODES:
                raise Refusal("its pickle is too large for one of tensors; save it as safetensors")
            step = STEPS.get(code)
            if step is None:
                raise Refusal(f"a pickle with the opcode {opcode_name(code)}, which no state dict needs; {CURE}")
            step(self)

    def take(self, count: int) -> bytes:
        taken = self.file.read(count)
        if len(taken) < count:
            raise Refusal("it ends within a pickle; download it again")
        return taken

    def take_number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def take_line(self) -> str:
        line = self.file.readline(256)
        if not line.endswith(b"\n"):
            raise Refusal("a damaged pickle; download it again")
        return line[:-1].decode()

    def push_number(self, form: str) -> None:
        self.stack.append(self.take_number(form))

    def get(self, form: str) -> None:
        self.stack.append(self.memo[self.take_number(form)])

    def put(self, form: str) -> None:
        self.memo[self.take_number(form)] = self.stack[-1]

    def short_tuple(self, count: int) -> None:
        self.stack[-count:] = [tuple(self.stack[-count:])]

    def pop_mark(self) -> list[Any]:
        items: list[Any] = []
        while (item := self.stack.pop()) is not MARK:
            items.append(item)
        return items[::-1]

    def protocol(self) -> None:
        if (version := self.take(1)[0]) not in (2, 3):
            raise Refusal(f"a pickle of protocol {version}; save it with torch.save's own, which is 2")

    def text(self) -> None:
        self.stack.append(str(self.take(self.take_number("<I")), "utf-8", "surrogatepass"))

    def short_bytes(self) -> None:
        self.stack.append(self.take(self.take(1)[0]).decode())

    def long(self) -> None:
        self.stack.append(int.from_bytes(self.take(self.take(1)[0]), "little", signed=True))

    def marked_tuple(self) -> None:
        items = self.pop_mark()
        self.stack.append(tuple(items))

    def append(self) -> None:
        self.extend([self.stack.pop()])

    def appends(self) -> None:
        self.extend(self.pop_mark())

    def extend(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise Refusal("a pickle that appends to what is no list; download it again")
        self.stack[-1].extend(items)

    def set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.update([(key, value)])

    def set_items(self) -> None:
        items = self.pop_mark()
        self.update(list(zip(items[::2], items[1::2], strict=True)))

    def update(self, pairs: list[tuple[Any, Any]]) -> None:
        if type(self.stack[-1]) is not dict:
            raise Refusal("a pickle that fills what is no dict; download it again")
        put(self.stack[-1], pairs)

    def global_name(self) -> None:
        name = f"{self.take_line()}.{self.take_line()}"
        if name not in GLOBALS:
            raise Refusal(f"a pickle that needs code: it wants {shown(name)[1:-1]}; {cure(name)}")
        self.stack.append(Global(name))

    def build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if type(target) is not dict or type(state) is not dict or len(state) > 1 or not state.keys() <= {"_metadata"}:
            raise Refusal(f"a pickle that sets the state of an object; {CURE}")

    def persistent(self) -> None:
        kind, storage_type, key, _location, numel, *view = self.stack.pop()
        if kind != "storage" or type(key) is not str or not is_count(numel) or view not in ([], [None]):
            raise Refusal("a pickle that refers to other than tensors' numbers; save it with a newer torch")
        storage = Storage(STORAGE_GLOBALS[storage_type.name], key, numel)
        known = self.storages.setdefault(key, storage)
        if (known.dtype, known.numel) != (storage.dtype, numel):
            raise Refusal(f"it declares the numbers {shown(key)} twice and not alike; download it again")
        self.stack.append(known)

    def reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if type(function) is not Global or type(arguments) is not tuple:
            raise Refusal(f"a pickle that calls what is no function; {CURE}")
        # A large value can stand in many calls: each looks through it.
        self.opcodes += sum(len(value) for value in arguments if isinstance(value, (list, tuple, dict)))
        self.stack.append(built(function.name, arguments))


STEPS: dict[int, Callable[[Scan], None]] = {
    ord("N"): lambda scan: scan.stack.append(None),
    0x88: lambda scan: scan.stack.append(True),
    0x89: lambda scan: scan.stack.append(False),
    ord(")"): lambda scan: scan.stack.append(()),
    ord("]"): lambda scan: scan.stack.append([]),
    ord("}"): lambda scan: scan.stack.append({}),
    0x8F: lambda scan: scan.stack.append(Other("set")),
    ord("("): lambda scan: scan.stack.append(MARK),
    ord("J"): lambda scan: scan.push_number("<i"),
    ord("K"): lambda scan: scan.push_number("<B"),
    ord("M"): lambda scan: scan.push_number("<H"),
    ord("G"): lambda scan: scan.push_number(">d"),
    ord("h"): lambda scan: scan.get("<B"),
    ord("j"): lambda scan: scan.get("<I"),
    ord("q"): lambda scan: scan.put("<B"),
    ord("r"): lambda scan: scan.put("<I"),
    0x85: lambda scan: scan.short_tuple(1),
    0x86: lambda scan: scan.short_tuple(2),
    0x87: lambda scan: scan.short_tuple(3),
    0x80: Scan.protocol,
    ord("X"): Scan.text,
    ord("U"): Scan.short_bytes,
    0x8A: Scan.long,
    ord("t"): Scan.marked_tuple,
    ord("a"): Scan.append,
    ord("e"): Scan.appends,
    ord("s"): Scan.set_item,
    ord("u"): Scan.set_items,
    ord("c"): Scan.global_name,
    ord("b"): Scan.build,
    ord("Q"): Scan.persistent,
    ord("R"): Scan.reduce,
}

CURE = "ask for its state_dict, saved with torch.save, or for safetensors"


def cure(name: str) -> str:
    if name.startswith(("numpy.", "_codecs.")):
        return "save numbers as float(number) and arrays as tensors"
    if name.startswith(("os.", "posix.", "nt.", "builtins.", "__builtin__.", "subprocess.", "sys.")):
        return "a state dict never does: do not open it elsewhere either"
    return f"if that is a whole network, save its state_dict; else {CURE}"


def opcode_name(code: int) -> str:
    import pickletools  # 25 ms that only a refusal needs

    return next((op.name for op in pickletools.opcodes if op.code == chr(code)), f"0x{code:02x}")


def is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 60


def put(target: dict[Any, Any], pairs: list[tuple[Any, Any]]) -> None:
    """Fill a dict whose keys are plain: hashing tuples of tuples of tuples can take for ever. Raises Refusal."""
    for key, value in pairs:
        if not is_plain(key):
            raise Refusal("a pickle whose dict has keys that are no names; save a plain state_dict")
        target[key] = value


def is_plain(value: Any) -> bool:
    return value is None or type(value) in (str, int, float, bool)


def built(name: str, arguments: tuple[Any, ...]) -> Any:
    """What a call in a pickle stands for. Raises Refusal."""
    if name in ARGUMENTS and len(arguments) not in ARGUMENTS[name]:
        raise Refusal(f"a pickle that calls {name} with {len(arguments)} arguments; download it again")
    if name in ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"):
        return declared(*arguments[:4])
    if name == "torch._utils._rebuild_parameter":
        if type(arguments[0]) is not Declared:
            raise Refusal("a pickle with a parameter that is no tensor; download it again")
        return arguments[0]
    if name == "collections.OrderedDict":
        target: dict[Any, Any] = {}
        put(target, [(key, value) for key, value in (arguments[0] if arguments else [])])
        return target
    if name not in PLAIN_CALLS or not all(is_flat(argument) for argument in arguments):
        raise Refusal(f"a pickle that calls {name} with what a state dict has not; {CURE}")
    if name == "_codecs.encode" and arguments[1:] != ("latin1",):
        raise Refusal(f"a pickle that encodes text in a strange way; {CURE}")
    return Other(name)


def is_flat(value: Any) -> bool:
    """Plain, or a list, tuple or dict of plain values."""
    if isinstance(value, dict):
        return all(is_plain(item) for item in value.values())
    return is_plain(value) or (isinstance(value, (list, tuple)) and all(is_plain(item) for item in value))


def declared(storage: Any, offset: Any, shape: Any, stride: Any) -> Declared:
    """A tensor within its storage. Raises Refusal."""
    if type(storage) is not Storage or type(shape) is not tuple or type(stride) is not tuple:
        raise Refusal("a pickle with a damaged tensor; download it again")
    if len(shape) != len(stride) or len(shape) > RANK or not all(is_count(n) for n in (offset, *shape, *stride)):
        raise Refusal("a pickle with a tensor of impossible shape; download it again")
    last = offset + sum((side - 1) * step for side, step in zip(shape, stride)) if all(shape) else offset - 1
    if last >= storage.numel or prod(shape) > storage.numel:
        raise Refusal(f"it declares a tensor {shape} in {storage.numel} numbers; download it again")
    return Declared(storage, shape)
