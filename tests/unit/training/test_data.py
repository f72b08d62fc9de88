from pathlib import Path

import numpy as np
import pytest

from tests.support.labelled import labelled_folder
from training.data import DataError, label_ids, read_votes, require_training, scan, targets, usable


def test_splits_and_labels_in_any_case(tmp_path: Path) -> None:
    labelled_folder(tmp_path, {"Train/Happy": 3, "Train/SAD": 2, "Test/happy": 1, "Val/sad": 1})
    found = scan(tmp_path)
    assert found.labels == ("happy", "sad")
    assert {split: len(items) for split, items in found.splits.items()} == {"train": 5, "test": 1, "valid": 1}
    assert found.counts("train") == {"happy": 3, "sad": 2}


def test_folders_of_labels_without_splits(tmp_path: Path) -> None:
    labelled_folder(tmp_path, {"happy": 3, "sad": 2})
    assert set(scan(tmp_path).splits) == {"all"}


def test_other_files_are_listed_and_hidden_ones_passed_over(tmp_path: Path) -> None:
    labelled_folder(tmp_path, {"happy": 1, "sad": 1})
    (tmp_path / "happy" / "notes.txt").write_text("x")
    (tmp_path / "happy" / "._0.png").write_text("x")
    found = scan(tmp_path)
    assert found.ignored == ("happy/notes.txt",)
    assert len(found.splits["all"]) == 2


def test_an_empty_folder_is_refused_with_the_layout_expected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no folders of images"):
        scan(tmp_path)
    (tmp_path / "train" / "happy").mkdir(parents=True)
    with pytest.raises(DataError, match="holds no folders of images"):
        scan(tmp_path)
    with pytest.raises(DataError, match="no folder"):
        scan(tmp_path / "missing")


VOTES = """file,split,folder,happy,sad,unknown
train/happy/0.png,train,happy,7,2,1
train/unclear/0.png,train,unclear,4,4,2
train/sad/0.png,train,sad,1,8,1
train/sad/1.png,train,sad,0,0,10
"""


def test_votes_become_soft_labels(tmp_path: Path) -> None:
    labelled_folder(tmp_path, {"train/happy": 1, "train/unclear": 1, "train/sad": 2})
    (tmp_path / "votes.csv").write_text(VOTES)
    items = {item.name: item for item in scan(tmp_path, votes="votes.csv").splits["train"]}
    assert dict(items["train/happy/0.png"].votes) == pytest.approx({"happy": 7 / 9, "sad": 2 / 9})
    assert items["train/unclear/0.png"].label is None
    # a single vote is an outlier; without a usable vote the folder's label stands
    assert dict(items["train/sad/0.png"].votes) == {"sad": 1.0}
    assert items["train/sad/1.png"].votes == ()
    soft = targets([items["train/unclear/0.png"], items["train/sad/1.png"]], ["happy", "sad"])
    np.testing.assert_allclose(soft, [[0.5, 0.5], [0, 1]])


def test_votes_keep_single_ones_when_judging(tmp_path: Path) -> None:
    (tmp_path / "votes.csv").write_text(VOTES)
    table = read_votes(tmp_path / "votes.csv", drop_single=False)
    assert dict(table["train/sad/0.png"]) == pytest.approx({"happy": 1 / 9, "sad": 8 / 9})


@pytest.mark.parametrize(
    ("text", "problem"),
    [("name,happy\na,1\n", "column 'file'"), ("file,happy\na,many\n", "line 2"), ("file,happy\na,-1\n", "negative")],
)
def test_votes_that_cannot_be_used_name_the_place(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "votes.csv").write_text(text)
    with pytest.raises(DataError, match=problem):
        read_votes(tmp_path / "votes.csv")


def test_images_without_a_majority_count_only_with_votes(tmp_path: Path) -> None:
    labelled_folder(tmp_path, {"train/happy": 1, "train/unclear": 1, "train/sad": 1})
    assert len(usable(scan(tmp_path).splits["train"], ["happy", "sad"])) == 2
    (tmp_path / "votes.csv").write_text(VOTES)
    assert len(usable(scan(tmp_path, votes="votes.csv").splits["train"], ["happy", "sad"])) == 3


def test_unknown_labels_count_as_errors(tmp_path: Path) -> None:
    labelled_folder(tmp_path, {"happy": 1, "bored": 1})
    items = scan(tmp_path).splits["all"]
    assert sorted(label_ids(items, ["happy", "sad"])) == [-1, 0]


def test_training_images_must_know_the_labels(tmp_path: Path) -> None:
    labelled_folder(tmp_path, {"happy": 1, "sad": 1})
    with pytest.raises(DataError, match="no training images of the labels calm"):
        require_training(scan(tmp_path), ["calm"])
