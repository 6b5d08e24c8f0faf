"""How long 5,000 candidates with 5 references each take to score on one core: `python -m benchmarks.scoring`.

Texts are Flickr8k's. Every second candidate is a reference of its image less the last words, the others
belong to another image. Everything counts: the tokenizer's first use, BLEU, ROUGE-L, CIDEr-D, shares, and 95%
intervals from 1,000 resamples. Prints a table, then one line of JSON; ends with status 1 above 15 s.
"""

import argparse
import csv
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

CAPTIONS = Path(__file__).resolve().parents[2] / "shared" / "data" / "flickr8k" / "captions_all.txt"
MAX_SECONDS = 15.0


def read_sets(path: Path, images: int) -> tuple[list[str], list[list[str]]]:
    """Candidates and references of the first `images` images that have five captions."""
    captions: dict[str, list[str]] = defaultdict(list)
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            captions[row["image"]].append(row["caption"])
    references = [texts for texts in captions.values() if len(texts) == 5][:images]
    own = [texts[0].rsplit(" ", 3)[0] for texts in references]
    return [own[(i + i % 2) % len(own)] for i in range(len(own))], references


def timed(name: str, seconds: dict[str, float], work: Callable[[], Any]) -> Any:
    """What `work` returns; its processor time is added under `name`."""
    started = time.process_time()
    result = work()
    seconds[name] = time.process_time() - started
    return result


def measure(candidates: list[str], references: list[list[str]]) -> tuple[dict[str, float], dict[str, float]]:
    """Processor seconds of all and of each part, and the corpus scores."""
    from src.metrics.bootstrap import intervals
    from src.metrics.coco import coco_scores
    from src.metrics.ptb.tokenizer import PTBTokenizer
    from src.metrics.scorer import score
    from src.metrics.text_statistics import text_statistics

    seconds: dict[str, float] = {}
    flat = [text for texts in references for text in texts]
    tokenize = PTBTokenizer().tokenize
    tokens = timed("tokenizer", seconds, lambda: (tokenize(candidates), tokenize(flat)))
    expected = [tokens[1][start : start + 5] for start in range(0, len(flat), 5)]
    scores = timed("scorers", seconds, lambda: coco_scores(tokens[0], expected) | text_statistics(tokens[0]))
    timed("intervals", seconds, lambda: intervals(scores.statistics))
    ids = [str(i) for i in range(len(candidates))]
    whole = timed("all, by score()", seconds, lambda: score(ids, candidates, references))
    return seconds, whole.corpus


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--captions", type=Path, default=CAPTIONS, help="a captions.txt of Flickr8k")
    parser.add_argument("--images", type=int, default=5000)
    arguments = parser.parse_args()
    if not arguments.captions.is_file():
        parser.error(f"{arguments.captions} does not exist; expected Flickr8k's captions.txt; set --captions")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    candidates, references = read_sets(arguments.captions, arguments.images)
    seconds, corpus = measure(candidates, references)
    print(f"| part, {len(candidates)} candidates x 5 references | seconds on one core |\n|---|---|")
    for name, value in seconds.items():
        print(f"| {name} | {value:.2f} |")
    print(json.dumps({"images": len(candidates), "seconds": seconds, "cider_d": corpus["cider_d"]}))
    return int(seconds["all, by score()"] > MAX_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
