"""CSV and list files as spreadsheets and people write them; every wrong line is told by its number."""

import numpy as np
import pytest
from PIL import Image

from resnetkit.data.datasets import open_dataset
from resnetkit.data.ingest import ingest
from resnetkit.errors import ResnetkitError


@pytest.fixture
def photos(tmp_path):
    (tmp_path / "photos").mkdir()
    for i in range(6):
        Image.fromarray(np.full((8, 8, 3), i * 30, np.uint8)).save(tmp_path / "photos" / f"{i}.png")
    return tmp_path


def write(place, lines, *, name="labels.csv", newline="\n", encoding="utf-8"):
    (place / name).write_bytes(newline.join(lines).encode(encoding) + newline.encode())
    return place / name


def lines(*extra):
    return ["path,label,split"] + [f"photos/{i}.png,{'cat' if i % 2 else 'dog'},train" for i in range(4)] + list(extra)


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_the_forms_that_spreadsheets_write(photos, newline, encoding, separator):
    rows = [line.replace(",", separator) for line in lines("photos/4.png,dog,Validation", "", "photos/5.png,cat,test")]
    dataset = open_dataset(write(photos, rows, newline=newline, encoding=encoding))
    assert dataset.name == "labels" and dataset.classes == ["cat", "dog"]
    assert {name: len(part) for name, part in dataset.parts.items()} == {"train": 4, "val": 1, "test": 1}
    assert dataset.parts["train"].names[0] == "photos/0.png"
    read = ingest(dataset, 0.0).dataset.parts
    assert read["train"].labels.tolist() == [1, 0, 1, 0]
    assert read["train"].images[:, 0, 0, 0].tolist() == [0, 30, 60, 90]
    assert read["test"].images[0, 0, 0, 0] == 150


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("photos/4.png,cta,val", "labels.csv:6: label 'cta' is one that training does not know; did you mean cat?"),
        ("photos/4.png,,train", "labels.csv:6: no label"),
        ("photos/./1.png,cat,train", "labels.csv:6: photos/./1.png is on line 3 already"),
        ("photos/9.png,cat,train", "labels.csv:6: no such file 'photos/9.png' below "),
        ("photos/4.png,cat,trian", "labels.csv:6: split 'trian'; it must be train, val or test"),
        ("photos/4.png,cat,", "labels.csv:6: split ''; it must be"),
        ("photos/4.png,Cat,train", "labels.csv:6: label 'Cat' differs from 'cat' on line 3 by case"),
        ('photos/4.png,"c\nat",train', "labels.csv:6: label 'c\\nat' is not plain UTF-8 text"),
        ("photos/4.png,cat", "labels.csv:6: 2 cells where the header has 3"),
        (",cat,train", "labels.csv:6: no path"),
        ('"photos/4.png,cat,train', "labels.csv:6: not CSV: "),
    ],
)
def test_each_mistake_is_told_by_its_line(photos, wrong, says, encoding, newline):
    with pytest.raises(ResnetkitError) as caught:
        open_dataset(write(photos, lines(wrong), encoding=encoding, newline=newline))
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_listed_by_two_kinds_of_path_is_listed_twice(photos):
    with pytest.raises(ResnetkitError, match="labels.csv:6: .* is on line 3 already"):
        open_dataset(write(photos, lines(f"{photos}/photos/1.png,cat,train")))


def test_all_mistakes_are_told_at_once_in_the_order_of_lines(photos):
    wrong = ["photos/4.png,cow,test", "photos/1.png,cat,train", *(f"gone{i}.png,dog,train" for i in range(5))]
    with pytest.raises(ResnetkitError) as caught:
        open_dataset(write(photos, lines(*wrong)))
    text = str(caught.value)
    assert [text.index(f"labels.csv:{line}: ") for line in range(6, 11)] == sorted(
        text.index(f"labels.csv:{line}: ") for line in range(6, 11)
    )
    assert "labels.csv:11" not in text and text.endswith("; and 2 more")


def test_a_line_is_where_its_row_begins(photos):
    rows = ["path,label,remark", 'photos/0.png,cat,"two\nlines, one cell"', "photos/1.png,dog,", "gone.png,dog,"]
    with pytest.raises(ResnetkitError, match="labels.csv:5: no such file 'gone.png'"):
        open_dataset(write(photos, rows))


def test_several_label_columns_need_a_word(photos):
    rows = ["file,species,class,target"] + [f"photos/{i}.png,{'ab'[i % 2]},{'xy'[i // 3]},1" for i in range(6)]
    file = write(photos, rows)
    with pytest.raises(
        ResnetkitError, match="labels.csv:1: several label columns; say which, as labels.csv:class; colu"
    ):
        open_dataset(file)
    assert open_dataset(f"{file}:class").parts["all"].labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert open_dataset(f"{file}:species").classes == ["a", "b"]
    with pytest.raises(ResnetkitError, match="no single column 'specis'; did you mean species?"):
        open_dataset(f"{file}:specis")
    file = write(photos, ["image,species,age", "photos/1.png,a,3"])
    with pytest.raises(
        ResnetkitError, match="no label column; say which, as labels.csv:species; columns: image, species"
    ):
        open_dataset(file)
    with pytest.raises(ResnetkitError, match="no path column; name one path, file"):
        open_dataset(write(photos, ["photos/1.png,cat"]))


def test_lists_of_path_and_label(photos):
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(photos / "photos" / "a name.png")
    rows = ["photos/0.png 10", "photos/1.png 9", "", "photos/a name.png 10"]
    dataset = open_dataset(write(photos, rows, name="list.txt", newline="\r\n", encoding="utf-8-sig"))
    assert dataset.classes == ["9", "10"] and dataset.parts["all"].labels.tolist() == [1, 0, 1]
    assert dataset.parts["all"].names[2] == "photos/a name.png"
    with pytest.raises(
        ResnetkitError, match="list.txt:2: no such file 'gone.png'.*list.txt:4: 'photos/1.png' is a path"
    ):
        open_dataset(write(photos, ["photos/0.png a", "gone.png b", "", "photos/1.png"], name="list.txt"))


def test_what_is_no_list_is_refused(photos):
    with pytest.raises(ResnetkitError, match="UTF-16; save it as CSV UTF-8"):
        open_dataset(write(photos, lines(), encoding="utf-16"))
    with pytest.raises(ResnetkitError, match="lists no image"):
        open_dataset(write(photos, ["path,label"]))
    with pytest.raises(ResnetkitError, match="no path column"):
        open_dataset(write(photos, []))
    with pytest.raises(ResnetkitError, match="label 'caf.udce9' is not plain UTF-8 text"):
        open_dataset(write(photos, ["path,label", "photos/1.png,café"], encoding="latin-1"))
    with pytest.raises(ResnetkitError, match="no dataset 'gone.csv:label'"):
        open_dataset("gone.csv:label")
