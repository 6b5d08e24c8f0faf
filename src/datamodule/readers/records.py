"""Read json, parquet and tar files of captioned images as records; the images in parquet and tar files stay there."""

import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from src.datamodule.readers.files import IMAGE_SUFFIXES, SPLITS, read_lines
from src.utils.errors import UserError

ANSWERS = ("gpt", "assistant", "model")  # who says a turn of a conversation that is a caption
# Key and suffix, at the first dot. Hidden, absolute and parent folders and webdataset's `__name__/` do not match.
SUFFIXES = "|".join(map(re.escape, (*IMAGE_SUFFIXES, ".txt", ".caption", ".json")))
MEMBER = re.compile(rf"(?:\./+)*(?!__[^/]*__/)((?:[^/\\.][^/\\]*/)*[^/\\.]+)((?i:{SUFFIXES}))")


class Record(NamedTuple):
    """One row of a file, unchecked: fields by column name."""

    line: int  # from 1; in json and parquet the position of the row
    fields: dict[str, Any]
    error: str = ""  # why it is no row; fields[""] then has its text


class Embedded(NamedTuple):
    """An image in a parquet or tar file."""

    name: str  # as the file has it, or of the file and the row
    span: tuple[Any, int]  # as in CaptionedImage


def read_json(path: Path) -> list[Record]:
    """Read a json or jsonl file; captions are a text or a list. UserError where it has no known structure."""
    if path.suffix.lower() != ".json":
        return list(read_jsonl(path))
    content = _parse("\n".join(read_lines(path)))
    if isinstance(content, dict) and isinstance(images := content.get("images"), list):
        is_karpathy = any("sentences" in image for image in images if isinstance(image, dict))
        if is_karpathy and "annotations" not in content:
            return [_karpathy(number, image) for number, image in enumerate(images, 1)]
        return list(_coco(images, content.get("annotations")))
    if isinstance(content, dict) and all(isinstance(value, str | list) for value in content.values()):
        content = [{"image": name, "caption": text} for name, text in content.items()]
    if isinstance(content, list) and content:
        return [_record(number, item, str(item)) for number, item in enumerate(content, 1)]
    problem = "is no json" if content is None else "has no images"
    raise UserError(f"{str(path)!r} {problem}; expected COCO, Karpathy or a list; set datamodule.captions_file=...")


def read_jsonl(path: Path) -> Iterator[Record]:
    """Yield the records of a file with an object in each line."""
    for number, line in enumerate(read_lines(path), 1):
        if line.strip("\x00 \t"):
            yield _record(number, _parse(line), line)


def _parse(text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _record(line: int, item: Any, text: str) -> Record:
    """One object; of a conversation (LLaVA, messages) the last answer is the caption."""
    if not isinstance(item, dict):
        return Record(line, {"": text}, "malformed line")
    image = item.get("image") or item.get("images")
    image = image[0] if isinstance(image, list) and len(image) == 1 else image
    image = image["path"] if isinstance(image, dict) and "path" in image else image
    turns = item.get("conversations", item.get("messages"))
    if not isinstance(turns, list):
        return Record(line, item | {"image": image} if image else item)
    if not isinstance(image, str):
        return Record(line, {"": text}, "not one image")
    answers = [turn for turn in turns if isinstance(turn, dict) and turn.get("from", turn.get("role")) in ANSWERS]
    answer = answers[-1].get("value", answers[-1].get("content")) if answers else ""
    if isinstance(answer, list):  # parts: {"type": "text", "text": ...}
        answer = " ".join(str(part.get("text", "")) for part in answer if isinstance(part, dict))
    return Record(line, item | {"image": image, "caption": answer})


def _karpathy(line: int, image: Any) -> Record:
    """One image: `{"filepath", "filename", "split", "sentences": [{"raw"}]}`."""
    fields = image if isinstance(image, dict) else {}
    name, sentences, folder = fields.get("filename"), fields.get("sentences"), fields.get("filepath")
    if not (isinstance(name, str) and isinstance(sentences, list) and str(fields.get("split")) in SPLITS):
        return Record(line, {"": str(name)}, "malformed line")
    name = f"{folder}/{name}" if folder else name
    return Record(line, {"image": name, "caption": sentences, "split": fields["split"]})


def _coco(images: list[Any], annotations: Any) -> Iterator[Record]:
    """Images with the captions of `annotations`, joined by the image's id."""
    captions: dict[str, list[Any]] = {}
    for number, found in enumerate(annotations if isinstance(annotations, list) else [], 1):
        if isinstance(found, dict) and "image_id" in found and "caption" in found:
            captions.setdefault(str(found["image_id"]), []).append(found["caption"])
        else:
            yield Record(number, {"": str(found)}, "no caption of an image")
    for number, image in enumerate(images, 1):
        if not isinstance(image, dict) or "file_name" not in image or "id" not in image:
            yield Record(number, {"": str(image)}, "malformed line")
        elif texts := captions.pop(str(image["id"]), None):
            yield Record(number, {"image": image["file_name"], "caption": texts})
    for key, texts in captions.items():
        yield from (Record(0, {"": f"image_id {key}: {text}"}, "no image of that id") for text in texts)


def read_parquet(path: Path) -> list[Record]:
    """Read a parquet file but for the bytes of its images, which become `Embedded`. UserError where it is damaged."""
    try:
        file = pq.ParquetFile(path)
        leaves = [file.schema.column(k) for k in range(len(file.schema))]  # such as "image.bytes" and "image.path"
        binary = [leaf.path for leaf in leaves if leaf.logical_type.type == "NONE" and "BYTE" in leaf.physical_type]
        rows = file.read(columns=[leaf.path for leaf in leaves if leaf.path not in binary]).to_pylist()
        chunks = [chunk for group in file.metadata.to_dict()["row_groups"] for chunk in group["columns"]]
    except (OSError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{str(path)!r} cannot be read ({reason}); expected a parquet file; write it again") from error
    stored = {c["path_in_schema"] for c in chunks if (c["statistics"] or {}).get("null_count") != c["num_values"]}
    for leaf in binary:
        name = leaf.removesuffix(".bytes")
        for number, row in enumerate(rows) if "." not in name else ():
            given = (row.get(name) or {}).get("path") or ""
            short = given.replace("\\", "/")
            short = short.rpartition("/")[2] if ".." in short or short.startswith("/") or ":" in short else short
            image = Embedded(short or f"{path.name}/{number:06}", (name, number))
            row[name] = image if leaf in stored else given  # nulls alone: the images are files
    return [Record(number, row) for number, row in enumerate(rows, 1)]


def read_sidecars(txt: bytes, fields: bytes) -> list[Any]:
    """Return the list `captions` of an image's json, else the lines of its txt, else the json's `caption`."""
    found = _parse(fields)
    found = found if isinstance(found, dict) else {}
    listed = found["captions"] if isinstance(found.get("captions"), list) else []
    lines = [line for line in txt.decode("utf-8", "replace").splitlines() if line.strip()]
    return listed or lines or [found.get("caption")]


def read_tar(path: Path) -> list[Record]:
    """Return `image` and `caption` of each sample, in the order of the keys' first members. UserError if damaged."""
    samples: dict[str, dict[str, Any]] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                found = MEMBER.fullmatch(member.name)
                if found is None or not member.isreg() or member.issparse() or not member.name.isprintable():
                    continue
                sample, suffix = samples.setdefault(found[1], {}), found[2].lower()
                if suffix in IMAGE_SUFFIXES:
                    sample.setdefault("image", Embedded("".join(found.groups()), (member.offset_data, member.size)))
                elif file := tar.extractfile(member):
                    sample["json" if suffix == ".json" else "txt"] = file.read()
            if path.stat().st_size < tar.offset + tarfile.BLOCKSIZE:  # no empty block at the end
                raise tarfile.ReadError("it is truncated")
    except (tarfile.TarError, OSError, EOFError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"shard {str(path)!r}: {reason}; expected an uncompressed .tar file; write it again") from error
    texts = [read_sidecars(sample.get("txt", b""), sample.get("json", b"")) for sample in samples.values()]
    images = [sample.get("image", key) for key, sample in samples.items()]
    return [Record(0, {"image": image, "caption": text}) for image, text in zip(images, texts, strict=True)]
