"""Run one Java scorer of pycocoevalcap: JSON on standard input, JSON as the last line out.

A process of its own, started by `java_scorers`: these scorers wait for their Java program without a limit,
and a process can be killed.
"""

import json
import sys
from typing import Any


def meteor(references: dict[str, list[str]], candidates: dict[str, list[str]]) -> dict[str, Any]:
    """Compute METEOR of the corpus and per image, with the 23 counts of each image that it is made of."""
    from pycocoevalcap.meteor.meteor import Meteor

    counts: list[list[float]] = []

    class Counting(Meteor):
        def _stat(self, hypothesis_str: str, reference_list: list[str]) -> str:
            line = super()._stat(hypothesis_str, reference_list)
            counts.append([float(number) for number in line.split()])
            return line

    corpus, per_image = Counting().compute_score(references, candidates)
    return {"corpus": corpus, "per_image": per_image, "counts": counts}


def spice(references: dict[str, list[str]], candidates: dict[str, list[str]]) -> dict[str, Any]:
    """Compute SPICE of the corpus and per image, in the order of sorted keys."""
    from pycocoevalcap.spice.spice import Spice

    corpus, per_image = Spice().compute_score(references, candidates)
    return {"corpus": corpus, "per_image": [scores["All"]["f"] for scores in per_image], "counts": None}


if __name__ == "__main__":
    task = json.load(sys.stdin)
    run = {"meteor": meteor, "spice": spice}[sys.argv[1]]
    print(json.dumps(run(task["references"], task["candidates"])))
