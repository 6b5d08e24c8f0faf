"""The same captioned images in every layout that people have: `LAYOUTS[name](root, images)` writes one."""

import csv
import io
import json
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq


class Sample(NamedTuple):
    """An image file and its captions."""

    name: str
    content: bytes
    captions: tuple[str, ...]


Samples = Sequence[Sample]
Writer = Callable[[Path, Samples], None]


def put_images(folder: Path, samples: Samples) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for sample in samples:
        (folder / sample.name).write_bytes(sample.content)


def put_rows(path: Path, rows: Sequence[Sequence[Any]], delimiter: str = ",") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter, lineterminator="\n").writerows(rows)


def put_text(path: Path, lines: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines), encoding="utf-8")


def put_json(path: Path, content: Any) -> None:
    put_text(path, [json.dumps(content)])


def pairs(samples: Samples) -> list[tuple[str, str]]:
    return [(sample.name, caption) for sample in samples for caption in sample.captions]


def thirds(samples: Samples) -> dict[str, Samples]:
    """Parts named as the hub names splits."""
    return {"train": samples[:-10], "validation": samples[-10:-5], "test": samples[-5:]}


def table(
    images: str, file: str, header: Sequence[str], rows: Callable[[Samples], Sequence[Any]], delimiter: str = ","
) -> Writer:
    """A folder of images and a delimited file."""

    def write(root: Path, samples: Samples) -> None:
        put_images(root / images, samples)
        put_rows(root / file, [header, *rows(samples)], delimiter)

    return write


def lines(images: str, file: str, rows: Callable[[Samples], Sequence[str]]) -> Writer:
    """A folder of images and a file of lines of text."""

    def write(root: Path, samples: Samples) -> None:
        put_images(root / images, samples)
        put_text(root / file, rows(samples))

    return write


def document(images: str, file: str, content: Callable[[Samples], Any]) -> Writer:
    """A folder of images and a json file."""
    return lines(images, file, lambda samples: [json.dumps(content(samples))])


def sidecars(images: str, suffix: str, text: Callable[[Sample], str]) -> Writer:
    """A folder of images, each with a text file beside it."""

    def write(root: Path, samples: Samples) -> None:
        put_images(root / images, samples)
        for sample in samples:
            put_text((root / images / sample.name).with_suffix(suffix), [text(sample)])

    return write


def split_rows(samples: Samples) -> list[tuple[str, str, str]]:
    return [(s.name, text, split) for split, part in thirds(samples).items() for s in part for text in s.captions]


def pipes(samples: Samples) -> list[str]:
    rows = [f"{s.name}| {k}| {text}" for s in samples for k, text in enumerate(s.captions)]
    rows[2] = rows[2].replace("| 0|", "| 0  ").replace("| 1|", "| 1  ")  # as in the published file
    return ["image_name| comment_number| comment", *rows]


def karpathy(samples: Samples, folder: str, splits: Sequence[str]) -> dict[str, Any]:
    place = {"filepath": folder} if folder else {}
    return {"images": [
        {"filename": s.name, "split": split, "sentences": [{"raw": text} for text in s.captions], **place}
        for s, split in zip(samples, splits, strict=True)
    ]}  # fmt: skip


def coco(samples: Samples) -> dict[str, Any]:
    images = [{"id": 7 * k, "file_name": s.name, "height": 8, "width": 8} for k, s in enumerate(samples)]
    found = [{"id": k, "image_id": 7 * k, "caption": text} for k, s in enumerate(samples) for text in s.captions]
    return {"images": images, "annotations": found, "info": {}}


def llava(samples: Samples) -> list[dict[str, Any]]:
    ask = {"from": "human", "value": "<image>\nDescribe it."}
    return [
        {"id": k, "image": name, "conversations": [ask, {"from": "gpt", "value": text}]}
        for k, (name, text) in enumerate(pairs(samples))
    ]


def message(name: str, text: str) -> str:
    turns = [{"role": "user", "content": "<image>Describe it."}, {"role": "assistant", "content": text}]
    return json.dumps({"messages": turns, "images": [f"images/{name}"]})


def imagefolder_jsonl_splits(root: Path, samples: Samples) -> None:
    for split, part in thirds(samples).items():
        put_images(root / split, part)
        rows = [json.dumps({"file_name": s.name, "captions": s.captions}) for s in part]
        put_text(root / split / "metadata.jsonl", rows)


def imagefolder_parquet(root: Path, samples: Samples) -> None:
    put_images(root / "images", samples)
    rows = [{"file_name": f"images/{s.name}", "captions": list(s.captions)} for s in samples]
    pq.write_table(pa.Table.from_pylist(rows), root / "metadata.parquet")


def put_parquet(path: Path, samples: Samples) -> None:
    rows = [{"image": {"bytes": s.content, "path": s.name}, "caption": list(s.captions)} for s in samples]
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=7)


def parquet_bytes(root: Path, samples: Samples) -> None:
    put_parquet(root / "part-00000.parquet", samples[:20])
    put_parquet(root / "part-00001.parquet", samples[20:])


def parquet_bytes_splits(root: Path, samples: Samples) -> None:
    for split, part in thirds(samples).items():
        put_parquet(root / "data" / f"{split}-00000-of-00001.parquet", part)


def tar_shards(root: Path, samples: Samples) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for number, part in enumerate((samples[:30], samples[30:])):
        with tarfile.open(root / f"{number:05}.tar", "w") as tar:
            for sample in part:
                text = "\n".join(sample.captions).encode()
                for name, content in ((sample.name, sample.content), (f"{Path(sample.name).stem}.txt", text)):
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))


def roco(root: Path, samples: Samples) -> None:
    for split, part in thirds(samples).items():
        put_images(root / split / "radiology" / "images", part)
        rows = [f"{Path(name).stem}\t {text}" for name, text in pairs(part)]
        put_text(root / split / "radiology" / "captions.txt", rows)


IN_ORDER = ["train"] * 40 + ["val"] * 5 + ["test"] * 5  # splits of 50 samples
LAYOUTS: dict[str, Writer] = {
    "kaggle": table("Images", "captions.txt", ("image", "caption"), pairs),
    "flickr30k_pipes": lines("flickr30k_images", "results.csv", pipes),
    "flickr8k_token": lines(
        "Flicker8k_Dataset", "Flickr8k.token.txt",
        lambda samples: [f"{s.name}#{k}\t{text}" for s in samples for k, text in enumerate(s.captions)],
    ),
    "karpathy": document("images", "dataset_flickr8k.json", lambda samples: karpathy(samples, "", IN_ORDER)),
    "karpathy_coco": document(
        "val2014", "dataset_coco.json",
        lambda samples: karpathy(samples, "val2014", ["restval"] * 40 + IN_ORDER[40:]),
    ),
    "coco": document("train2017", "annotations/captions_train2017.json", coco),
    "imagefolder_csv": table("", "metadata.csv", ("file_name", "text"), pairs),
    "imagefolder_jsonl_splits": imagefolder_jsonl_splits,
    "imagefolder_parquet": imagefolder_parquet,
    "parquet_bytes": parquet_bytes,
    "parquet_bytes_splits": parquet_bytes_splits,
    # own headings, other order, semicolons, a pandas index column and one more column
    "spreadsheet": table(
        "Bilder", "Tabelle.csv", ("", "Beschreibung", "Jahr", "Bild"),
        lambda samples: [(k, text, 2024, name) for k, (name, text) in enumerate(pairs(samples))], ";",
    ),
    "caption_columns": table(
        "img", "all.tsv", ("path", "caption_1", "caption_2"),
        lambda samples: [(f"img/{s.name}", *s.captions) for s in samples], "\t",
    ),
    "table_with_split": table("images", "data.csv", ("image", "caption", "split"), split_rows),
    "jsonl": lines(
        "images", "all.jsonl",
        lambda samples: [json.dumps({"image": name, "text": text}) for name, text in pairs(samples)],
    ),
    "imageclef": table(
        "train/images", "train_captions.csv", ("ID", "Caption"),
        lambda samples: [(Path(name).stem, text) for name, text in pairs(samples)],
    ),
    "sidecar_txt": sidecars("10_dogs", ".txt", lambda sample: "\n".join(sample.captions)),
    "sidecar_caption": sidecars("", ".caption", lambda sample: "\n".join(sample.captions)),
    "img2dataset_files": sidecars("00000", ".json", lambda s: json.dumps({"captions": s.captions, "url": "x"})),
    "tar_shards": tar_shards,
    "llava": document("images", "llava.json", llava),
    "messages": lines("images", "train.jsonl", lambda samples: [message(*pair) for pair in pairs(samples)]),
    "roco": roco,
}  # fmt: skip
