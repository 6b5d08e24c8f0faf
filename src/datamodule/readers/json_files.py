"""Read json and jsonl files of captioned images as records: Karpathy, COCO, LLaVA, messages, or plain fields."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from src.datamodule.readers.encodings import read_lines
from src.datamodule.readers.tables import Record
from src.utils.errors import UserError

KARPATHY_SPLITS = ("train", "restval", "val", "test")
EXPECTED = (
    "expected Karpathy's or COCO's json, a list of objects, or names with captions; set datamodule.captions_file=..."
)


def read_json(path: Path) -> list[Record]:
    """Read a json or jsonl file; captions are a text or a list. UserError where it has no known structure."""
    if path.suffix.lower() != ".json":
        return list(read_jsonl(path))
    content = _parse("\n".join(read_lines(path)))
    images = content.get("images") if isinstance(content, dict) else None
    if isinstance(images, list):
        karpathy = any("sentences" in image for image in images if isinstance(image, dict))
        coco = "annotations" in content or not karpathy
        return list(
            _coco(images, content.get("annotations")) if coco else map(_karpathy, range(1, len(images) + 1), images)
        )
    if isinstance(content, dict) and content and all(isinstance(value, str | list) for value in content.values()):
        content = [{"image": name, "caption": text} for name, text in content.items()]
    if isinstance(content, list) and content:
        return [_record(number, item, str(item)) for number, item in enumerate(content, 1)]
    raise UserError(
        f"{str(path)!r} {'is no json' if content is None else 'has no images'}; expected Karpathy's or COCO's json, a "
        "list of objects, or names with captions; set datamodule.captions_file=..."
    )


def read_jsonl(path: Path) -> Iterator[Record]:
    """Yield the records of a file with an object in each line."""
    for number, line in enumerate(read_lines(path), 1):
        if line.strip("\x00 \t"):
            yield _record(number, _parse(line), line)


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _record(line: int, item: Any, text: str) -> Record:
    """One object; of a conversation (LLaVA, messages) the last answer is the caption."""
    if not isinstance(item, dict):
        return Record(line, {"": text}, "malformed line")
    turns = item.get("conversations", item.get("messages"))
    if not isinstance(turns, list):
        image = item.get("image")
        return Record(line, item | {"image": image["path"]} if isinstance(image, dict) and "path" in image else item)
    image = item.get("image") or item.get("images")
    image = image[0] if isinstance(image, list) and len(image) == 1 else image
    image = image.get("path") if isinstance(image, dict) else image
    if not isinstance(image, str):
        return Record(line, {"": text}, "not one image")
    answer: Any = ""
    for turn in turns:
        if isinstance(turn, dict) and turn.get("from", turn.get("role")) in ("gpt", "assistant", "model"):
            answer = turn.get("value", turn.get("content"))
    if isinstance(answer, list):  # parts: {"type": "text", "text": ...}
        answer = " ".join(str(part.get("text", "")) for part in answer if isinstance(part, dict))
    return Record(line, {"image": image, "caption": answer} | ({"split": item["split"]} if "split" in item else {}))


def _karpathy(line: int, image: Any) -> Record:
    """One image: `{"filepath", "filename", "split", "sentences": [{"raw"}]}`."""
    fields = image if isinstance(image, dict) else {}
    name, sentences, folder = fields.get("filename"), fields.get("sentences"), fields.get("filepath")
    if not (isinstance(name, str) and isinstance(sentences, list) and fields.get("split") in KARPATHY_SPLITS):
        return Record(line, {"": str(name)}, "malformed line")
    name = f"{folder}/{name}" if folder and isinstance(folder, str) else name
    return Record(line, {"image": name, "caption": sentences, "split": fields["split"]})


def _coco(images: list[Any], annotations: Any) -> Iterator[Record]:
    """Images with the captions of `annotations`, joined by the image's id."""
    captions: dict[Any, list[Any]] = {}
    for number, annotation in enumerate(annotations if isinstance(annotations, list) else [], 1):
        found = isinstance(annotation, dict) and isinstance(annotation.get("image_id"), str | int)
        if not found or "caption" not in annotation:
            yield Record(number, {"": str(annotation)}, "no caption of an image")
        else:
            captions.setdefault(annotation["image_id"], []).append(annotation["caption"])
    for number, image in enumerate(images, 1):
        fields = image if isinstance(image, dict) else {}
        name, key = fields.get("file_name"), fields.get("id")
        if not isinstance(name, str) or not isinstance(key, str | int):
            yield Record(number, {"": str(image)}, "malformed line")
        elif key in captions:
            yield Record(number, {"image": name, "caption": captions.pop(key)})
    for key, texts in captions.items():
        yield from (Record(0, {"": f"image_id {key}: {text}"}, "no image of that id") for text in texts)
