"""Folders of labelled images: what is there, in which split, with which label or raters' votes.

Layouts: ``root/{train,valid,test}/<label>/*`` and ``root/<label>/*``, names in any case. Nothing is decoded here.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mien.errors import UnprocessableError

SPLITS = {
    "train": "train",
    "training": "train",
    "valid": "valid",
    "val": "valid",
    "validation": "valid",
    "test": "test",
}
ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".heic", ".heif"})
NO_MAJORITY = frozenset({"unclear", "unknown"})
"""Folders of images without one label: used in training where votes say what raters saw, left out in judging."""


class DataError(UnprocessableError):
    """A folder of training images cannot be used."""

    code = "bad_data"
    title = "The images cannot be used"


@dataclass(frozen=True)
class Item:
    """One image file."""

    path: Path
    name: str
    """Path below the root with ``/``."""
    label: str | None
    """Lower case; None in a folder of images without a majority."""
    votes: tuple[tuple[str, float], ...] = ()
    """(label, share of raters), adding up to 1; empty where only the folder is known."""


@dataclass(frozen=True)
class Dataset:
    """The images of one root."""

    root: Path
    splits: dict[str, tuple[Item, ...]]
    labels: tuple[str, ...]
    """Labels of the folders (without those that have no majority), in alphabetical order."""
    ignored: tuple[str, ...] = field(default=())
    """Files that are no images by their ending, names below the root."""

    def counts(self, split: str) -> dict[str, int]:
        """Images per label of a split; ``unclear`` for those without one."""
        return dict(Counter(item.label or "unclear" for item in self.splits.get(split, ())))


def scan(root: Path, *, votes: str | None = None, drop_single_votes: bool = True) -> Dataset:
    """Read what is in a root.

    Args:
        votes: name of a CSV below the root with a column ``file`` and one column of counts per label; the columns
            ``split``, ``folder``, ``unknown`` and ``not_a_face`` are left out.
        drop_single_votes: leave out labels that one rater alone chose, where another has more.

    Raises:
        DataError: no such folder; no folders of images in it; a CSV that cannot be used.
    """
    if not root.is_dir():
        raise DataError(f"There is no folder {str(root)!r}.")
    table = read_votes(root / votes, drop_single=drop_single_votes) if votes else {}
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith((".", "__")))
    split_folders = {path: SPLITS[path.name.lower()] for path in folders if path.name.lower() in SPLITS}
    splits: dict[str, list[Item]] = {}
    ignored: list[str] = []
    if split_folders:
        for folder, split in split_folders.items():
            splits.setdefault(split, []).extend(_labelled(root, folder, table, ignored))
    else:
        splits["all"] = _labelled(root, root, table, ignored)
    splits = {split: items for split, items in splits.items() if items}
    labels = sorted({item.label for items in splits.values() for item in items if item.label})
    if not labels:
        raise DataError(
            f"{str(root)!r} holds no folders of images. Expected {root.name}/<label>/image.jpg, "
            f"or {root.name}/train/<label>/image.jpg beside valid/ and test/."
        )
    return Dataset(root, {split: tuple(items) for split, items in splits.items()}, tuple(labels), tuple(ignored))


def _labelled(
    root: Path, folder: Path, table: dict[str, tuple[tuple[str, float], ...]], ignored: list[str]
) -> list[Item]:
    items = []
    for label_folder in sorted(path for path in folder.iterdir() if path.is_dir()):
        label = label_folder.name.strip().lower()
        if label.startswith((".", "__")):
            continue
        for path in sorted(label_folder.rglob("*")):
            name = path.relative_to(root).as_posix()
            if path.name.startswith(".") or not path.is_file():
                continue
            if path.suffix.lower() not in ENDINGS:
                ignored.append(name)
                continue
            items.append(Item(path, name, None if label in NO_MAJORITY else label, table.get(name, ())))
    return items


def read_votes(path: Path, *, drop_single: bool = True) -> dict[str, tuple[tuple[str, float], ...]]:
    """Raters' votes per file as shares that add up to 1. Images without a usable vote are left out.

    Raises:
        DataError: the file is missing, has no column ``file``, or a count is no number.
    """
    left_out = {"file", "split", "folder", "unknown", "not_a_face"}
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream)
            labels = [name for name in reader.fieldnames or () if name not in left_out]
            if "file" not in (reader.fieldnames or ()) or not labels:
                raise DataError(f"{str(path)!r} needs a column 'file' and one column of votes per label.")
            table = {}
            for row in reader:
                votes = {label.lower(): float(row[label] or 0) for label in labels}
                if min(votes.values()) < 0:
                    raise DataError(f"{str(path)!r}, line {reader.line_num}: a vote is negative.")
                if drop_single and max(votes.values()) > 1:
                    votes = {label: count if count > 1 else 0.0 for label, count in votes.items()}
                if total := sum(votes.values()):
                    table[row["file"]] = tuple((label, count / total) for label, count in votes.items() if count)
            return table
    except OSError as error:
        raise DataError(f"The votes {str(path)!r} cannot be read: {error.strerror}.") from None
    except (ValueError, TypeError) as error:
        raise DataError(f"{str(path)!r}, line {reader.line_num}: a vote is no number ({error}).") from None


def targets(items: Sequence[Item], labels: Sequence[str]) -> npt.NDArray[np.float32]:
    """Target probabilities [N, L]: the votes where there are any, else 1 for the folder's label.

    Rows of images that say nothing about ``labels`` are all zero; see :func:`usable`.
    """
    index = {label: i for i, label in enumerate(labels)}
    result = np.zeros((len(items), len(labels)), np.float32)
    for row, item in zip(result, items, strict=True):
        shares = item.votes or (((item.label, 1.0),) if item.label else ())
        for label, share in shares:
            if label in index:
                row[index[label]] = share
    totals = result.sum(axis=1, keepdims=True)
    np.divide(result, totals, out=result, where=totals > 0)
    return result


def usable(items: Iterable[Item], labels: Sequence[str]) -> tuple[Item, ...]:
    """Images that say something about ``labels``: of one of these folders, or without majority but with such votes."""
    known = set(labels)
    return tuple(
        item
        for item in items
        if (item.label in known if item.label else any(label in known for label, _ in item.votes))
    )


def label_ids(items: Sequence[Item], labels: Sequence[str]) -> npt.NDArray[np.int64]:
    """Index of each image's label in ``labels``; -1 where it is none of them (counts as an error when judging)."""
    index = {label: i for i, label in enumerate(labels)}
    return np.array([index.get(item.label or "", -1) for item in items], np.int64)


def require_training(dataset: Dataset, labels: Sequence[str]) -> tuple[Item, ...]:
    """The training images of a root for these labels.

    Raises:
        DataError: there are none, or all are of one label.
    """
    split = "train" if "train" in dataset.splits else "all"
    items = usable(dataset.splits.get(split, ()), labels)
    if not items:
        raise DataError(
            f"{str(dataset.root)!r} has no training images of the labels {', '.join(labels)}; "
            f"its folders are {', '.join(dataset.labels)}."
        )
    return items


def resplit(dataset: Dataset, split_items: dict[str, tuple[Item, ...]]) -> Dataset:
    """The same root with other splits."""
    return replace(dataset, splits=split_items)
