"""Downloads against a local server of the Hub's protocol, in processes of their own, whose environment counts."""

import fcntl
import hashlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import resnetkit as rk
from resnetkit.data.preprocess import Preprocessing
from tests.conftest import randomise
from tests.weights.hub_server import COMMIT, serve

pytest.importorskip("huggingface_hub")
TENSORS = random.Random(0).randbytes(300_000)
TINY = {"widths": (4, 8, 8, 8), "depths": (1, 1, 1, 1)}
DIGEST = hashlib.sha256(TENSORS).hexdigest()


@pytest.fixture
def hub():
    with serve() as hub:
        hub.files = {
            "me/net/config.json": b"{}",
            "me/net/model.safetensors": TENSORS,
            "me/net/pytorch_model.bin": b"not wanted",
            "me/net/notes.txt": b"not wanted",
        }
        yield hub


@pytest.fixture
def resnetkit(hub, tmp_path):
    """Print what a function that fetches returns, or fail with the error's kind and line on standard error."""

    def run(call, **settings):
        code = f"""
import sys
from resnetkit.errors import ResnetkitError
from resnetkit.weights import download
from resnetkit.weights.hub import fetch
from resnetkit.weights.load import fetch_url, locate
download.PAUSE = 0.01
try:
    print({call})
except ResnetkitError as error:
    print(type(error).__name__, error, file=sys.stderr)
    sys.exit(error.exit_code)
"""
        own = environment(hub, tmp_path) | settings
        return subprocess.run([sys.executable, "-c", code], env=own, capture_output=True, text=True, timeout=60)

    return run


def environment(hub, tmp_path):
    """That of a process whose Hub and caches are the test's."""
    own = {"HF_ENDPOINT": hub.url, "HF_HOME": f"{tmp_path}/hf", "TORCH_HOME": f"{tmp_path}/torch"}
    plain = {k: v for k, v in os.environ.items() if not k.startswith("HF_") and not k.lower().endswith("_proxy")}
    return plain | own


def test_the_folder_has_what_is_needed_and_no_more(hub, resnetkit):
    done = resnetkit("fetch('hf:me/net')")
    folder = Path(done.stdout.strip())
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == {
        "config.json": b"{}",
        "model.safetensors": TENSORS,
    }
    assert folder.name == COMMIT


def test_a_pickle_only_where_there_is_no_safetensors(hub, resnetkit):
    del hub.files["me/net/model.safetensors"]
    folder = Path(resnetkit("fetch('hf:me/net')").stdout.strip())
    assert {file.name for file in folder.iterdir()} == {"config.json", "pytorch_model.bin"}


def test_shards(hub, resnetkit):
    del hub.files["me/net/model.safetensors"]
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = '{"weight_map": {"a": "%s", "b": "%s"}}'
    hub.files |= {f"me/net/{name}": name.encode() for name in names}
    hub.files["me/net/model.safetensors.index.json"] = (index % tuple(names)).encode()
    folder = Path(resnetkit("fetch('hf:me/net@main')").stdout.strip())
    assert {file.name for file in folder.iterdir()} == {"config.json", "model.safetensors.index.json", *names}


def test_an_index_names_no_file_outside(hub, resnetkit):
    del hub.files["me/net/model.safetensors"]
    hub.files["me/net/model.safetensors.index.json"] = b'{"weight_map": {"a": "../../escape.safetensors"}}'
    done = resnetkit("fetch('hf:me/net')")
    assert done.returncode == 4 and "not an index of safetensors files beside it" in done.stderr


def test_a_cut_is_resumed(hub, resnetkit):
    large = hub.files["me/net/model.safetensors"] = TENSORS * 40  # huggingface_hub keeps what came by 10 MiB
    hub.cuts = [2, 11_000_000]  # config.json whole, the weights not
    folder = Path(resnetkit("fetch('hf:me/net')").stdout.strip())
    assert (folder / "model.safetensors").read_bytes() == large
    asked = [span for method, path, span in hub.log if method == "GET" and path.endswith("model.safetensors")]
    assert asked == [None, "bytes=10485760-"]


def test_a_second_use_offline_asks_nothing(hub, resnetkit):
    first = resnetkit("fetch('hf:me/net')")
    hub.log.clear()
    second = resnetkit("fetch('hf:me/net')", HF_HUB_OFFLINE="1")
    assert second.stdout == first.stdout != "" and hub.log == []


def test_a_second_use_without_a_server(resnetkit):
    first = resnetkit("fetch('hf:me/net')")
    second = resnetkit("fetch('hf:me/net')", HF_ENDPOINT="http://127.0.0.1:9")
    assert second.stdout == first.stdout != ""


def test_a_wrong_hash_is_refused_and_not_kept(hub, resnetkit):
    hub.wrong_hash = True
    for _ in range(2):
        done = resnetkit("fetch('hf:me/net')")
        assert done.returncode == 4
        assert "ModelFileRefused hf:me/net: model.safetensors has not the hash that the Hub states" in done.stderr
    hub.wrong_hash = False
    assert resnetkit("fetch('hf:me/net')").returncode == 0


def test_a_byte_that_changed_in_the_cache_is_noticed(resnetkit):
    file = Path(resnetkit("fetch('hf:me/net')").stdout.strip()) / "model.safetensors"
    tamper(file)
    done = resnetkit("fetch('hf:me/net')", HF_HUB_OFFLINE="1")
    assert done.returncode == 4 and "has not the hash" in done.stderr
    mended = Path(resnetkit("fetch('hf:me/net')").stdout.strip()) / "model.safetensors"
    assert mended.read_bytes() == TENSORS


@pytest.mark.parametrize(
    ("source", "refused", "environment", "line"),
    [
        ("hf:me/nothing", None, {}, "hf:me/nothing: no such repository at http://127.0.0.1"),
        ("hf:me/net@v9", None, {}, "hf:me/net@v9: it has no such revision"),
        ("hf:me/net", (403, "GatedRepo"), {}, "hf:me/net: gated: accept its terms on its page"),
        ("hf:a b/c", None, {}, "hf:a b/c: not of the form hf:owner/name"),
        (f"hf:a/b/c@{COMMIT}", None, {}, f"hf:a/b/c@{COMMIT}: not of the form hf:owner/name"),
        ("hf:me/net", None, {"HF_HUB_OFFLINE": "1"}, "hf:me/net: not in the cache, and HF_HUB_OFFLINE forbids"),
        pytest.param(
            *(
                "hf:me/net",
                None,
                {"HF_ENDPOINT": "http://127.0.0.1:9"},
                "in the cache, and http://127.0.0.1:9 does not",
            ),
            marks=pytest.mark.slow,  # huggingface_hub tries for half a minute, and says so
        ),
    ],
)
def test_refusals_are_one_line(hub, resnetkit, source, refused, environment, line):
    hub.refused = {"me/net": refused} if refused else {}
    done = resnetkit(f"fetch({source!r})", **environment)
    assert (done.returncode, done.stdout) == (4, "")
    *notes, last = done.stderr.splitlines()
    assert last.startswith("ModelFileRefused ") and line in last
    assert notes == [] or "HF_ENDPOINT" in environment


def test_a_repository_without_weights(hub, resnetkit):
    hub.files = {"me/net/notes.txt": b"only words"}
    assert "it has none of model.safetensors, " in resnetkit("fetch('hf:me/net')").stderr


def test_a_full_disk(hub, tmp_path, monkeypatch):
    from errno import ENOSPC

    import huggingface_hub

    from resnetkit.errors import ResourceExhausted
    from resnetkit.weights.hub import fetch

    def full(*_, **__):
        raise OSError(ENOSPC, "No space left on device")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", full)
    with pytest.raises(ResourceExhausted, match="hf:me/net: not saved: No space left on device; free some space"):
        fetch("hf:me/net")


def test_a_cache_that_may_not_be_written(hub, monkeypatch):
    from errno import EACCES

    import huggingface_hub

    from resnetkit.weights.hub import fetch

    def refuse(*_, **__):
        raise OSError(EACCES, "Permission denied", "/cache/models--me--net")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    with pytest.raises(rk.ResnetkitError, match=r"hf:me/net: /cache/models--me--net: Permission denied$") as error:
        fetch("hf:me/net")
    assert error.value.exit_code == 2


def url_call(hub, digits=8):
    return f"fetch_url('{hub.url}/me/net/resolve/main/model.safetensors', '{DIGEST[:digits]}')"


def test_a_file_from_its_address(hub, resnetkit, tmp_path):
    path = Path(resnetkit(url_call(hub)).stdout.strip())
    assert path == tmp_path / "torch/hub/checkpoints/model.safetensors" and path.read_bytes() == TENSORS
    asked = len(hub.log)
    assert resnetkit(url_call(hub, 64)).stdout.strip() == str(path) and len(hub.log) == asked
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_file_that_another_process_fetches_is_waited_for(hub, tmp_path):
    folder = tmp_path / "torch/hub/checkpoints"
    folder.mkdir(parents=True)
    partial = folder / ".model.safetensors.partial"
    code = f"from resnetkit.weights.download import fetch_url; print({url_call(hub)})"
    with open(partial, "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        second = subprocess.Popen([sys.executable, "-c", code], env=environment(hub, tmp_path), stdout=subprocess.PIPE)
        with pytest.raises(subprocess.TimeoutExpired):
            second.wait(5)
        file.write(TENSORS)
        partial.rename(folder / "model.safetensors")
    answer, _ = second.communicate(timeout=60)
    assert answer.decode().strip() == str(folder / "model.safetensors")
    assert not hub.log and [file.name for file in folder.iterdir()] == ["model.safetensors"]


def test_a_cut_of_a_file_is_resumed_at_once(hub, resnetkit):
    hub.cuts = [100_000, 50_000]
    assert Path(resnetkit(url_call(hub)).stdout.strip()).read_bytes() == TENSORS
    assert [span for _, _, span in hub.log] == [None, "bytes=100000-", "bytes=150000-"]


def test_a_cut_of_a_file_is_resumed_by_the_next_try(hub, resnetkit):
    hub.cuts = [100_000, 0, 0, 0]
    done = resnetkit(url_call(hub))
    assert done.returncode == 4 and "100,000 bytes are kept, and the next try goes on from there" in done.stderr
    hub.log.clear()
    assert Path(resnetkit(url_call(hub)).stdout.strip()).read_bytes() == TENSORS
    assert [span for _, _, span in hub.log] == ["bytes=100000-"]


def test_a_server_without_ranges_begins_anew(hub, resnetkit):
    hub.ranges, hub.cuts = False, [100_000]
    assert Path(resnetkit(url_call(hub)).stdout.strip()).read_bytes() == TENSORS


def test_a_file_that_is_wholly_there_but_not_yet_in_place(hub, resnetkit, tmp_path):
    folder = tmp_path / "torch/hub/checkpoints"
    folder.mkdir(parents=True)
    (folder / ".model.safetensors.partial").write_bytes(TENSORS)
    assert Path(resnetkit(url_call(hub)).stdout.strip()).read_bytes() == TENSORS


def test_a_file_of_another_hash_is_refused_and_not_kept(hub, resnetkit, tmp_path):
    hub.files["me/net/model.safetensors"] = bytes([TENSORS[0] ^ 1]) + TENSORS[1:]
    done = resnetkit(url_call(hub))
    assert done.returncode == 4 and f"not with {DIGEST[:8]}; it is not kept" in done.stderr
    assert list((tmp_path / "torch/hub/checkpoints").iterdir()) == []


def test_a_byte_that_changed_in_the_folder_is_noticed(hub, resnetkit):
    tamper(Path(resnetkit(url_call(hub)).stdout.strip()))
    done = resnetkit(url_call(hub))
    assert done.returncode == 4 and "delete it to fetch it anew" in done.stderr


def test_no_such_file_and_no_server(hub, resnetkit):
    missing = resnetkit(f"fetch_url('{hub.url}/me/net/resolve/main/no.pth', '00')")
    assert missing.returncode == 4 and "no.pth: the server answers 404" in missing.stderr
    silent = resnetkit("fetch_url('http://127.0.0.1:9/no.pth', '00')")
    assert silent.returncode == 4 and "not in the cache, and not to be had: " in silent.stderr


def test_a_disk_that_is_full(hub, resnetkit, tmp_path):
    folder = tmp_path / "torch/hub/checkpoints"
    folder.mkdir(parents=True)
    (folder / ".model.safetensors.partial").symlink_to("/dev/full")
    done = resnetkit(url_call(hub))
    assert done.returncode == 5 and "No space left on device; free some space" in done.stderr


def test_what_a_source_means(hub, resnetkit, tmp_path):
    hub.files["timm/resnet50.a1_in1k/model.safetensors"] = TENSORS
    assert "models--timm--resnet50.a1_in1k" in resnetkit("locate('resnet50.a1_in1k')").stdout
    assert "models--me--net" in resnetkit("locate('hf:me/net')").stdout
    (tmp_path / "own.safetensors").write_bytes(TENSORS)
    assert resnetkit(f"locate('{tmp_path}/own.safetensors')").stdout.strip().endswith("own.safetensors")
    nowhere = resnetkit("locate('resnet8_cifar.mlperf_tiny_cifar10')")
    assert nowhere.returncode == 4 and "no address of it is known" in nowhere.stderr


@pytest.mark.parametrize(
    ("word", "ids"),
    [
        ("imagenet1k_v2", "resnet101.imagenet1k_v2, resnet152.imagenet1k_v2, resnet50.imagenet1k_v2, "),
        ("preact_resnet50", "preact_resnet50.a1h_in1k"),
        ("resnet50.a1_in2k", "resnet50.a1_in1k"),
        ("resnet50.pth", None),
    ],
)
def test_a_word_that_is_no_source_is_told_the_ids_it_may_mean(word, ids):
    cure = f"; published weights go by their full id: {ids}" if ids else "$"
    with pytest.raises(rk.ResnetkitError, match=f"^{word}: no such model file or run folder, nor a checkpoint{cure}"):
        rk.load(word)


def tamper(file):
    content = bytearray(file.read_bytes())
    content[1000] ^= 1
    file.write_bytes(content)


@pytest.fixture
def tiny(hub, tmp_path):
    """A network of timm's names at two addresses, one that the catalogue knows; and what it gives for ones."""
    net = randomise(rk.build("resnet50", 4, **TINY)).eval()
    pixels = Preprocessing(size=(32, 32), resize=36, mean=(0.1, 0.2, 0.3))
    rk.export(rk.Model(net, ["a", "b", "c", "d"], pixels), to="timm", out=tmp_path / "published")
    for file in (tmp_path / "published").iterdir():
        hub.files |= {f"{place}/{file.name}": file.read_bytes() for place in ("me/tiny", "timm/resnet50.a1_in1k")}
    with torch.no_grad():
        return net(torch.ones(1, 3, 32, 32)).flatten().tolist()


def answers(hub, tmp_path, code):
    code = f"import torch, resnetkit as rk\n{code}\nprint(net.eval()(torch.ones(1, 3, 32, 32)).flatten().tolist())"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(hub, tmp_path), capture_output=True, text=True, timeout=120
    )
    assert not done.returncode, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    "code",
    [
        "model = rk.load('hf:me/tiny'); net = model.network; assert model.preprocessing.mean == (0.1, 0.2, 0.3)",
        f"net = rk.build('resnet50', 4, weights='hf:me/tiny', **{TINY})",
        f"net = rk.build('resnet50', 4, weights='a1_in1k', **{TINY})",
        f"net = rk.build('resnet50', 4, weights='resnet50.a1_in1k', **{TINY})",
        "model = rk.load('resnet50.a1_in1k'); net = model.network; assert model.preprocessing.mean == (0.1, 0.2, 0.3)",
    ],
)
def test_what_is_published_is_loaded_and_built(hub, tiny, tmp_path, code):
    (line,) = answers(hub, tmp_path, code)
    assert json.loads(line) == pytest.approx(tiny, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(
    ("source", "place"), [("hf:me/tiny@main", "hf:me/tiny"), ("resnet50.a1_in1k", "hf:timm/resnet50.a1_in1k")]
)
def test_a_run_starts_from_a_commit(hub, tiny, tmp_path, source, place):
    """Later the branch may be elsewhere; a resume must find what it began with."""
    code = f"from resnetkit.weights.load import lasting; print(lasting('{source}')); net = torch.nn.Identity()"
    assert answers(hub, tmp_path, code)[0] == f"{place}@{COMMIT}"


def test_weights_of_torchvision_come_from_their_address(hub, tiny, tmp_path):
    url = f"{hub.url}/me/tiny/resolve/main/model.safetensors"
    sha256 = hashlib.sha256(hub.files["me/tiny/model.safetensors"]).hexdigest()[:8]
    code = f"""
from dataclasses import replace
from resnetkit.weights import catalogue
published = catalogue.by_id("resnet50.imagenet1k_v2")
catalogue.catalogue = lambda: (replace(published, url="{url}", sha256="{sha256}"),)
model = rk.load("resnet50.IMAGENET1K_V2")
assert "as the catalogue has it for resnet50.imagenet1k_v2" in model.report
net = model.network
"""
    (line,) = answers(hub, tmp_path, code)
    assert json.loads(line) == pytest.approx(tiny, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["predict", "resnet50.a1_in1k", "grey.png", "--json"], '"path": "grey.png", "label"'),
        (["inspect", "resnet50.a1_in1k"], f"hf:timm/resnet50.a1_in1k@{COMMIT}: custom_resnet14"),
        (["export", "resnet50.a1_in1k", "--to", "timm"], "resnet50.a1_in1k-timm: custom_resnet14 for timm"),
        (
            ["train", "digits", "--weights", "resnet50.a1_in1k", "--epochs", "1", "--json", "--out", "run"],
            '"model": "run/model.safetensors"',
        ),
    ],
)
def test_verbs_take_an_id(hub, tiny, tmp_path, arguments, says):
    Image.new("L", (40, 40), 90).save(tmp_path / "grey.png")
    done = subprocess.run(
        [sys.executable, "-m", "resnetkit.cli.main", *arguments],
        env=environment(hub, tmp_path),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert not done.returncode and says in done.stdout, done.stderr


def test_a_file_called_like_an_id_wins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    net = rk.build("resnet18", 2, widths=(4, 8, 8, 8), depths=(1, 1, 1, 1))
    rk.Model(net, ["a", "b"], Preprocessing(size=(32, 32), framing="squash")).save(Path("resnet18.a1_in1k"))
    assert rk.load("resnet18.a1_in1k").classes == ["a", "b"]
