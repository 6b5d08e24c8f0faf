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
LAYOUTS: dict[str, Writer] = {}


def layout(write: Writer) -> Writer:
    LAYOUTS[write.__name__] = write
    return write


def put_images(folder: Path, samples: Samples) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for sample in samples:
        (folder / sample.name).write_bytes(sample.content)


def put_rows(path: Path, rows: Sequence[Sequence[Any]], delimiter: str = ",") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter, lineterminator="\n").writerows(rows)


def put_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def put_lines(path: Path, rows: Sequence[Any]) -> None:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def pairs(samples: Samples) -> list[tuple[str, str]]:
    return [(sample.name, caption) for sample in samples for caption in sample.captions]


def thirds(samples: Samples) -> dict[str, Samples]:
    """Parts named as the hub names splits."""
    return {"train": samples[:-10], "validation": samples[-10:-5], "test": samples[-5:]}


@layout
def kaggle(root: Path, samples: Samples) -> None:
    put_images(root / "Images", samples)
    put_rows(root / "captions.txt", [("image", "caption"), *pairs(samples)])


@layout
def flickr30k_pipes(root: Path, samples: Samples) -> None:
    put_images(root / "flickr30k_images", samples)
    rows = [f"{s.name}| {k}| {text}" for s in samples for k, text in enumerate(s.captions)]
    rows[2] = rows[2].replace("| 0|", "| 0  ").replace("| 1|", "| 1  ")  # as in the published file
    (root / "results.csv").write_text("\n".join(["image_name| comment_number| comment", *rows]))


@layout
def flickr8k_token(root: Path, samples: Samples) -> None:
    put_images(root / "Flicker8k_Dataset", samples)
    rows = [f"{s.name}#{k}\t{text}" for s in samples for k, text in enumerate(s.captions)]
    (root / "Flickr8k.token.txt").write_text("\n".join(rows))


@layout
def karpathy(root: Path, samples: Samples) -> None:
    put_images(root / "images", samples)
    images = [
        {"filename": s.name, "split": split[:3].replace("tra", "train").replace("tes", "test"),
         "sentences": [{"raw": text} for text in s.captions]}
        for split, part in thirds(samples).items() for s in part
    ]  # fmt: skip
    put_json(root / "dataset_flickr8k.json", {"images": images, "dataset": "flickr8k"})


@layout
def karpathy_coco(root: Path, samples: Samples) -> None:
    put_images(root / "val2014", samples)
    images = [
        {"filename": s.name, "filepath": "val2014", "split": "restval" if k < 40 else "val" if k < 45 else "test",
         "sentences": [{"raw": text} for text in s.captions]}
        for k, s in enumerate(samples)
    ]  # fmt: skip
    put_json(root / "dataset_coco.json", {"images": images})


@layout
def coco(root: Path, samples: Samples) -> None:
    put_images(root / "train2017", samples)
    images = [{"id": 7 * k, "file_name": s.name, "height": 8, "width": 8} for k, s in enumerate(samples)]
    found = [{"id": k, "image_id": 7 * k, "caption": text} for k, s in enumerate(samples) for text in s.captions]
    put_json(root / "annotations" / "captions_train2017.json", {"images": images, "annotations": found, "info": {}})


@layout
def imagefolder_csv(root: Path, samples: Samples) -> None:
    put_images(root, samples)
    put_rows(root / "metadata.csv", [("file_name", "text"), *pairs(samples)])


@layout
def imagefolder_jsonl_splits(root: Path, samples: Samples) -> None:
    for split, part in thirds(samples).items():
        put_images(root / split, part)
        put_lines(root / split / "metadata.jsonl", [{"file_name": s.name, "captions": s.captions} for s in part])


@layout
def imagefolder_parquet(root: Path, samples: Samples) -> None:
    put_images(root / "images", samples)
    rows = [{"file_name": f"images/{s.name}", "captions": list(s.captions)} for s in samples]
    pq.write_table(pa.Table.from_pylist(rows), root / "metadata.parquet")


def embedded(samples: Samples) -> pa.Table:
    return pa.Table.from_pylist(
        [{"image": {"bytes": s.content, "path": s.name}, "caption": list(s.captions)} for s in samples]
    )


@layout
def parquet_bytes(root: Path, samples: Samples) -> None:
    root.mkdir(parents=True, exist_ok=True)
    pq.write_table(embedded(samples[:20]), root / "part-00000.parquet", row_group_size=7)
    pq.write_table(embedded(samples[20:]), root / "part-00001.parquet", row_group_size=7)


@layout
def parquet_bytes_splits(root: Path, samples: Samples) -> None:
    (root / "data").mkdir(parents=True)
    for split, part in thirds(samples).items():
        pq.write_table(embedded(part), root / "data" / f"{split}-00000-of-00001.parquet", row_group_size=7)


@layout
def spreadsheet(root: Path, samples: Samples) -> None:
    """Own headings, other order, semicolons, a pandas index column and one more column."""
    put_images(root / "Bilder", samples)
    rows = [(k, text, 2024, name) for k, (name, text) in enumerate(pairs(samples))]
    put_rows(root / "Tabelle.csv", [("", "Beschreibung", "Jahr", "Bild"), *rows], ";")


@layout
def caption_columns(root: Path, samples: Samples) -> None:
    put_images(root / "img", samples)
    rows = [(f"img/{s.name}", *s.captions) for s in samples]
    put_rows(root / "all.tsv", [("path", "caption_1", "caption_2"), *rows], "\t")


@layout
def table_with_split(root: Path, samples: Samples) -> None:
    put_images(root / "images", samples)
    rows = [(s.name, text, split) for split, part in thirds(samples).items() for s in part for text in s.captions]
    put_rows(root / "data.csv", [("image", "caption", "split"), *rows])


@layout
def jsonl(root: Path, samples: Samples) -> None:
    put_images(root / "images", samples)
    put_lines(
        root / "all.jsonl", [{"image": name, "text": text, "id": k} for k, (name, text) in enumerate(pairs(samples))]
    )


@layout
def imageclef(root: Path, samples: Samples) -> None:
    put_images(root / "train" / "images", samples)
    rows = [(Path(name).stem, text) for name, text in pairs(samples)]
    put_rows(root / "train_captions.csv", [("ID", "Caption"), *rows])


@layout
def sidecar_txt(root: Path, samples: Samples) -> None:
    put_images(root / "10_dogs", samples)
    for sample in samples:
        (root / "10_dogs" / sample.name).with_suffix(".txt").write_text("\n".join(sample.captions))


@layout
def sidecar_caption(root: Path, samples: Samples) -> None:
    put_images(root, samples)
    for sample in samples:
        (root / sample.name).with_suffix(".caption").write_text("\n".join(sample.captions))


@layout
def img2dataset_files(root: Path, samples: Samples) -> None:
    put_images(root / "00000", samples)
    for sample in samples:
        put_json((root / "00000" / sample.name).with_suffix(".json"), {"captions": sample.captions, "url": "x"})


@layout
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


@layout
def llava(root: Path, samples: Samples) -> None:
    put_images(root / "images", samples)
    ask = {"from": "human", "value": "<image>\nDescribe it."}
    rows = [
        {"id": k, "image": name, "conversations": [ask, {"from": "gpt", "value": text}]}
        for k, (name, text) in enumerate(pairs(samples))
    ]
    put_json(root / "llava.json", rows)


@layout
def messages(root: Path, samples: Samples) -> None:
    put_images(root / "images", samples)
    ask = {"role": "user", "content": "<image>Describe it."}
    rows = [
        {"messages": [ask, {"role": "assistant", "content": text}], "images": [f"images/{name}"]}
        for name, text in pairs(samples)
    ]
    put_lines(root / "train.jsonl", rows)


@layout
def roco(root: Path, samples: Samples) -> None:
    for split, part in thirds(samples).items():
        folder = root / split / "radiology"
        put_images(folder / "images", part)
        rows = [f"{Path(s.name).stem}\t {text}" for s in part for text in s.captions]
        (folder / "captions.txt").write_text("\n".join(rows))
