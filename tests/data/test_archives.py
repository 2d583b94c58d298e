"""Archives read in place: the same pixels as from the unpacked folder, and nothing that leads out of them."""

import io
import re
import shutil
import subprocess
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from resnetkit.data import archives
from resnetkit.data.datasets import open_dataset, with_test
from resnetkit.data.ingest import ingest
from resnetkit.data.loaders import evaluation_batches
from resnetkit.data.preprocess import Preprocessing
from resnetkit.errors import ResnetkitError
from tests.data.bad_files import encoded, photo


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "photos"
    for i in range(10):
        path = root / ("cat" if i % 3 else "dog") / f"{i}.{'png' if i % 2 else 'jpg'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(photo(i).resize((90 + i, 100)), "png" if i % 2 else "jpeg"))
    (root / "cat" / "notes.txt").write_text("none")
    (root / "cat" / ".DS_Store").write_text("none")
    (root / "dog" / "broken.jpg").write_bytes(b"no image")
    return root


def pack(folder, kind, *, top=""):
    if kind == "zip":
        with zipfile.ZipFile(folder.parent / "photos.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for i, file in enumerate(sorted(p for p in folder.rglob("*") if p.is_file())):
                packed = zipfile.ZIP_STORED if i % 2 else zipfile.ZIP_DEFLATED
                archive.write(file, f"{top}{file.relative_to(folder)}", packed)
            archive.writestr("__MACOSX/cat/._1.png", b"none")
        return folder.parent / "photos.zip"
    with tarfile.open(folder.parent / f"photos.{kind}", f"w:{kind.partition('.')[2]}") as archive:
        archive.add(folder, top or ".")
    return folder.parent / f"photos.{kind}"


@pytest.mark.parametrize("top", ["", "photos/"])
@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.xz"])
def test_an_archive_is_its_folder(folder, kind, top):
    unpacked, packed = (ingest(open_dataset(path), 0.1) for path in (folder, pack(folder, kind, top=top)))
    assert packed.dataset.name == "photos" and packed.dataset.classes == ["cat", "dog"]
    ours, theirs = packed.dataset.parts["all"], unpacked.dataset.parts["all"]
    assert ours.names == theirs.names and torch.equal(ours.labels, theirs.labels)
    assert packed.hashes == unpacked.hashes
    assert packed.dataset.bad == unpacked.dataset.bad == [("dog/broken.jpg", "not an image of a known format")]
    (folder.parent / "elsewhere").mkdir()
    shutil.rmtree(folder)  # the archive alone is read
    preprocessing = Preprocessing(size=(32, 32), resize=32)
    batches = list(evaluation_batches(ours, preprocessing, 4, workers=1))
    assert sum(len(labels) for _, labels in batches) == 10


@pytest.mark.parametrize("beside", ["photos/README.md", "LICENSE", "photos/paper/ieee.cls", "ieee.cls"])
def test_what_lies_beside_the_images_of_an_archive_changes_nothing(folder, beside):
    packed = pack(folder, "zip", top="photos/")
    with zipfile.ZipFile(packed, "a") as archive:
        archive.writestr(beside, b"text")
    dataset = open_dataset(packed)
    assert dataset.classes == ["cat", "dog"] and dataset.parts["all"].names[0] == "cat/1.png"


def test_images_of_one_name_beside_the_class_folders_and_above_are_left_out(folder):
    packed = pack(folder, "zip", top="photos/")
    with zipfile.ZipFile(packed, "a") as archive:
        for place in ("overview.png", "photos/overview.png"):
            archive.writestr(place, encoded(photo(1).resize((90, 100)), "png"))
    dataset = open_dataset(packed)
    assert dataset.classes == ["cat", "dog"] and [name for name, _ in dataset.bad] == ["overview.png"] * 2


@pytest.mark.parametrize("beside", ["photos/overview.png", "overview.png", "photos/README.pdf", "photos/Logo.svg"])
def test_an_image_beside_the_class_folders_of_an_archive_is_left_out_as_on_the_disk(folder, beside):
    packed = pack(folder, "zip", top="photos/")
    picture = encoded(photo(1).resize((90, 100)), "png")
    with zipfile.ZipFile(packed, "a") as archive:
        archive.writestr(beside, picture)
    (folder / beside.split("/")[-1]).write_bytes(picture)
    ours, unpacked = open_dataset(packed), open_dataset(folder)
    assert ours.classes == ["cat", "dog"] and ours.parts["all"].names == unpacked.parts["all"].names
    assert ours.bad == unpacked.bad and ours.bad[0][0] == beside.split("/")[-1]


def test_a_class_with_folders_in_it_stays_one(folder):
    """Where it is the only one, and has one folder beside its images: with several they would be the classes."""
    (folder / "cat" / "more").mkdir()
    (folder / "cat" / "1.png").rename(folder / "cat" / "more" / "1.png")
    shutil.rmtree(folder / "dog")
    assert open_dataset(pack(folder, "zip")).classes == ["cat"]


def test_a_split_in_an_archive_may_be_written_large(folder):
    (folder.parent / "parts").mkdir()
    folder.rename(folder.parent / "parts" / "Test")
    assert list(open_dataset(pack(folder.parent / "parts", "zip")).parts) == ["test"]


def test_info_zips_own_archives(folder):
    if not shutil.which("zip"):
        pytest.skip("zip is not installed")
    subprocess.run(["zip", "-q", "-r", "../made.zip", "."], cwd=folder, check=True)
    assert ingest(open_dataset(folder.parent / "made.zip"), 0.1).hashes == ingest(open_dataset(folder), 0.1).hashes


def test_an_archive_keeps_its_split(folder):
    shutil.copytree(folder, folder.parent / "split" / "train")
    shutil.copytree(folder / "cat", folder.parent / "split" / "test" / "cat")
    (folder.parent / "split" / "train" / "empty").mkdir()
    packed = pack(folder.parent / "split", "tar")
    with pytest.raises(ResnetkitError, match="train/empty: the class has no image"):
        open_dataset(packed)
    (folder.parent / "split" / "train" / "empty").rmdir()
    dataset = open_dataset(pack(folder.parent / "split", "zip"))
    assert {name: len(part) for name, part in dataset.parts.items()} == {"train": 11, "test": 6}


@pytest.mark.parametrize("name", ["/etc/cat/1.png", "cat/../../1.png", "..\\cat\\1.png", "C:\\cat\\1.png"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_names_that_lead_out_are_refused(tmp_path, kind, name):
    if kind == "zip":
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.writestr(name, b"x")
    else:
        with tarfile.open(tmp_path / "a.tar", "w") as archive:
            archive.addfile(tarfile.TarInfo(name))
    with pytest.raises(ResnetkitError, match="a path that leads out of the archive; it is not read"):
        open_dataset(tmp_path / f"a.{kind}")
    assert [p.name for p in tmp_path.iterdir()] == [f"a.{kind}"]


def test_zips_that_cannot_be_read_in_place(folder):
    packed = pack(folder, "zip")
    whole = packed.read_bytes()
    flagged = re.sub(rb"(?<=PK\x01\x02.{4}).", b"\x01", whole, flags=re.DOTALL)  # bit 0 of every entry's flags
    packed.write_bytes(flagged)
    with pytest.raises(ResnetkitError, match="encrypted; unpack it with its password"):
        open_dataset(packed)
    packed.write_bytes(whole[:-100])
    with pytest.raises(ResnetkitError, match="not a set we read|damaged archive"):
        open_dataset(packed)
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("cat/1.png", b"x" * 100)
    with pytest.raises(ResnetkitError, match="packed by a method other than deflate"):
        open_dataset(packed)
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("cat/1.png", b"x")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("cat/1.png", b"y")
    with pytest.raises(ResnetkitError, match="holds cat/1.png twice"):
        open_dataset(packed)


def test_whatever_damage_raises_is_one_line(folder):
    """What tarfile and zipfile let through: of a decompressor, of a name, of a method that they do not know."""
    packed = bytearray(pack(folder, "tar.xz").read_bytes())
    packed[len(packed) // 2] ^= 255
    damaged = {"a.tar.xz": packed, "a.tar.gz": pack(folder, "tar.gz").read_bytes()[:100]}
    entries = pack(folder, "zip").read_bytes()
    place = entries.index(b"PK\x01\x02")  # the first entry of the directory
    damaged["version.zip"] = entries[: place + 6] + b"\xff" + entries[place + 7 :]
    named = entries[: place + 9] + b"\x08" + entries[place + 10 :]  # its name is UTF-8
    damaged["name.zip"] = named[: place + 46] + b"\xff" + named[place + 47 :]
    for name, data in damaged.items():
        (folder.parent / name).write_bytes(data)
        with pytest.raises(ResnetkitError, match=rf"{name}: a damaged archive \(.+\); make or download it again$"):
            open_dataset(folder.parent / name)


def test_members_that_are_no_images_are_left_out(folder):
    packed = pack(folder, "zip")
    with zipfile.ZipFile(packed, "a", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr("cat/bomb.png", b"\0" * 50_000_000)
        link = zipfile.ZipInfo("cat/link.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    data = bytearray(packed.read_bytes())
    data[data.index(b"cat/1.png") + 40] ^= 1  # inside the first member's pixels
    packed.write_bytes(data)
    bad = dict(ingest(open_dataset(packed), 0.5).dataset.bad)
    assert bad == {
        "cat/1.png": "damaged in the archive",
        "cat/bomb.png": "unpacks to more than 200 times its size, as no image does",
        "cat/link.png": "a link inside the archive",
        "dog/broken.jpg": "not an image of a known format",
    }


def test_links_in_a_tar_are_not_followed(folder):
    (folder / "cat" / "link.png").symlink_to("/etc/passwd")
    dataset = open_dataset(pack(folder, "tar"))
    assert dataset.bad == [("cat/link.png", "a link or device inside the archive")]


def test_a_large_compressed_tar_is_refused(folder, monkeypatch):
    monkeypatch.setattr(archives, "MAX_UNPACKED", 10_000)
    with pytest.raises(ResnetkitError, match="photos.tar.gz: over 0 MiB compressed; unpack it first"):
        open_dataset(pack(folder, "tar.gz"))
    assert open_dataset(pack(folder, "tar"))


def shard(path, samples):
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in samples:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def test_webdataset_shards(tmp_path):
    for number in range(2):
        samples = []
        for i in range(12):
            samples += [
                (f"{number}{i:03d}.jpg", encoded(photo(i), "jpeg")),
                (f"{number}{i:03d}.cls", b"%d\n" % (i % 11)),
            ]
            samples.append((f"{number}{i:03d}.json", b"{}"))
        shard(tmp_path / "set" / f"train-{number:04d}.tar", samples)
    shard(tmp_path / "set" / "val-0000.tar", [("sub/x.seg.png", encoded(photo(), "png")), ("sub/x.cls", b"10")])
    dataset = open_dataset(tmp_path / "set")
    assert dataset.classes == [str(i) for i in range(11)]
    assert {name: len(part) for name, part in dataset.parts.items()} == {"train": 24, "val": 1}
    assert dataset.parts["train"].names[13] == "train-0001.tar/1001.jpg"
    assert dataset.parts["train"].labels.tolist() == [i % 11 for i in range(12)] * 2
    assert dataset.parts["val"].labels.tolist() == [10]
    image = ingest(dataset, 0.0).dataset.parts["train"].images[13]
    assert torch.equal(
        image, torch.from_numpy(np.array(Image.open(io.BytesIO(encoded(photo(1), "jpeg"))))).permute(2, 0, 1)
    )
    alone = open_dataset(tmp_path / "set" / "train-0000.tar")
    assert alone.name == "train-0000" and len(alone.parts["train"]) == 12


def test_shards_of_one_name_are_told_apart_by_their_folder(tmp_path):
    for split in ("train", "test"):
        shard(tmp_path / split / "0000.tar", [("1.png", encoded(photo(), "png")), ("1.cls", b"cat")])
    parts = open_dataset(tmp_path).parts
    assert {name: part.names for name, part in parts.items()} == {
        "train": ["train/0000.tar/1.png"],
        "test": ["test/0000.tar/1.png"],
    }


def test_the_part_of_a_shard_is_any_word_of_its_name(tmp_path):
    """As Hugging Face's copy of ImageNet is called."""
    for i, name in enumerate(("imagenet1k-train-0000", "imagenet1k-validation-00")):
        shard(tmp_path / f"{name}.tar", [(f"{i}.png", encoded(photo(i), "png")), (f"{i}.cls", b"cat")])
    assert {name: len(part) for name, part in open_dataset(tmp_path).parts.items()} == {"train": 1, "val": 1}
    alone = open_dataset(tmp_path / "imagenet1k-validation-00.tar")  # a word that divides nothing
    assert alone.parts.keys() == {"all"} and alone.classes == ["cat"]
    shard(tmp_path / "imagenet1k-more.tar", [("2.png", encoded(photo(2), "png")), ("2.cls", b"cat")])
    with pytest.raises(ResnetkitError, match="imagenet1k-more.tar: which part is it. Its name must say one of train"):
        open_dataset(tmp_path)


def test_the_part_that_a_folder_says_is_not_another_words(tmp_path):
    """Nor that which a name begins with."""
    for place in ("train/crash-test-0.tar", "val-of-test-0.tar"):
        shard(tmp_path / place, [("0.png", encoded(photo(), "png")), ("0.cls", b"cat")])
    assert open_dataset(tmp_path).parts.keys() == {"train", "val"}


def test_words_of_names_stand_in_for_what_they_begin_with(tmp_path):
    """In a folder that is called as a part, which says nothing of what lies in it."""
    for i, name in enumerate(("train", "cifar-test", "Testing-more")):
        shard(tmp_path / "training" / f"{name}-0.tar", [(f"{i}.png", encoded(photo(i), "png")), (f"{i}.cls", b"cat")])
    parts = open_dataset(tmp_path / "training").parts
    assert {name: len(part) for name, part in parts.items()} == {"train": 1, "test": 2}
    (tmp_path / "training" / "train-0.tar").unlink()
    (tmp_path / "training" / "cifar-test-0.tar").rename(tmp_path / "training" / "cifar-val-0.tar")
    assert open_dataset(tmp_path / "training").parts.keys() == {"val", "test"}


def test_shards_of_the_test_alone_are_opened(tmp_path):
    shard(tmp_path / "test-0.tar", [("0.png", encoded(photo(), "png")), ("0.cls", b"cat")])
    assert open_dataset(tmp_path / "test-0.tar").classes == ["cat"]


def test_a_sample_is_one_image(tmp_path):
    image = encoded(photo(), "png")
    samples = [("0.jpg", image), ("0.seg.png", image), ("0.cls", b"cat"), ("1.jpg", image), ("1.cls", b"dog")]
    shard(tmp_path / "a.tar", samples)
    dataset = open_dataset(tmp_path / "a.tar")
    assert dataset.parts["all"].names == ["a.tar/0.jpg", "a.tar/1.jpg"]
    assert dataset.bad == [("a.tar/0.seg.png", "belongs to the sample of 0.jpg")]
    shard(tmp_path / "a.tar", [*samples, ("1.png", image)])
    with pytest.raises(ResnetkitError, match="a.tar: one sample has several images, 1.jpg, 1.png; pack it again"):
        open_dataset(tmp_path / "a.tar")


def test_names_that_differ_behind_their_first_dot_only_are_refused(tmp_path):
    """WebDataset takes them for one sample."""
    image = encoded(photo(), "png")
    shard(tmp_path / "a.tar", [(f"scan.00{i}.{kind}", data) for i in (1, 2) for kind, data in
                               (("png", image), ("cls", b"%d" % i))])  # fmt: skip
    with pytest.raises(ResnetkitError, match="a.tar: scan.001.cls and scan.002.cls are one sample, up to the first do"):
        open_dataset(tmp_path / "a.tar")


def test_shards_with_gaps_are_refused(tmp_path):
    image = encoded(photo(), "png")
    shard(tmp_path / "a.tar", [("1.png", image), ("1.cls", b"cat"), ("2.png", image)])
    with pytest.raises(ResnetkitError, match="a.tar: 2.png has no label; its .cls file is missing"):
        open_dataset(tmp_path / "a.tar")
    shard(tmp_path / "a.tar", [("1.png", image), ("1.cls", b"")])
    with pytest.raises(ResnetkitError, match="1.cls is empty; it must hold the label"):
        open_dataset(tmp_path / "a.tar")
    shard(tmp_path / "s" / "train-0.tar", [("1.png", image), ("1.cls", b"cat"), ("2.png", image), ("2.cls", b"dog")])
    shard(tmp_path / "s" / "test-0.tar", [("3.png", image), ("3.cls", b"cow")])
    with pytest.raises(ResnetkitError, match="test-0.tar/3.png: label 'cow' is one that training does not know"):
        open_dataset(tmp_path / "s")
    shard(tmp_path / "s" / "more.tar", [("4.png", image), ("4.cls", b"cat")])
    with pytest.raises(ResnetkitError, match="more.tar: which part is it?"):
        with_test(open_dataset(tmp_path / "s"))
