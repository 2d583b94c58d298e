"""What a resumed run reads of its journal, and writes on behind it."""

import csv
import json

import pytest

from resnetkit.training.journal import Journal
from resnetkit.training.tracking import Trackers


@pytest.fixture
def begin(tmp_path):
    return lambda: Journal(tmp_path, Trackers(tmp_path, {}))


def resumed(begin, finished):
    journal = begin()
    journal.resume(finished)
    return [(epoch["epoch"], epoch["train_loss"]) for epoch in journal.epochs]


def test_of_two_lines_for_an_epoch_the_later_one_counts(begin):
    """As after a disk that fills at the checkpoint: the epoch is trained and told once more."""
    for epoch, loss in ((1, 1.0), (2, 7.0), (3, 7.0), (2, 2.0), (3, 3.0)):
        begin().write("epoch", epoch=epoch, train_loss=loss)
    assert resumed(begin, 3) == [(1, 1.0), (2, 2.0), (3, 3.0)]


def test_a_line_that_is_gone_takes_no_others_with_it(begin):
    for epoch in (1, 3, 4):
        begin().write("epoch", epoch=epoch, train_loss=float(epoch))
    assert resumed(begin, 4) == [(1, 1.0), (3, 3.0), (4, 4.0)]


def test_epochs_past_the_checkpoint_are_not_kept(begin, tmp_path):
    for epoch in (1, 2, 3):
        begin().write("epoch", epoch=epoch, train_loss=7.0)
    journal = begin()
    journal.resume(1)
    journal.write_epoch(epoch=2, train_loss=2.0)
    with (tmp_path / "results.csv").open() as file:
        assert [(row["epoch"], row["train_loss"]) for row in csv.DictReader(file)] == [("1", "7.0"), ("2", "2.0")]


def test_the_line_after_one_that_was_cut_short_is_whole(begin, tmp_path):
    begin().write("epoch", epoch=1, train_loss=1.0)
    log = tmp_path / "log.jsonl"
    with log.open("a") as file:
        file.write('{"event": "epoch", "epo')
    journal = begin()
    journal.resume(1)
    journal.write("resumed", step=23, epochs=1)
    assert [json.loads(line)["event"] for line in log.read_text().splitlines()] == ["epoch", "resumed"]
