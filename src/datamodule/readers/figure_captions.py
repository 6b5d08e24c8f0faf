"""Which figures of MedICaT are used, and which text of a figure is its caption."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from src.datamodule.readers.encodings import clean_caption
from src.utils.errors import UserError

CAPTION_FIELDS = ("s2_caption", "s2orc_caption")
# A number, then a mark or a capital: "Figure 1.", "Fig 3.", "FIGURE 2:", "Fig. S1a -", "Figure 4 Axial CT".
# "Figure 1 shows a cyst" is a sentence and stays.
LABEL = re.compile(
    r"^(?i:(?:supplementary|supplemental|suppl\.?|online|extended data)\s+)?"
    r"(?i:fig(?:ure|s)?)\b\.?\s*"
    r"(?:[A-Z]{0,2}\d+(?:\.\d+)*[A-Za-z]?|[IVX]+\b)(?:[-–,&](?:\d+[A-Za-z]?|[A-Za-z])\b)?"
    r"(?:\s*(?:[.:|]|[-–—](?=\s))\s*|\s+(?=[A-Z(\[])|\s*$)"
)


def strip_label(caption: str) -> str:
    """The caption without a leading "Figure 1.", "Fig 3.", "FIGURE 2:" or "Fig. S1a -"."""
    return LABEL.sub("", caption, count=1)


def strip_panel(caption: str, panel: str) -> str:
    """The caption of panel "A" without a leading "(A)", "A)", "A." or "A:"."""
    return re.sub(rf"^\(?{re.escape(panel)}(?:\)[.:,]?|[.:])\s*", "", caption, count=1, flags=re.IGNORECASE)


@dataclass(frozen=True)
class FigureFilter:
    """Which rows of the index are used, and which text is their caption.

    radiology_only, scope_only: rows whose field `radiology` or `scope` is true.
    caption_fields: the first of these that holds text is the caption.
    strip_labels: take "Figure 1." and the like from the caption's front.
    min_words: words that a caption must have.

    Raises:
        UserError: `caption_fields` are no names, or `min_words` is no whole number from 1.
    """

    radiology_only: bool = False
    scope_only: bool = False
    caption_fields: Sequence[str] = CAPTION_FIELDS
    strip_labels: bool = True
    min_words: int = 1

    def __post_init__(self) -> None:
        fields = self.caption_fields
        if isinstance(fields, str) or not fields or not all(isinstance(name, str) for name in fields):
            raise UserError(
                f"datamodule.caption_fields={fields!r}; expected names of fields of the jsonl; "
                f"set datamodule.caption_fields=[{','.join(CAPTION_FIELDS)}]"
            )
        if not isinstance(self.min_words, int) or self.min_words < 1:
            raise UserError(
                f"datamodule.min_words={self.min_words!r}; expected a whole number from 1; "
                "set datamodule.min_words=1"
            )

    def unwanted(self, row: Mapping[str, Any]) -> str:
        """Why the settings leave a row out, "" if they do not."""
        if self.radiology_only and row.get("radiology") is not True:
            return "not radiology"
        if self.scope_only and row.get("scope") is not True:
            return "not scope"
        return ""

    def too_short(self, caption: str) -> str:
        """Why the settings leave a caption out, "" if they do not."""
        return f"under {self.min_words} words" if len(caption.split(" ")) < self.min_words else ""

    def caption(self, row: Mapping[str, Any]) -> str:
        """The cleaned caption of a row of the index, "" where no field holds one."""
        for name in self.caption_fields:
            text = row.get(name)
            caption = clean_caption(text) if isinstance(text, str) else ""
            if caption:
                return strip_label(caption) if self.strip_labels else caption
        return ""

    def panel_caption(self, text: str, panel: str) -> str:
        """The cleaned caption of one panel of a figure."""
        caption = clean_caption(text)
        return strip_panel(strip_label(caption), panel) if self.strip_labels and panel else caption
