"""Weights from the Hugging Face Hub, through huggingface_hub and its cache, tokens, bar and HF_ variables."""

import json
import re
from errno import EFBIG, EIO
from pathlib import Path

from resnetkit.errors import FULL, ModelFileRefused, ResnetkitError, refused
from resnetkit.weights.download import file_sha256

SCHEME = "hf:"
BESIDE = ("config.json", "preprocessor_config.json")
INDEX = "model.safetensors.index.json"
WEIGHTS = ("model.safetensors", INDEX, "pytorch_model.bin")  # the first that is there
WRITING = (*FULL, EFBIG, EIO)  # errors without a file's name that are of the disk, not of the network
SHA256 = re.compile("[0-9a-f]{64}")
COMMIT = re.compile("[0-9a-f]{40}")
SHARD = re.compile(r"[\w-][\w.-]*\.safetensors")  # a plain name, no path


def fetch(source: str) -> Path:
    """The folder with the weights and configs of `hf:owner/name` or `hf:owner/name@revision`.

    Raises ModelFileRefused when they cannot be had or are not what the Hub's hashes say, ResourceExhausted when the
    disk gives out, ResnetkitError when the cache cannot be written.
    """
    repository, _, revision = source.removeprefix(SCHEME).partition("@")
    snapshot = _Snapshot(source, repository, revision or "main")
    for name in BESIDE:  # first, so that weights in the cache are never without them
        snapshot.get(name)
    weights = next((path for path in map(snapshot.get, WEIGHTS) if path), None)
    if weights is None:
        raise ModelFileRefused(f"{source}: {snapshot.unreached or 'it has none of ' + ', '.join(WEIGHTS)}")
    if weights.name == INDEX:
        for name in _shards(source, weights):
            if snapshot.get(name) is None:
                raise ModelFileRefused(f"{source}: {name}: {snapshot.unreached or 'in its index, but not there'}")
    return weights.parent


def pinned(source: str) -> str:
    """The same weights by the commit that they are of now, so that they stay what they are. Raises as `fetch`."""
    return at_commit(source, fetch(source))


def at_commit(source: str, folder: Path) -> str:
    """`hf:owner/name@commit` of a source that was fetched to `folder`."""
    return f"{source.partition('@')[0]}@{folder.name}"


class _Snapshot:
    """Files of one commit of a repository. `unreached` says why the Hub no longer answers, once it does not."""

    def __init__(self, source: str, repository: str, revision: str) -> None:
        self._source, self._repository, self._revision = source, repository, revision
        self.unreached = ""

    def get(self, name: str) -> Path | None:
        """The checked file; None where the repository lacks it, or the cache when the Hub does not answer."""
        try:
            import huggingface_hub as hub
            from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
        except ImportError as error:
            raise ResnetkitError(f"{self._source} needs huggingface_hub: pip install 'resnetkit[hub]'") from error
        try:
            if COMMIT.fullmatch(self._revision):  # what was once asked of a commit stays true
                cached = hub.try_to_load_from_cache(self._repository, name, revision=self._revision)
                if cached is not None and not isinstance(cached, str):
                    return None
            # Once the Hub was out of reach nothing more is asked of it: it might offer less than what it has.
            only_cached = bool(self.unreached)
            found = hub.hf_hub_download(self._repository, name, revision=self._revision, local_files_only=only_cached)
        except LocalEntryNotFoundError as error:
            self.unreached = self.unreached or _why_unreached(error)
            return None
        except EntryNotFoundError:
            return None
        except Exception as error:  # of several libraries below huggingface_hub
            raise _refusal(self._source, error) from error
        path = Path(found)
        if not _is_what_its_name_says(path.resolve()):
            path.resolve().unlink()
            path.unlink()
            raise ModelFileRefused(f"{self._source}: {name} has not the hash that the Hub states; it is not kept")
        self._revision = path.parent.name  # the commit, so that all files are of one
        return path


def _shards(source: str, index: Path) -> list[str]:
    try:
        names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
        if all(SHARD.fullmatch(name) for name in names):
            return names
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise ModelFileRefused(f"{source}: {INDEX} is not an index of safetensors files beside it")


def _is_what_its_name_says(blob: Path) -> bool:
    """The cache names large files by their SHA-256. Others, and all where there are no links, cannot be told."""
    return not SHA256.fullmatch(blob.name) or file_sha256(blob) == blob.name


def _why_unreached(error: Exception) -> str:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "not in the cache, and HF_HUB_OFFLINE forbids to ask the Hub"
    cause = f": {_first_line(error.__cause__)}" if error.__cause__ else ""
    return f"not in the cache, and {constants.ENDPOINT} does not answer{cause}"


def _refusal(source: str, error: Exception) -> ResnetkitError:
    from huggingface_hub import constants, errors

    if isinstance(error, OSError) and (error.filename or error.errno in WRITING):
        what = f"{source}: {error.filename or 'not saved'}"
        return refused(what, error, full=f"free some space in {constants.HF_HUB_CACHE}")
    known = {
        errors.HFValidationError: "not of the form hf:owner/name or hf:owner/name@revision",
        errors.GatedRepoError: "gated: accept its terms on its page and log in with `hf auth login`",
        errors.RepositoryNotFoundError: f"no such repository at {constants.ENDPOINT}, or none that your token opens",
        errors.RevisionNotFoundError: "it has no such revision",
    }
    reason = next((text for kind, text in known.items() if isinstance(error, kind)), None)
    return ModelFileRefused(f"{source}: {reason or f'not to be had: {_first_line(error)}'}")


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
