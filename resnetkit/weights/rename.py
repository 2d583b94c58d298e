"""Names of modules in another library's words and in ours: tables of templates, and the one engine that reads them."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from resnetkit.architecture.spec import NetworkSpec

PLACE = re.compile(r"\{(\w+?)([+-]\d+)?\}")
Places = dict[str, int]


class Template:
    """A module's name with numbers left open: `layer{stage+1}.{block}.conv{i}` is stage 0 in `layer1.0.conv1`."""

    def __init__(self, text: str) -> None:
        self.text = text
        pattern = re.escape(PLACE.sub("\0", text)).replace("\0", r"(\d+)").replace("\\\0", r"(\d+)")
        self._pattern = re.compile(pattern)
        self._places = [(name, int(shift or 0)) for name, shift in PLACE.findall(text)]

    def read(self, name: str) -> Places | None:
        """The numbers that make this template `name`, or None."""
        found = self._pattern.fullmatch(name)
        if found is None:
            return None
        return {place: int(number) - shift for (place, shift), number in zip(self._places, found.groups())}

    def write(self, places: Places) -> str:
        return PLACE.sub(lambda match: str(places[match[1]] + int(match[2] or 0)), self.text)


@dataclass(frozen=True)
class Table:
    """What a library calls the modules of some of our networks.

    `modules` has its template -> ours; of two that fit a name the first counts. `only` are choices that the networks
    share by which this table differs from another of the library, as {"stem": "deep"}; `usual` others, which its names
    do not tell. `pointwise` says that the classifier is a 1x1 convolution there. `beyond` are modules of networks that
    ours cannot be, with what they are.
    """

    library: str
    modules: dict[str, str]
    only: Mapping[str, object]
    usual: Mapping[str, object] = field(default_factory=dict)
    pointwise: bool = False
    beyond: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def _templates(self) -> list[tuple[Template, Template]]:
        return [(Template(theirs), Template(ours)) for theirs, ours in self.modules.items()]

    def fits(self, spec: NetworkSpec) -> bool:
        return all(getattr(spec, name) == value for name, value in self.only.items())

    def to_ours(self, module: str) -> str | None:
        """Our name of a module of theirs, None where they have none such."""
        return self._translate(module, theirs=0)

    def to_theirs(self, module: str) -> str | None:
        """Their name of a module of ours, None where they have none such."""
        return self._translate(module, theirs=1)

    def _translate(self, module: str, theirs: int) -> str | None:
        for pair in self._templates:
            places = pair[theirs].read(module)
            if places is not None:
                return pair[1 - theirs].write(places)
        return None


def rename(table: Table, tensors: Iterable[str]) -> dict[str, str]:
    """Their name -> ours of every tensor that the table knows."""
    renamed = {}
    for name in tensors:
        module, _, kind = name.rpartition(".")
        if ours := table.to_ours(module):
            renamed[name] = f"{ours}.{kind}"
    return renamed
