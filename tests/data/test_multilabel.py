"""Images of none, one or several classes: as they are listed, divided, weighed and mixed."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from resnetkit.data.balance import balanced_odds, balanced_weights
from resnetkit.data.copies import find_copies
from resnetkit.data.datasets import absolute, open_dataset, with_test
from resnetkit.data.health import check
from resnetkit.data.labels import from_sets, indicators, renumbered, sets, written
from resnetkit.data.mixing import Mixing, mix
from resnetkit.data.resplit import SplitPlan, divide, write_division
from resnetkit.data.split import stratified
from resnetkit.data.statistics import statistics
from resnetkit.data.survey import survey
from resnetkit.errors import ResnetkitError
from resnetkit.evaluation.own_images import match_classes


@pytest.fixture
def photos(tmp_path):
    for i in range(6):
        pixels = np.random.default_rng(i).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    return tmp_path


def write(place, *lines):
    (place / "labels.csv").write_text("\n".join(lines) + "\n")
    return str(place / "labels.csv")


NAMED = ("path,labels", "0.png,boat|beach", "1.png,", "2.png,sunset", "3.png, beach | sunset ", "4.png,boat", "5.png,")
FLAGGED = ("path,boat,beach,sunset", "0.png,1,1,0", "1.png,0,0,0", "2.png,False,0.0,True", "3.png,0,1,1",
           "4.png,1.0,0,0", "5.png,0,0,0")  # fmt: skip
TRUTH = [(0, 1), (), (2,), (0, 2), (1,), ()]  # of beach, boat, sunset


def test_names_with_a_bar_between(photos):
    dataset = open_dataset(write(photos, *NAMED))
    assert dataset.multilabel and dataset.classes == ["beach", "boat", "sunset"]
    labels = dataset.parts["all"].labels
    assert labels.dtype == torch.uint8 and sets(labels) == TRUTH
    assert written(labels, dataset.classes) == ["beach|boat", "", "sunset", "beach|sunset", "boat", ""]


def test_a_bar_in_any_cell_of_any_column_says_several(photos):
    other = write(photos, "path,tags", *NAMED[1:])
    assert sets(open_dataset(f"{other}:tags").parts["all"].labels) == TRUTH
    single = write(photos, "path,tags", "0.png,a", "1.png,b")
    assert not open_dataset(f"{single}:tags").multilabel
    # In the column `labels` an image may have none or several even where none has.
    assert open_dataset(write(photos, "path,labels", "0.png,a", "1.png,b")).multilabel


def test_columns_of_zeros_and_ones(photos):
    source = write(photos, *FLAGGED) + ":beach,boat,sunset"
    dataset = open_dataset(source)
    assert dataset.classes == ["beach", "boat", "sunset"] and sets(dataset.parts["all"].labels) == TRUTH
    assert open_dataset(absolute(source)).classes == dataset.classes
    comma = write(photos, 'path,"a,b"', "0.png,x", "1.png,y")
    assert open_dataset(f"{comma}:a,b").classes == ["x", "y"]  # a column of that very name is one column


@pytest.mark.parametrize(
    ("lines", "columns", "says"),
    [
        (("path,labels", "0.png,a|b", "1.png,a||b"), "", "labels.csv:3: labels 'a||b' lack a name beside a |"),
        (("path,labels", "0.png,a|b", "1.png,b|"), "", "labels.csv:3: labels 'b|' lack a name"),
        (("path,labels", "0.png,a|b", "1.png,b|b"), "", "labels.csv:3: label 'b' stands there twice"),
        (("path,labels", "0.png,a|b", "1.png,B"), "", "labels.csv:3: label 'B' differs from 'b' on line 2 by case"),
        (("path,labels,split", "0.png,a|beach,train", "1.png,a|bech,test"), "", "training does not know; did you mean"),
        (("path,a,b", "0.png,1,2"), ":a,b", "labels.csv:2: b '2'; it must be 0 or 1"),
        (("path,a,b", "0.png,1,0", "1.png,,0"), ":a,b", "labels.csv:3: a ''; it must be 0 or 1"),
        (("path,a,b", "0.png,1,0"), ":a,bb", "labels.csv:1: no single column 'bb'; did you mean b?"),
        (("path,a,b", "0.png,1,0"), ":a,a", "no single column 'a'"),
        (("path,a,A", "0.png,1,0"), ":a,A", "classes 'a' and 'A' differ by case"),
        (("path,a,b|c", "0.png,1,0"), ":a,b|c", "class name 'b|c' is empty, has a blank at an end or a |"),
    ],
)
def test_each_mistake_is_told_by_its_line(photos, lines, columns, says):
    with pytest.raises(ResnetkitError) as caught:
        open_dataset(write(photos, *lines) + columns)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def parquet(path, labels, feature=None, kind=None):
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(buffer, "png")
    images = [{"bytes": buffer.getvalue(), "path": None}] * len(labels)
    table = pa.table({"image": images, "labels": pa.array(labels, kind)})
    if feature:
        info = {"info": {"features": {"image": {"_type": "Image"}, "labels": feature}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    pq.write_table(table, path / "data.parquet")
    return path / "data.parquet"


CLASS_LABEL = {"_type": "ClassLabel", "names": ["beach", "boat", "sunset"]}


@pytest.mark.parametrize(
    "feature", [{"_type": "Sequence", "feature": CLASS_LABEL}, {"_type": "List", "feature": CLASS_LABEL}, [CLASS_LABEL]]
)
def test_lists_in_parquet_as_hugging_face_writes_them(tmp_path, feature):
    """The three ways in which releases of its `datasets` have written a list of class labels."""
    dataset = open_dataset(parquet(tmp_path, [[1, 0], [], [2]], feature))
    assert dataset.classes == CLASS_LABEL["names"]
    assert sets(dataset.parts["all"].labels) == [(0, 1), (), (2,)]


def test_lists_in_parquet_without_names_and_wrong_ones(tmp_path):
    dataset = open_dataset(parquet(tmp_path, [["boat", "beach"], [], ["sunset"]]))
    assert dataset.classes == ["beach", "boat", "sunset"] and dataset.multilabel
    with pytest.raises(ResnetkitError, match="data.parquet#1: label 3 is none of the 3 classes"):
        open_dataset(parquet(tmp_path, [[1], [0, 3]], [CLASS_LABEL]))
    with pytest.raises(ResnetkitError, match="data.parquet#1: labels None are no list; an empty one says none"):
        open_dataset(parquet(tmp_path, [[1], None], [CLASS_LABEL]))


def test_lists_of_zeros_and_ones_in_parquet_are_no_lists_of_classes(tmp_path):
    for feature in (None, [CLASS_LABEL]):
        with pytest.raises(
            ResnetkitError, match=r"data.parquet: labels \[1, 0, 0\] say 0 or 1 of each class; they must"
        ):
            open_dataset(parquet(tmp_path, [[1, 0, 0], [0, 1, 0]], feature))


def test_a_class_that_stands_twice_in_a_list_of_objects_is_one(tmp_path):
    part = open_dataset(parquet(tmp_path, [[2, 2, 0], [1]], None)).parts["all"]
    assert written(part.labels, ["0", "1", "2"]) == ["0|2", "1"]


def test_classes_are_matched_by_name(photos):
    dataset = open_dataset(write(photos, *NAMED))
    labels = match_classes(dataset, ["sunset", "forest", "boat", "beach"]).parts["all"].labels
    assert written(labels, ["sunset", "forest", "boat", "beach"])[3] == "sunset|beach"
    assert renumbered(torch.tensor([0, 1]), torch.tensor([2, 0]), 3).tolist() == [2, 0]


def drawn(images, seed):
    """Labels of 12 classes whose shares fall from 1/2 to 1/200."""
    shares = np.geomspace(0.5, 0.005, 12)
    return torch.from_numpy((np.random.default_rng(seed).random((images, 12)) < shares).astype(np.uint8))


@pytest.mark.parametrize("seed", range(5))
def test_each_class_is_divided_by_the_share(seed):
    """Sechidis et al. 2011: rare classes lie in both parts, and every class nearer to its share than by chance."""
    labels = drawn(1000, seed)
    chosen = stratified(labels, 0.2, seed)
    counts = labels.sum(0)
    shares = labels[chosen].sum(0) / counts
    chance = torch.rand(1000, generator=torch.Generator().manual_seed(seed)).argsort() < 200
    assert abs(int(chosen.sum()) - 200) <= 3
    assert bool(((shares - 0.2).abs() <= 1.01 / counts + 0.02).all())
    assert (shares - 0.2).abs().mean() < 0.3 * (labels[chance].sum(0) / counts - 0.2).abs().mean()
    assert torch.equal(chosen, stratified(labels, 0.2, seed)) and not torch.equal(chosen, stratified(labels, 0.2, 99))


def test_no_class_is_set_apart_wholly():
    labels = from_sets([[0, 1], [0, 2], [1], [2, 3], [3, 4], [4], [], []] + [[5]] * 30, 6)
    for seed in range(20):
        chosen = stratified(labels, 0.5, seed)
        assert bool(labels[~chosen].sum(0).all())


def test_the_verbs_of_data_count_labels(photos, tmp_path):
    dataset = open_dataset(write(photos, *NAMED))
    seen = survey(dataset)
    assert statistics(seen)["classes"] == {"beach": {"all": 2}, "boat": {"all": 2}, "sunset": {"all": 2}}
    found = {finding.kind: finding for finding in check(seen, find_copies(seen.pictures))}
    assert found["tiny_class"].items[0] == ("beach", "2 training images")
    for by in ("hash", "random"):
        out = tmp_path / f"{by}.csv"
        write_division(divide(seen, SplitPlan(by=by, val=0, test=0.4)), seen, out)
        again = open_dataset(out)
        told = {name: text for part in again.parts.values()
                for name, text in zip(part.names, written(part.labels, again.classes))}  # fmt: skip
        assert again.multilabel and told == dict(
            zip(dataset.parts["all"].names, written(dataset.parts["all"].labels, dataset.classes))
        )


def test_a_fifth_is_set_apart_for_the_test(photos):
    parts = with_test(open_dataset(write(photos, *NAMED))).parts
    assert len(parts["test"]) >= 1 and bool(parts["train"].labels.sum(0).all())


def test_weights_are_those_of_positives_against_negatives():
    """PyTorch's BCEWithLogitsLoss: 100 positive and 300 negative examples make a pos_weight of 3."""
    labels = from_sets([[0]] * 100 + [[1]] * 300, 2)
    assert balanced_weights(labels, 2).tolist() == [3, pytest.approx(1 / 3)]
    odds = balanced_odds(from_sets([[0], [1], [1], [0, 1], []], 2), 2)
    assert odds[0] == odds[3] > odds[1] == odds[2] == odds[4]
    single = torch.tensor([0, 0, 1])
    assert balanced_odds(single, 2).tolist() == balanced_weights(single, 2)[single].tolist()


def test_mixed_targets_are_shares_of_every_class():
    labels, images = from_sets([[0, 1], [1, 2]], 3), torch.rand(2, 1, 4, 4)
    mixed, targets = mix(images, labels, 3, Mixing(1.0, 0.0), torch.Generator().manual_seed(1))
    share = ((mixed[0] - images[1]) / (images[0] - images[1])).mean()
    expected = share * indicators(labels, 3)[0].float() + (1 - share) * indicators(labels, 3)[1].float()
    torch.testing.assert_close(targets[0], expected, rtol=1e-4, atol=1e-4)
