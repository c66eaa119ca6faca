"""The samples' published inputs, with what PEFT and transformers answer to them (hack/samples)."""

import csv
import functools
import itertools
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from pool import SAMPLES

ROWS = 24  # of each sample that are asked


@dataclass(frozen=True)
class Row:
    """One input, the adapter that it is asked of, and the answer of PEFT with that adapter alone."""

    given: dict[str, bytes | str | np.ndarray]  # the input in each of its forms, by the tensor's name
    adapter: str  # "" is the base model
    labels: list[str]
    logits: np.ndarray  # [labels]; none of a classifier of tokens
    token_logits: np.ndarray | None = None  # [tokens, labels], of such
    entities: list[dict] = field(default_factory=list)  # of such

    @property
    def label(self) -> str:
        return self.labels[self.logits.argmax()] if len(self.logits) else ""


@functools.cache
def rows(sample: str) -> tuple[Row, ...]:
    """The first rows of a sample, their adapters in turn."""
    return tuple(itertools.islice({"digits": _digits, "packages": _packages}[sample](), ROWS))


def own(adapter: str) -> list[Row]:
    """The rows of one of the samples' adapters."""
    return [row for sample in ("digits", "packages") for row in rows(sample) if row.adapter == adapter]


def _digits():
    folder = SAMPLES / "digits"
    golden = load_file(folder / "golden.safetensors")
    images = [line["image"] for line in csv.DictReader((folder / "images" / "labels.csv").open())]
    models = {"digit": "adapters/digit", "parity": "adapters/parity", "holes": "adapters/holes", "": "base"}
    for i, (image, (adapter, path)) in enumerate(zip(images, itertools.cycle(models.items()))):
        yield Row(
            {"image": (folder / "images" / image).read_bytes(), "pixel_values": golden["pixel_values"][i]},
            adapter, _labels(folder / path), golden[f"logits.{adapter or 'base'}"][i],
        )


def _packages():
    folder = SAMPLES / "packages"
    golden = load_file(folder / "golden.safetensors")
    entities = {line["text"]: line["entities"] for line in json.loads((folder / "entities.json").read_text())}
    for i, line in enumerate((folder / "held-out.jsonl").read_text().splitlines()):
        asked = json.loads(line)
        text, adapter = asked["text"], asked["adapter"]
        given = {"text": text} | {
            name: golden[f"inputs.{i}.{name}"].astype(np.int64) for name in ("input_ids", "token_type_ids")
        }
        labels, logits = _labels(folder / "adapters" / adapter), golden[f"logits.{adapter}.{i}"]
        if logits.ndim == 1:
            yield Row(given, adapter, labels, logits)
        else:
            yield Row(given, adapter, labels, np.empty(0, np.float32), logits, entities[text])


def _labels(folder: Path) -> list[str]:
    return list(json.loads((folder / "config.json").read_text())["id2label"].values())
