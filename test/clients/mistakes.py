"""What a client may get wrong, and how it must be told."""

from dataclasses import dataclass

import numpy as np

import oip
from samples import rows

IMAGE, TEXT = rows("digits")[0].given["image"], rows("packages")[0].given["text"]


@dataclass(frozen=True)
class Mistake:
    name: str
    sample: str
    model: str
    inputs: dict[str, np.ndarray]
    status: int
    words: tuple[str, ...]  # of the message: which tensor, what was expected, what came
    outputs: tuple[str, ...] = ()
    version: str = ""

    @property
    def code(self) -> str:
        """gRPC's name of the status."""
        return {400: "INVALID_ARGUMENT", 404: "NOT_FOUND", 422: "INVALID_ARGUMENT"}[self.status]


def _text(*texts: str) -> dict[str, np.ndarray]:
    return {"text": oip.objects(texts)}


def _adapter(*names: str) -> dict[str, np.ndarray]:
    return {"adapter": oip.objects(names)}


MISTAKES = [
    Mistake("unknown model", "digits", "nobody", {"image": oip.objects([IMAGE])}, 404, ("nobody",)),
    Mistake("unknown version", "packages", "section", _text(TEXT), 404, ("section", "sha256:", "7"), version="7"),
    Mistake("unknown adapter", "packages", "packages", _text(TEXT, TEXT) | _adapter("section", "nobody"), 404,
            ("adapter", "row 1", "nobody")),
    Mistake("unknown input", "packages", "section", {"words": oip.objects([TEXT])}, 400,
            ("words", "text", "input_ids")),
    Mistake("unknown output", "packages", "section", _text(TEXT), 400, ("embedding", "logits"), ("label", "embedding")),
    Mistake("no input", "packages", "packages", _adapter("section"), 400, ("text", "input_ids")),
    Mistake("two inputs", "packages", "section", _text(TEXT) | {"input_ids": np.ones((1, 3), np.int64)}, 400,
            ("text", "input_ids")),
    Mistake("datatype", "packages", "section", {"input_ids": np.ones((1, 3), np.int32)}, 400,
            ("input_ids", "INT64", "INT32")),
    Mistake("dimensions", "packages", "section", {"input_ids": np.ones(3, np.int64)}, 400,
            ("input_ids", "[B, S]", "[3]")),
    Mistake("size of images", "digits", "parity", {"pixel_values": np.zeros((2, 3, 16, 32), np.float32)}, 400,
            ("pixel_values", "[B, 3, 32, 32]", "[2, 3, 16, 32]")),
    Mistake("adapters of too few rows", "packages", "packages", _text(TEXT, TEXT) | _adapter("section"), 400,
            ("adapter", "[2]", "[1]")),
    Mistake("an adapter's adapter", "packages", "section", _text(TEXT) | _adapter("library"), 400, ("adapter",)),
    Mistake("mask of another shape", "packages", "section",
            {"input_ids": np.ones((1, 3), np.int64), "attention_mask": np.ones((1, 2), np.int64)}, 400,
            ("attention_mask", "[1, 3]", "[1, 2]")),
    Mistake("mask with a hole", "packages", "section",
            {"input_ids": np.ones((1, 3), np.int64), "attention_mask": np.array([[1, 0, 1]])}, 400,
            ("attention_mask", "row 0")),
    Mistake("id out of the vocabulary", "packages", "section", {"input_ids": np.array([[2, 3], [2, 6000]])}, 400,
            ("input_ids", "row 1", "6000")),
    Mistake("too many rows", "packages", "section", _text(*[TEXT] * 257), 400, ("text", "256", "257")),
    Mistake("a base without a classifier", "packages", "packages", _text(TEXT) | _adapter(""), 400, ("packages",)),
    Mistake("no image", "digits", "parity", {"image": oip.objects([IMAGE, IMAGE[:40]])}, 422, ("image", "row 1")),
]

# What JSON cannot even say.
BINARY_MISTAKES = [
    Mistake("not a number", "digits", "parity",
            {"pixel_values": np.full((1, 3, 32, 32), np.nan, np.float32)}, 400, ("pixel_values", "row 0")),
    Mistake("not UTF-8", "packages", "section", {"text": oip.objects([TEXT, b"caf\xe9"])}, 422,
            ("text", "row 1", "UTF-8")),
]
