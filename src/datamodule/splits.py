"""Split a table into train, val and test: by group, each group by its own hash.

A hash of `split_seed` and the group's name is a number in [0, 1), cut into test, val and train, or into `num_folds`
equal pieces: one image more or less moves no other. Only where a split would be empty, the groups are ranked.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence

from src.datamodule.caption_table import CaptionedImage, CaptionTable
from src.utils.errors import UserError
from src.utils.logging import get_logger

log = get_logger(__name__)

SPLITS = ("train", "val", "test")


def split_table(
    table: CaptionTable,
    ratios: Sequence[float] = (0.8, 0.1, 0.1),
    seed: int = 0,
    fold: int | None = None,
    num_folds: int = 5,
) -> dict[str, list[CaptionedImage]]:
    """Return the images of "train", "val" and "test", each in table order, no group in two splits.

    A ratio of 1 puts every image into that split, also one of an official split; a ratio of 0 allows an empty split.
    fold: 0 to num_folds - 1 for cross-validation: fold i is test, fold i + 1 val, the rest train. Else an official
    split wins over the ratios. UserError where ratios or folds are invalid, or there are too few groups.
    """
    numeric = all(isinstance(ratio, int | float) for ratio in ratios)
    if not numeric or len(ratios) != 3 or min(ratios) < 0 or abs(sum(ratios) - 1) > 1e-6:
        raise UserError(
            f"datamodule.split_ratios={list(ratios)}; expected three fractions (train, val, test) that add up "
            "to 1; set datamodule.split_ratios=[0.8,0.1,0.1]"
        )
    sizes = Counter(image.group for image in table.images)
    hashes = {group: _hash(group, seed) for group in sizes}
    official = {image.group: image.split for image in table.images if image.split}
    if fold is not None:
        split_of = _split_by_fold(hashes, fold, num_folds)
    elif official and max(ratios) < 1:
        split_of = _complete_official(official, hashes, ratios)
    else:
        split_of = _split_by_ratios(sizes, hashes, ratios)
    splits = {name: [image for image in table.images if split_of.get(image.group) == name] for name in SPLITS}
    required = [name for name, ratio in zip(SPLITS, ratios, strict=True) if ratio > 0 or fold is not None]
    empty = [name for name in required if not splits[name]]
    if empty:
        raise UserError(
            f"the {' and '.join(empty)} split is empty: {len(table.images)} images in {len(sizes)} groups; expected "
            f"at least one group in each of {', '.join(required)}; use more data (datamodule.num_samples) or set "
            "that ratio of datamodule.split_ratios to 0"
        )
    return splits


def _split_by_fold(hashes: Mapping[str, float], fold: int, num_folds: int) -> dict[str, str]:
    if not (3 <= num_folds <= len(hashes) and 0 <= fold < num_folds):
        raise UserError(
            f"datamodule.fold={fold}, num_folds={num_folds}; expected 3 to {len(hashes)} folds (as many as groups) "
            "and a fold from 0 to num_folds - 1; set datamodule.fold=0 datamodule.num_folds=5 or use more data"
        )
    names = {fold: "test", (fold + 1) % num_folds: "val"}
    split_of = {group: names.get(int(number * num_folds), "train") for group, number in hashes.items()}
    if len(set(split_of.values())) < len(SPLITS):
        ranked = sorted(hashes, key=hashes.__getitem__)
        split_of = {group: names.get(rank % num_folds, "train") for rank, group in enumerate(ranked)}
    return split_of


def _complete_official(
    official: Mapping[str, str], hashes: Mapping[str, float], ratios: Sequence[float]
) -> dict[str, str]:
    """Take images of the official train split for a test or val split that the official one lacks."""
    split_of, start = dict(official), 0.0
    for name, ratio in (("test", ratios[2]), ("val", ratios[1])):
        if ratio > 0 and name not in split_of.values():
            log.info("the official split has no %s images; %g of its train images are taken", name, ratio)
            moved = [group for group, split in split_of.items() if split == "train"]
            split_of |= {group: name for group in moved if start <= hashes[group] < start + ratio}
            start += ratio
    return split_of


def _split_by_ratios(sizes: Mapping[str, int], hashes: Mapping[str, float], ratios: Sequence[float]) -> dict[str, str]:
    val_end = ratios[1] + ratios[2] if ratios[0] else 1.0
    split_of = {
        group: "test" if number < ratios[2] else "val" if number < val_end else "train"
        for group, number in hashes.items()
    }
    if len(set(split_of.values())) < sum(ratio > 0 for ratio in ratios) <= len(sizes):
        counts = [max(round(len(sizes) * ratio), 1) if ratio > 0 else 0 for ratio in ratios]
        counts[max(range(3), key=lambda split: ratios[split])] += len(sizes) - sum(counts)
        ranked = sorted(sizes, key=lambda group: (sizes[group], hashes[group]))
        ordered = ["test"] * counts[2] + ["val"] * counts[1] + ["train"] * counts[0]
        split_of = dict(zip(ranked, ordered, strict=True))
    return split_of


def _hash(group: str, seed: int) -> float:
    """Return a number in [0, 1), the same on every machine and Python release."""
    digest = hashlib.blake2b(f"{seed}:{group}".encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return int.from_bytes(digest[:6], "big") / 2**48
