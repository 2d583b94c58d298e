"""Every layout that is read, on small data in the published form, and what is refused."""

import io
import json
import os
import pickle
import subprocess
import tarfile
import time
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from resnetkit import user_cache
from resnetkit.data import cifar, encoded, parquet
from resnetkit.data.datasets import absolute, open_dataset, with_test
from resnetkit.data.ingest import ingest
from resnetkit.errors import ResnetkitError, ResourceExhausted, TooManyBadImages
from resnetkit.evaluation.own_images import match_classes

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def pixels(count, seed=0):
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (count, 3072), dtype=np.uint8), generator.integers(0, 10, count)


def png(array) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "png")
    return buffer.getvalue()


def test_digits_are_scikit_learns_split_in_a_fixed_way():
    dataset = open_dataset("digits")
    train, test = dataset.parts["train"], dataset.parts["test"]
    assert (len(train), len(test)) == (1438, 359)
    theirs = load_digits()
    for part in (train, test):
        for image, label, name in zip(part.images, part.labels.tolist(), part.names):
            i = int(name.removeprefix("digits/"))
            assert torch.equal(image[0], torch.from_numpy((theirs.images[i] * 255 / 16).round().astype(np.uint8)))
            assert label == theirs.target[i]
    assert not set(train.names) & set(test.names)
    assert open_dataset("digits").parts["test"].names == test.names
    shares = test.labels.bincount() / (train.labels.bincount() + test.labels.bincount())
    assert shares.min() > 0.18 and shares.max() < 0.22


def cifar10_files(kind):
    """CIFAR-10's files as its authors describe them, six images a batch."""
    files = {}
    for i, name in enumerate([*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]):
        data, labels = pixels(6, seed=i)
        if kind == "python":
            record = {b"batch_label": b"x", b"labels": labels.tolist(), b"data": data, b"filenames": [b"a.png"] * 6}
            files[name] = pickle.dumps(record, protocol=2)
        else:
            files[f"{name}.bin"] = np.concatenate([labels[:, None].astype(np.uint8), data], 1).tobytes()
    if kind == "python":
        meta = {b"label_names": [c.encode() for c in CLASSES], b"num_cases_per_batch": 6, b"num_vis": 3072}
        files["batches.meta"] = pickle.dumps(meta, protocol=2)
    else:
        files["batches.meta.txt"] = "\n".join(CLASSES).encode() + b"\n\n"
    return files


def cifar100_files(kind):
    files = {}
    for i, name in enumerate(["train", "test"]):
        data, fine = pixels(8, seed=i)
        coarse = np.full(8, 3, np.uint8)
        if kind == "python":
            record = {b"fine_labels": fine.tolist(), b"coarse_labels": coarse.tolist(), b"data": data}
            files[name] = pickle.dumps(record, protocol=2)
        else:
            files[f"{name}.bin"] = np.concatenate([coarse[:, None], fine[:, None].astype(np.uint8), data], 1).tobytes()
    if kind == "python":
        files["meta"] = pickle.dumps(
            {b"fine_label_names": [c.encode() for c in CLASSES], b"coarse_label_names": [b"x"]}
        )
    else:
        files["fine_label_names.txt"] = "\n".join(CLASSES).encode()
        files["coarse_label_names.txt"] = b"x\n"
    return files


@pytest.mark.parametrize("archived", [False, True])
@pytest.mark.parametrize("kind", ["python", "binary"])
@pytest.mark.parametrize(("make", "per_batch", "batches"), [(cifar10_files, 6, 5), (cifar100_files, 8, 1)])
def test_cifar_archives(tmp_path, make, per_batch, batches, kind, archived):
    files = make(kind)
    if archived:
        path = tmp_path / "cifar.tar.gz"
        with tarfile.open(path, "w:gz") as archive:
            for name, data in files.items():
                info = tarfile.TarInfo(f"cifar-batches/{name}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    else:
        path = tmp_path
        for name, data in files.items():
            (path / name).write_bytes(data)
    dataset = open_dataset(path)
    assert dataset.classes == CLASSES
    train, test = dataset.parts["train"], dataset.parts["test"]
    assert (len(train), len(test)) == (per_batch * batches, per_batch)
    data, labels = pixels(per_batch, seed=0)
    assert torch.equal(train.images[:per_batch], torch.from_numpy(data.reshape(-1, 3, 32, 32)))
    assert train.labels[:per_batch].tolist() == labels.tolist()


def test_a_cifar_pickle_that_would_run_code_is_refused(tmp_path):
    class Canary:
        def __reduce__(self):
            return (open, (str(tmp_path / "canary"), "w"))

    files = cifar10_files("python") | {"data_batch_2": pickle.dumps({b"data": Canary(), b"labels": []})}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(
        ResnetkitError, match="data_batch_2: refused: it names io.open|data_batch_2: refused: it names _io.open"
    ):
        open_dataset(tmp_path)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("damage", ["missing", "short"])
def test_a_damaged_cifar_archive_is_refused(tmp_path, damage):
    files = cifar10_files("binary")
    if damage == "missing":
        del files["data_batch_3.bin"]
    else:
        files["data_batch_3.bin"] = files["data_batch_3.bin"][:-1]
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(ResnetkitError, match="data_batch_3.bin"):
        open_dataset(tmp_path)


def test_of_a_cifar_tar_no_more_is_read_than_the_set_can_have(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar, "MAX_HELD", 2**20)

    def write(files):
        with tarfile.open(tmp_path / "cifar.tar.gz", "w:gz") as archive:
            for name, data in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        tracemalloc.start()
        try:
            return open_dataset(tmp_path / "cifar.tar.gz")
        finally:
            assert tracemalloc.get_traced_memory()[1] < 3_000_000
            tracemalloc.stop()

    zeros = bytes(10_000_000)
    assert len(write(cifar10_files("binary") | {"extra.bin": zeros}).parts["train"]) == 30
    with pytest.raises(ResnetkitError, match="cifar.tar.gz: 9 MiB of batches, where CIFAR's are under 300; unpack it"):
        write(cifar10_files("binary") | {"data_batch_2.bin": zeros})


def test_cifar_labels_may_be_an_array(tmp_path):
    data, labels = pixels(6, seed=0)
    files = cifar10_files("python") | {"data_batch_1": pickle.dumps({b"data": data, b"labels": labels})}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    assert open_dataset(tmp_path).parts["train"].labels[:6].tolist() == labels.tolist()


@pytest.mark.parametrize(
    ("kind", "file", "content"),
    [
        ("python", "data_batch_1", pickle.dumps({b"data": np.zeros((6, 3072), np.uint8), b"labels": 5})),
        ("python", "data_batch_1", pickle.dumps({b"data": np.zeros((6, 3072), np.uint8), b"labels": ["a"] * 6})),
        ("python", "data_batch_1", pickle.dumps({b"data": np.zeros((6, 3072), np.uint8), b"labels": [2**70] * 6})),
        ("python", "data_batch_1", pickle.dumps({b"data": np.zeros((6, 3072), np.uint8), b"labels": [[1], 2] * 3})),
        ("python", "data_batch_1", pickle.dumps({b"data": np.zeros(3072, np.uint8), b"labels": 5})),
        ("python", "batches.meta", pickle.dumps({b"num_vis": 3072})),
        ("python", "batches.meta", pickle.dumps({b"label_names": 10})),
        ("python", "batches.meta", pickle.dumps({b"label_names": [b"\xff"] * 10})),
        ("binary", "batches.meta.txt", b"\xff\xfe"),
    ],
)
def test_odd_cifar_records_are_refused(tmp_path, kind, file, content):
    for name, data in (cifar10_files(kind) | {file: content}).items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(ResnetkitError, match=f"{file}: .*the archive is damaged"):
        open_dataset(tmp_path)


def write_parquet(path, rows, labels, names=None):
    table = pa.table({"image": [{"bytes": data, "path": None} for data in rows], "label": labels})
    if names:
        features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path)


def test_parquet_as_hugging_face_writes_it(tmp_path):
    images = [np.full((12, 12, 3), i, np.uint8) + np.arange(3, dtype=np.uint8) for i in range(6)]
    write_parquet(tmp_path / "train-00000-of-00002.parquet", map(png, images[:2]), [1, 0], ["cat", "dog"])
    write_parquet(tmp_path / "train-00001-of-00002.parquet", map(png, images[2:4]), [1, 1], ["cat", "dog"])
    write_parquet(tmp_path / "validation-00000-of-00001.parquet", map(png, images[4:]), [0, 1], ["cat", "dog"])
    read = ingest(open_dataset(tmp_path), 0.0)
    assert read.dataset.classes == ["cat", "dog"]
    assert read.side == (12, 12) and read.channels == "rgb"
    train = read.dataset.parts["train"]
    assert train.labels.tolist() == [1, 0, 1, 1]
    assert torch.equal(train.images[3], torch.from_numpy(images[3]).permute(2, 0, 1))
    assert read.dataset.parts["val"].names == [
        "validation-00000-of-00001.parquet#0",
        "validation-00000-of-00001.parquet#1",
    ]


def test_parquet_files_of_one_name_are_told_apart_by_their_folder(tmp_path):
    for i, split in enumerate(("train", "test")):
        (tmp_path / split).mkdir()
        rows = [png(np.full((9, 9), 40 * i + 20 * row, np.uint8)) for row in range(2)]
        write_parquet(tmp_path / split / "0000.parquet", rows, [0, 1], ["cat", "dog"])
    write_parquet(tmp_path / "train" / "0001.parquet", rows, [0, 1], ["cat", "dog"])
    parts = open_dataset(tmp_path).parts
    assert parts["test"].names == ["test/0000.parquet#0", "test/0000.parquet#1"]
    # A name that was clear stays as run folders have it.
    assert parts["train"].names == [
        *("train/0000.parquet#0", "train/0000.parquet#1"),
        *("0001.parquet#0", "0001.parquet#1"),
    ]


def test_the_part_of_a_parquet_file_is_any_word_of_its_name(tmp_path):
    for name in ("flowers-train", "flowers.Test"):
        write_parquet(tmp_path / f"{name}.parquet", [png(np.zeros((8, 8), np.uint8))] * 2, [0, 1], ["x", "y"])
    assert {name: len(part) for name, part in open_dataset(tmp_path).parts.items()} == {"test": 2, "train": 2}


def test_parquet_without_metadata_takes_names_from_the_labels(tmp_path):
    rows = [png(np.full((9, 9), i * 20, np.uint8)) for i in range(10)]
    write_parquet(tmp_path / "data.parquet", rows, ["dog", "cat"] * 5)
    read = ingest(open_dataset(tmp_path / "data.parquet"), 0.0)
    assert read.dataset.classes == ["cat", "dog"]
    assert read.channels == "grey" and read.dataset.parts["all"].images.shape == (10, 1, 9, 9)
    split = with_test(read.dataset).parts
    assert {name: len(part) for name, part in split.items()} == {"train": 8, "test": 2}


def test_classes_that_parquet_calls_the_same_are_told_apart_by_number(tmp_path):
    """ImageNet-1k has two cranes, https://huggingface.co/datasets/ILSVRC/imagenet-1k/blob/main/classes.py"""
    rows = [png(np.full((9, 9), i * 20, np.uint8)) for i in range(3)]
    write_parquet(tmp_path / "data.parquet", rows, [2, 1, 0], ["crane", "dog", "crane"])
    dataset = open_dataset(tmp_path)
    assert dataset.classes == ["crane (0)", "dog", "crane (2)"] and dataset.parts["all"].labels.tolist() == [2, 1, 0]
    assert match_classes(dataset, ["crane", "dog", "crane"]).parts["all"].labels.tolist() == [2, 1, 0]


def test_class_names_that_could_not_be_read_again_are_refused(tmp_path):
    rows = [png(np.full((9, 9), i * 20, np.uint8)) for i in range(3)]
    for name in ("", "a\nb"):
        for labels, names in (([name, "b", "b"], None), ([0, 1, 1], [name, "b"])):
            write_parquet(tmp_path / "data.parquet", rows, labels, names)
            with pytest.raises(ResnetkitError, match="class name '.*' is .*; rename it"):
                open_dataset(tmp_path)
    for missing in (float("nan"), None):
        write_parquet(tmp_path / "data.parquet", rows, [1.0, 2.0, missing])
        with pytest.raises(ResnetkitError, match=f"data.parquet#2: label {missing} is none of the 2 classes"):
            open_dataset(tmp_path)
    make_folder(tmp_path / "blank", {"cat": 1, "cat ": 1})
    with pytest.raises(ResnetkitError, match="classes 'cat' and 'cat ' differ by case, Unicode form or a blank"):
        open_dataset(tmp_path / "blank")


def test_parquet_problems_name_the_place(tmp_path):
    write_parquet(tmp_path / "a.parquet", [png(np.zeros((8, 8), np.uint8))] * 2, [0, 7], ["x", "y"])
    with pytest.raises(ResnetkitError, match=r"a.parquet#1: label 7 is none of the 2 classes"):
        open_dataset(tmp_path)
    write_parquet(tmp_path / "test-0.parquet", [png(np.zeros((8, 8), np.uint8))], [0], ["x", "y"])
    with pytest.raises(ResnetkitError, match="a.parquet: which part is it?"):
        open_dataset(tmp_path)
    (tmp_path / "test-0.parquet").unlink()
    pq.write_table(pa.table({"image": ["a.png"], "label": [0]}), tmp_path / "a.parquet")
    with pytest.raises(ResnetkitError, match="holds no bytes; embed the images"):
        open_dataset(tmp_path)
    pq.write_table(pa.table({"text": ["x"]}), tmp_path / "a.parquet")
    with pytest.raises(ResnetkitError, match="no image column; columns: text"):
        open_dataset(tmp_path)
    (tmp_path / "a.parquet").write_bytes(b"nonsense")
    with pytest.raises(ResnetkitError, match="not readable as Parquet"):
        open_dataset(tmp_path)


def test_a_table_beside_photos_hides_them_not(tmp_path):
    """Such as the answers to them. With images in it, it is the set, and pictures beside it are none of its own."""
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "a.png").write_bytes(png(np.zeros((8, 8), np.uint8)))
    pq.write_table(pa.table({"path": ["a.png"], "label": ["cat"]}), tmp_path / "answers.parquet")
    assert open_dataset(tmp_path).parts["all"].names == ["cat/a.png", "dog/a.png"]
    pq.write_table(pa.table({"image": ["cat/a.png"], "label": ["cat"]}), tmp_path / "paths.parquet")
    pq.write_table(pa.table({"path": ["cat/a.png"], "bytes": [76]}), tmp_path / "sizes.parquet")
    assert open_dataset(tmp_path).classes == ["cat", "dog"]
    (tmp_path / "sizes.parquet").unlink()
    write_parquet(tmp_path / "set.parquet", [png(np.zeros((8, 8), np.uint8))] * 2, [0, 1], ["x", "y"])
    with pytest.raises(ResnetkitError, match="paths.parquet#0: the image column holds no bytes; embed the images"):
        open_dataset(tmp_path)  # which may be its other half
    (tmp_path / "paths.parquet").unlink()
    assert open_dataset(tmp_path).classes == ["x", "y"]
    table = pq.read_table(tmp_path / "set.parquet").rename_columns(["photo", "label"])
    told = {"photo": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["x", "y"]}}
    told = {"huggingface": json.dumps({"info": {"features": told}})}
    pq.write_table(table.replace_schema_metadata(told), tmp_path / "set.parquet")
    assert open_dataset(tmp_path).classes == ["x", "y"]


def test_parquet_that_is_too_large_for_memory_is_unpacked_once(tmp_path, monkeypatch):
    noise = np.random.default_rng(0)
    rows = [png(noise.integers(0, 256, (70, 70, 3), dtype=np.uint8)) for _ in range(150)]
    files = [tmp_path / "data" / "train-0.parquet", tmp_path / "data" / "test-0.parquet"]
    files[0].parent.mkdir()
    write_parquet(files[0], rows[:100], [0, 1] * 50, ["cat", "dog"])
    write_parquet(files[1], rows[100:], [1, 0] * 25, ["cat", "dog"])
    held = open_dataset(files[0].parent)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(parquet, "MAX_HELD", sum(map(len, rows)) // 2)
    for _ in range(2):
        there = open_dataset(files[0].parent)
        for name, part in there.parts.items():
            assert not any(isinstance(image, bytes) for image in part.images)
            assert [encoded.read(image) for image in part.images] == held.parts[name].images
            assert part.names == held.parts[name].names and torch.equal(part.labels, held.parts[name].labels)
        monkeypatch.setattr(parquet, "_images", lambda file, column: map(pytest.fail, ["read again"]))


def test_parquet_that_has_changed_is_unpacked_again_and_a_failure_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(parquet, "MAX_HELD", 0)
    file = tmp_path / "data.parquet"
    black, white = (png(np.full((8, 8), value, np.uint8)) for value in (0, 255))
    write_parquet(file, [black, white], [0, 1], ["x", "y"])
    open_dataset(file)
    write_parquet(file, [white, white, black], [0, 1, 1], ["x", "y"])
    images = open_dataset(file).parts["all"].images
    assert [encoded.read(image) for image in images] == [white, white, black]
    write_parquet(file, [white, None], [0, 1], ["x", "y"])
    kept = sorted((tmp_path / "cache").rglob("*"))
    with pytest.raises(ResnetkitError, match="data.parquet#1: the image column holds no bytes"):
        open_dataset(file)
    assert sorted((tmp_path / "cache").rglob("*")) == kept


@pytest.mark.parametrize(
    ("labels", "metadata", "says"),
    [
        ([], None, "data.parquet: the all part has no rows; remove it"),
        ([0, 1], "{", "data.parquet: its `huggingface` metadata is damaged"),
        ([0, 1], '{"info": null}', "data.parquet: its `huggingface` metadata is damaged"),
        ([0, 1], '{"info": {"features": [1]}}', "data.parquet: its `huggingface` metadata is damaged"),
        (
            [0, 1],
            '{"info": {"features": {"label": {"names": [1, 2]}}}}',
            "the class names are no list of texts",
        ),
        (
            [0, 1],
            '{"info": {"features": {"label": {"names": 5}}}}',
            "the class names are no list of texts",
        ),
        ([{"a": 1}], None, "data.parquet: column 'label' holds struct<a: int64>; a label is a number or a text"),
        ([[[1]]], None, "data.parquet: column 'label' holds list<.*list<.*; a label is a number or a text"),
    ],
)
def test_odd_parquet_is_one_line(tmp_path, labels, metadata, says):
    image = png(np.zeros((8, 8), np.uint8))
    images = pa.array([{"bytes": image, "path": None}] * len(labels), pa.struct({"bytes": pa.binary()}))
    table = pa.table({"image": images, "label": pa.array(labels, None if labels else pa.int64())})
    if metadata:
        table = table.replace_schema_metadata({"huggingface": metadata})
    pq.write_table(table, tmp_path / "data.parquet")
    with pytest.raises(ResnetkitError, match=says):
        open_dataset(tmp_path)


def test_of_several_label_columns_in_parquet_one_is_named(tmp_path):
    """Hugging Face's CIFAR-100 has two."""
    rows = [{"bytes": png(np.full((8, 8), i, np.uint8)), "path": None} for i in range(3)]
    labels = {"_type": "ClassLabel", "names": ["a", "b", "c"]}
    features = {"photo": {"_type": "Image"}, "fine_label": labels, "coarse_label": {**labels, "names": ["x", "y"]}}
    columns = {"photo": rows, "fine_label": [0, 1, 2], "coarse_label": [0, 1, 1], "bytes": [9, 9, 9], "mask": rows}

    def write():
        metadata = {"huggingface": json.dumps({"info": {"features": features}})}
        pq.write_table(pa.table(columns).replace_schema_metadata(metadata), tmp_path / "data.parquet")

    write()
    for place in (tmp_path, tmp_path / "data.parquet"):
        with pytest.raises(ResnetkitError, match="several label columns, fine_label, coarse_label; .*PATH:fine_label"):
            open_dataset(place)
        assert open_dataset(f"{place}:fine_label").classes == ["a", "b", "c"]
        assert open_dataset(absolute(f"{place}:coarse_label")).parts["all"].labels.tolist() == [0, 1, 1]
    with pytest.raises(ResnetkitError, match="data.parquet: no column 'fine'; did you mean fine_label?"):
        open_dataset(f"{tmp_path}:fine")
    features["mask"] = {"_type": "Image"}
    write()
    with pytest.raises(ResnetkitError, match="several image columns, photo, mask; keep one, or call"):
        open_dataset(f"{tmp_path}:fine_label")
    columns["img"] = columns.pop("photo")
    features["img"] = features.pop("photo")
    write()
    assert len(open_dataset(f"{tmp_path}:fine_label").parts["all"]) == 3
    make_folder(tmp_path / "set", {"cat": 1, "dog": 1})
    with pytest.raises(ResnetkitError, match="set: no Parquet or CSV, so it has no column 'label'"):
        open_dataset(f"{tmp_path / 'set'}:label")
    make_folder(tmp_path / "set:label", {"cow": 1})
    assert open_dataset(f"{tmp_path / 'set'}:label").classes == ["cow"]  # a colon in a name is part of it


def test_what_is_unpacked_and_damaged_is_made_again(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(parquet, "MAX_HELD", 0)
    rows = [png(np.full((8, 8), value, np.uint8)) for value in (0, 255)]
    write_parquet(tmp_path / "data.parquet", rows, [0, 1], ["x", "y"])

    def images():
        return [encoded.read(image) for image in open_dataset(tmp_path / "data.parquet").parts["all"].images]

    assert images() == rows
    (ends,) = (tmp_path / "cache").rglob("ends.npy")
    store = ends.with_name("images")
    for damage in (ends.unlink, lambda: ends.write_bytes(b""), store.unlink, lambda: os.truncate(store, 10)):
        damage()
        assert images() == rows
    old, new = (ends.parents[1] / f".{ends.parent.name}.{name}" for name in ("old", "new"))
    for left in (old, new):
        left.mkdir()
    os.utime(old, (0, 0))
    ends.unlink()
    assert images() == rows
    assert not old.exists() and new.exists()  # another run may be at work in the new one


def test_the_disk_must_hold_every_file_of_a_set_or_none_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(parquet, "MAX_HELD", 0)
    noise = np.random.default_rng(0)
    for name in ("train-0", "train-1"):
        rows = [png(noise.integers(0, 256, (60, 60, 3), dtype=np.uint8)) for _ in range(2)]
        write_parquet(tmp_path / f"{name}.parquet", rows, [0, 1], ["x", "y"])
    monkeypatch.setattr(user_cache, "disk_usage", lambda folder: SimpleNamespace(free=30_000))  # one has 22,000 bytes
    with pytest.raises(ResourceExhausted, match="takes .* GB free; free some space or set XDG_CACHE_HOME"):
        open_dataset(tmp_path)
    assert not list((tmp_path / "cache").rglob("images"))
    open_dataset(tmp_path / "train-0.parquet")
    open_dataset(tmp_path)  # the other one fits


def test_little_of_a_parquet_file_is_in_memory_at_once(tmp_path):
    noise = np.random.default_rng(0)
    rows = [noise.bytes(100_000) for _ in range(200)]
    file = tmp_path / "data.parquet"
    pq.write_table(pa.table({"image": [{"bytes": row, "path": None} for row in rows]}), file, row_group_size=10)
    pool = pa.default_memory_pool()
    before, most = pool.bytes_allocated(), 0
    for image, row in zip(parquet._images(file, "image"), rows, strict=True):
        assert image == row
        most = max(most, pool.bytes_allocated() - before)
    assert 0 < most < 10_000_000  # of 20,000,000


def test_images_that_parquet_has_once_are_held_once(tmp_path):
    image = np.random.default_rng(0).bytes(200_000)
    write_parquet(tmp_path / "data.parquet", [image] * 200, [0, 1] * 100, ["x", "y"])
    assert (tmp_path / "data.parquet").stat().st_size < 1_000_000
    tracemalloc.start()
    assert open_dataset(tmp_path).parts["all"].images == [image] * 200
    assert tracemalloc.get_traced_memory()[1] < 10_000_000  # of 40,000,000
    tracemalloc.stop()


def test_a_damaged_page_of_parquet_is_named(tmp_path):
    file = tmp_path / "data.parquet"
    write_parquet(file, [png(np.zeros((8, 8), np.uint8))] * 40, [0, 1] * 20, ["x", "y"])
    data = bytearray(file.read_bytes())
    data[4:40] = b"\xff" * 36
    file.write_bytes(data)
    with pytest.raises(ResnetkitError, match="data.parquet: not readable as Parquet"):
        open_dataset(file)


def make_folder(root, counts, size=(40, 30)):
    generator = np.random.default_rng(0)
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            image = Image.fromarray(generator.integers(0, 256, (*size, 3), dtype=np.uint8))
            image.save(root / name / f"{i}.png")


def test_folder_with_its_own_split(tmp_path):
    make_folder(tmp_path / "train", {"b": 3, "a": 2})
    make_folder(tmp_path / "val", {"a": 1, "b": 1})
    dataset = open_dataset(tmp_path)
    assert dataset.classes == ["a", "b"]
    assert dataset.parts["train"].names == [
        "train/a/0.png",
        "train/a/1.png",
        "train/b/0.png",
        "train/b/1.png",
        "train/b/2.png",
    ]
    assert dataset.parts["val"].labels.tolist() == [0, 1]
    assert list(dataset.parts) == ["train", "val"]


def test_folder_split_for_you_is_stratified_and_stable(tmp_path):
    make_folder(tmp_path, {"many": 20, "few": 2})
    parts = with_test(open_dataset(tmp_path)).parts
    assert parts["train"].labels.bincount().tolist() == [1, 16]
    assert parts["test"].labels.bincount().tolist() == [1, 4]
    assert with_test(open_dataset(tmp_path)).parts["test"].names == parts["test"].names


def test_folder_problems_name_the_cure(tmp_path):
    make_folder(tmp_path / "train", {"cat": 2, "dog": 2})
    make_folder(tmp_path / "val", {"cats": 1})
    with pytest.raises(ResnetkitError, match="val/cats: a class that training does not know; did you mean cat?"):
        open_dataset(tmp_path)
    (tmp_path / "train" / "empty").mkdir()
    with pytest.raises(ResnetkitError, match="empty: the class has no image"):
        open_dataset(tmp_path / "train")
    with pytest.raises(ResnetkitError, match="two classes are needed; found only 'cats'"):
        make_folder(tmp_path / "one", {"cats": 5})
        with_test(open_dataset(tmp_path / "one"))
    with pytest.raises(ResnetkitError, match="too few images to set any apart"):
        make_folder(tmp_path / "few", {"a": 1, "b": 1})
        with_test(open_dataset(tmp_path / "few"))
    with pytest.raises(ResnetkitError, match="no dataset 'digts'.*digits"):
        open_dataset("digts")


@pytest.mark.parametrize(
    "name, told",
    [
        ("cifar10", "download cifar-10-python.tar.gz and give that file"),
        ("CIFAR-100", "download cifar-100-python.tar.gz and give that file"),
        ("mnist", "t10k-labels-idx1-ubyte.gz into a folder and give that"),
        ("fashion_mnist", "download train-images-idx3-ubyte.gz"),
    ],
)
def test_of_a_set_that_is_read_it_is_said_what_to_download(name, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ResnetkitError, match=f"no dataset '{name}' here: .*{told}"):
        open_dataset(name)


def test_a_train_part_alone_is_divided(tmp_path):
    """An unlabelled test, as Kaggle has it, is none."""
    make_folder(tmp_path / "set" / "train", {"cat": 2, "dog": 2})
    (tmp_path / "set" / "test").mkdir()
    (tmp_path / "set" / "test" / "1.png").write_bytes(png(np.zeros((8, 8), np.uint8)))
    dataset = with_test(open_dataset(tmp_path / "set"))
    assert {name: len(part) for name, part in dataset.parts.items()} == {"train": 2, "test": 2}
    assert dataset.bad == [("test/1.png", "lies beside the class folders, so it has no class")]
    rows = [png(np.full((8, 8), value, np.uint8)) for value in range(4)]
    file = tmp_path / "train-00000-of-00001.parquet"
    write_parquet(file, rows, [0, 1] * 2, ["x", "y"])
    assert with_test(open_dataset(file)).parts.keys() == {"train", "test"}


def test_parts_may_be_called_training_and_testing(tmp_path):
    for part in ("Training", "Testing"):
        make_folder(tmp_path / part, {"cat": 2, "dog": 2})
    assert with_test(open_dataset(tmp_path)).parts.keys() == {"train", "test"}


def test_bad_files_are_left_out_and_counted(tmp_path):
    make_folder(tmp_path, {"a": 10, "b": 10})
    (tmp_path / "a" / "0.png").write_bytes(b"broken")
    (tmp_path / "b" / "3.png").write_bytes((tmp_path / "b" / "3.png").read_bytes()[:200])
    read = ingest(open_dataset(tmp_path), max_bad=0.1)
    assert {name for name, _ in read.dataset.bad} == {"a/0.png", "b/3.png"}
    assert all(reason for _, reason in read.dataset.bad)
    assert sum(len(part) for part in read.dataset.parts.values()) == 18
    with pytest.raises(TooManyBadImages, match="2 of 20 images cannot be read"):
        ingest(open_dataset(tmp_path), max_bad=0.05)


def test_whole_number_labels_without_names_count_from_anywhere(tmp_path):
    rows = [png(np.full((9, 9), i * 20, np.uint8)) for i in range(4)]
    write_parquet(tmp_path / "data.parquet", rows, [2_000_000_000, 5, 10, 5])
    dataset = open_dataset(tmp_path)
    assert dataset.classes == ["5", "10", "2000000000"]
    assert dataset.parts["all"].labels.tolist() == [2, 0, 1, 0]


def test_channels_asked_for_are_given(tmp_path):
    """As Pillow makes grey, whether the pixels come from a file or from an archive's array."""
    from resnetkit.data.preprocess import as_channels

    colour = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    write_parquet(tmp_path / "test.parquet", [png(colour)], ["a"])
    read = ingest(open_dataset(tmp_path), 0.0, "grey").dataset.parts["test"].images
    theirs = torch.from_numpy(np.array(Image.fromarray(colour).convert("L")))
    assert torch.equal(read[0, 0], theirs)
    assert torch.equal(as_channels(torch.from_numpy(colour).permute(2, 0, 1)[None], "grey")[0, 0], theirs)


def test_a_damaged_tar_is_refused_and_other_files_are_not_read(tmp_path):
    with tarfile.open(tmp_path / "cifar.tar.gz", "w:gz") as archive:
        for name, data in cifar10_files("python").items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    whole = (tmp_path / "cifar.tar.gz").read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ResnetkitError, match="a damaged archive"):
        open_dataset(tmp_path / "cut.tar.gz")
    (tmp_path / "letter.doc").write_bytes(b"no set at all")
    with pytest.raises(ResnetkitError, match="letter.doc: not a set we read: a folder of class folders, a CSV"):
        open_dataset(tmp_path / "letter.doc")


def test_classes_that_a_person_cannot_tell_apart_stop(tmp_path):
    make_folder(tmp_path / "case", {"Cat": 1, "cat": 1})
    with pytest.raises(
        ResnetkitError, match="classes 'Cat' and 'cat' differ by case, Unicode form or a blank at an end; merge"
    ):
        open_dataset(tmp_path / "case")
    composed, apart = "caf\u00e9", "cafe\u0301"
    make_folder(tmp_path / "form", {composed: 1, apart: 1})
    with pytest.raises(ResnetkitError, match="differ by case, Unicode form or a blank at an end"):
        open_dataset(tmp_path / "form")
    make_folder(tmp_path / "split" / "train", {composed: 1, "tea": 1})
    make_folder(tmp_path / "split" / "test", {apart: 1})
    with pytest.raises(
        ResnetkitError, match="it differs from 'caf.xe9' by case, Unicode form or a blank at an end; rename it"
    ):
        open_dataset(tmp_path / "split")
    make_folder(tmp_path / "bytes", {os.fsdecode(b"caf\xe9"): 1, "tea": 1})
    with pytest.raises(ResnetkitError, match="is not plain UTF-8 text; rename it"):
        open_dataset(tmp_path / "bytes")


def test_joined_letters_are_plain_text(tmp_path):
    """Zero-width joiners hold emoji together and are part of Persian spelling."""
    make_folder(tmp_path, {"\U0001f468\u200d\U0001f33e": 1, "\u0645\u06cc\u200c\u0631\u0648\u0645": 1})
    assert len(open_dataset(tmp_path).classes) == 2


def test_what_is_no_class_is_told(tmp_path):
    make_folder(tmp_path / "train", {"cat": 2, "dog": 2})
    make_folder(tmp_path / "test", {"cat": 1})
    make_folder(tmp_path / "spare", {"cat": 1})
    for name in (".ipynb_checkpoints", "__MACOSX"):
        make_folder(tmp_path / "train" / name, {"cat": 1})
        make_folder(tmp_path / "train" / "cat" / name, {"nested": 1})
    for place in ("beside.png", "train/inside.png"):
        (tmp_path / place).write_bytes(png(np.zeros((8, 8), np.uint8)))
    (tmp_path / "train" / "dog" / "linked").symlink_to(tmp_path / "spare")
    dataset = open_dataset(tmp_path)
    assert dataset.classes == ["cat", "dog"] and len(dataset.parts["train"]) == 4
    assert {path: reason.split(",")[0] for path, reason in dataset.bad} == {
        "beside.png": "lies beside the class folders",
        "train/inside.png": "lies beside the class folders",
        "spare/cat/0.png": "lies beside the class folders",
        "train/dog/linked": "a link to a folder",
    }
    assert len(ingest(dataset, 0.0).dataset.bad) == 4  # told, though none of them is an image of a part


def test_a_class_of_links_alone_says_why_it_is_empty(tmp_path):
    make_folder(tmp_path / "pool", {"cat": 2})
    make_folder(tmp_path / "set", {"dog": 2})
    (tmp_path / "set" / "cat").mkdir()
    for i in range(2):
        (tmp_path / "set" / "cat" / f"{i}.png").symlink_to(tmp_path / "pool" / "cat" / f"{i}.png")
    with pytest.raises(ResnetkitError, match=r"cat: the class has no image.*\(2 left out there; cat/0.png: a link out"):
        open_dataset(tmp_path / "set")


def test_an_image_of_a_strange_suffix_is_told(tmp_path):
    make_folder(tmp_path, {"cat": 2, "dog": 2})
    (tmp_path / "cat" / "0.png").rename(tmp_path / "cat" / "frame.0001")
    (tmp_path / "dog" / "0.png").rename(tmp_path / "dog" / "b.png_")
    (tmp_path / "dog" / "notes.txt").write_text("none")
    os.mkfifo(tmp_path / "dog" / "pipe.x")  # is not waited for
    dataset = open_dataset(tmp_path)
    reason = "begins as an image, but is not called one; rename it if it is one"
    assert dataset.bad == [("cat/frame.0001", reason), ("dog/b.png_", reason)]
    assert len(dataset.parts["all"]) == 2


def test_links_within_the_folder_are_followed(tmp_path):
    make_folder(tmp_path, {"cat": 2, "dog": 1})
    (tmp_path / "dog" / "again.png").symlink_to("../cat/0.png")
    assert open_dataset(tmp_path).parts["all"].names == ["cat/0.png", "cat/1.png", "dog/0.png", "dog/again.png"]


def test_a_tree_too_deep_for_a_path_ends(tmp_path):
    make_folder(tmp_path, {"cat": 2, "dog": 2})
    place = os.open(tmp_path / "cat", os.O_RDONLY)
    for _ in range(1200):  # past Python's recursion and Linux's 4,096 bytes of path
        os.mkdir("deep", dir_fd=place)
        inner = os.open("deep", os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = inner
    os.close(place)
    begun = time.perf_counter()
    dataset = open_dataset(tmp_path)
    assert time.perf_counter() - begun < 5
    assert len(dataset.parts["all"]) == 4
    assert [reason for _, reason in dataset.bad] == ["File name too long"]
    subprocess.run(["rm", "-r", str(tmp_path / "cat")], check=True)  # pytest's own removal would recurse
