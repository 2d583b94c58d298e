"""The peers: scripts of the repository, each run in the environment that has its library."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from resnetkit.benchmark.job import Kind
from resnetkit.errors import ResnetkitError, did_you_mean

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "benchmarks" / "peers"
REPOSITORY = "the repository's benchmarks/peers/"
VARIABLE = "RESNETKIT_PEERS"  # the Python of the peers' environment, where it is not .venv-peers/bin/python
VARIANTS = ("default", "best", "compiled", "mixed")
AS_IT_IS: tuple[Kind, ...] = ("memory", "startup")  # finding the best takes memory and time of its own
NETWORK: tuple[Kind, ...] = ("step", "inference", "memory", "startup")


@dataclass(frozen=True)
class Peer:
    """`needs` is the library that its script imports; `apart` whether that lives in the peers' own environment.

    `variants`: as its README runs it; the fastest of what is known to speed it up there; as it is, but compiled;
    eager in bfloat16 and channels_last, as its README runs it on a GPU.
    """

    script: str
    needs: str
    kinds: tuple[Kind, ...] = NETWORK
    apart: bool = False
    variants: tuple[str, ...] = ("default",)


PEERS = {
    "torchvision": Peer("run_torchvision", "torchvision", apart=True, variants=VARIANTS),
    "timm": Peer("run_timm", "timm", apart=True, variants=VARIANTS),
    "transformers": Peer("run_transformers", "transformers", variants=VARIANTS),
    "cifar-repository": Peer("run_cifar_repository", "torch", variants=VARIANTS),
    "keras-notebook": Peer("run_keras_notebook", "keras"),
    "keras-applications": Peer("run_keras_applications", "keras"),
    "pillow": Peer("run_pillow", "PIL", kinds=("loader",)),
    "torchvision-folder": Peer("run_torchvision_folder", "torchvision", kinds=("loader",), apart=True),
}


def chosen(words: Sequence[str], kind: Kind) -> dict[str, tuple[Peer, str]]:
    """The peers named, each as (peer, variant): NAME is `default` and, where there is one, `best` as NAME-best;
    NAME-default, NAME-best, NAME-mixed and NAME-compiled are one of them. Raises ResnetkitError for one that cannot be
    had."""
    found: dict[str, tuple[Peer, str]] = {}
    for word in words:
        name, variant = _split(word)
        peer = PEERS[name]
        if kind not in peer.kinds:
            able = ", ".join(other for other, its in PEERS.items() if kind in its.kinds)
            raise ResnetkitError(f"{name} has no {kind} to measure; peers for it: {able}")
        variants = [variant] if variant else [v for v in ("default", "best") if v in peer.variants]
        if kind in AS_IT_IS:
            if variant not in (None, "default"):
                raise ResnetkitError(f"{word}: {kind} is measured of a peer as it is; say {name}")
            variants = ["default"]
        for one in variants:
            if one not in peer.variants:
                raise ResnetkitError(f"{word}: {name} is measured as {', '.join(peer.variants)}")
            found[name if one == "default" else f"{name}-{one}"] = (peer, one)
    return found


def command(name: str, peer: Peer) -> list[str]:
    """What starts a peer's worker. Raises ResnetkitError without its script, environment or library."""
    script = SCRIPTS / f"{peer.script}.py"
    if not script.is_file():
        raise ResnetkitError(f"{name}: peers are run from a checkout, by {REPOSITORY}; leave --against out")
    if peer.apart:
        python = Path(os.environ.get(VARIABLE) or ROOT / ".venv-peers" / "bin" / "python")
        if not python.exists():
            raise ResnetkitError(f"{name} runs in .venv-peers, which is not there; `make .venv-peers/.ready` makes it")
        return [str(python), str(script)]
    if find_spec(peer.needs) is None:
        raise ResnetkitError(f"{name}: {peer.needs} is not installed here; pip install {peer.needs}")
    return [sys.executable, str(script)]


def _split(word: str) -> tuple[str, str | None]:
    if word in PEERS:
        return word, None
    name, _, variant = word.rpartition("-")
    if name in PEERS and variant in VARIANTS:
        return name, variant
    raise ResnetkitError(f"no peer is called {word!r}; {did_you_mean(word, PEERS)}")
