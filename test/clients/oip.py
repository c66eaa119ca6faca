"""The Open Inference Protocol as the tests speak of it: tensors by name, as numpy has them.

A tensor of BYTES is an array of objects, bytes or str. ask is the plainest client there is: JSON by an HTTP library.
What other clients get is held to what PEFT answers (check) and, to the bit, to what ask gets (same).
"""

import base64
import json
from collections.abc import Sequence

import numpy as np
import requests

from pool import Pool
from samples import Row

LOWEST = np.finfo(np.float32).min  # what fills logits up to the widest head
DATATYPES = {
    np.dtype(np.float32): "FP32", np.dtype(np.int64): "INT64", np.dtype(np.int32): "INT32", np.dtype(object): "BYTES",
}
DTYPES = {datatype: dtype for dtype, datatype in DATATYPES.items()}

OUTPUTS = {  # in the order in which they are answered, with their datatypes
    "logits": "FP32", "num_labels": "INT32", "probabilities": "FP32", "label": "BYTES", "score": "FP32",
    "revision": "BYTES",
}


def objects(values: Sequence) -> np.ndarray:
    """A tensor of BYTES."""
    return np.array(values, dtype=object)


def tensors(rows: Sequence[Row], source: str) -> dict[str, np.ndarray]:
    """The inputs of a mixed batch, its rows in the form that source names."""
    return given(rows, source) | {"adapter": objects([row.adapter for row in rows])}


def given(rows: Sequence[Row], source: str) -> dict[str, np.ndarray]:
    """Rows without the adapters that they are asked of. Ids [B, S] are filled up with 0, and masked there."""
    values = [row.given[source] for row in rows]
    if source == "pixel_values":
        return {source: np.stack(values)}
    if source != "input_ids":
        return {source: objects(values)}
    longest = max(len(ids) for ids in values)
    return {
        "input_ids": _filled(values, longest),
        "attention_mask": _filled([np.ones_like(ids) for ids in values], longest),
        "token_type_ids": _filled([row.given["token_type_ids"] for row in rows], longest),
    }


def _filled(rows: list[np.ndarray], length: int) -> np.ndarray:
    return np.stack([np.pad(row, (0, length - len(row))) for row in rows])


def for_json(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Inputs as JSON has them, where an image is base64: JSON has no bytes."""
    if "image" not in inputs:
        return inputs
    encoded = [base64.b64encode(image).decode() for image in inputs["image"].flat]
    return inputs | {"image": objects(encoded).reshape(inputs["image"].shape)}


def ask(pool: Pool, model: str, inputs: dict[str, np.ndarray], outputs: Sequence[str] = ()) -> dict[str, np.ndarray]:
    response = post(pool, model, inputs, outputs)
    assert response.status_code == 200, response.text
    return {
        output["name"]: np.array(output["data"], DTYPES[output["datatype"]]).reshape(output["shape"])
        for output in response.json()["outputs"]
    }


def post(pool: Pool, model: str, inputs: dict[str, np.ndarray], outputs: Sequence[str] = ()) -> requests.Response:
    return requests.post(f"{pool.url}/v2/models/{model}/infer", json={
        "inputs": [
            {"name": name, "datatype": DATATYPES[a.dtype], "shape": a.shape, "data": a.ravel().tolist()}
            for name, a in for_json(inputs).items()
        ],
        "outputs": [{"name": name} for name in outputs],
    })


def check(rows: Sequence[Row], found: dict[str, np.ndarray], source: str) -> None:
    """Holds all outputs of rows, asked in the form that source names, to what PEFT and transformers answer."""
    width = max(len(row.labels) for row in rows)
    for name, datatype in OUTPUTS.items():
        wide = name in ("logits", "probabilities")
        assert found[name].dtype == DTYPES[datatype], name
        assert found[name].shape == ((len(rows), width) if wide else (len(rows),)), name
    entities = texts(found["entities"]) if "entities" in found else [""] * len(rows)
    revisions = {}
    for i, row in enumerate(rows):
        n = len(row.logits)
        logits, probabilities = found["logits"][i], found["probabilities"][i]
        assert found["num_labels"][i] == n
        _near(logits[:n], row.logits)
        _near(probabilities[:n], softmax(row.logits))
        assert (logits[n:] == LOWEST).all() and (probabilities[n:] == 0).all()
        assert texts(found["label"])[i] == row.label
        assert found["score"][i] == (probabilities.max() if n else 0)
        check_entities(json.loads(entities[i] or "[]"), row.entities if source == "text" else [])
        revisions.setdefault(row.adapter, set()).add(texts(found["revision"])[i])
    assert all(len(of) == 1 and of.pop().startswith("sha256:") for of in revisions.values())


def check_entities(found: list[dict], expected: list[dict]) -> None:
    assert [entity | {"score": None} for entity in found] == [entity | {"score": None} for entity in expected]
    _near(np.array([entity["score"] for entity in found]), np.array([entity["score"] for entity in expected]))


def ranked(row: Row, outputs: dict[str, np.ndarray], i=0, of="probabilities") -> list[tuple[str, np.float32]]:
    """Labels with their scores, best first, of row number i of an answer."""
    scores = outputs[of][i, :len(row.labels)]
    return [(row.labels[n], scores[n]) for n in np.argsort(-scores, kind="stable")]


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits.astype(np.float64) - logits.max(initial=LOWEST))
    return powers / powers.sum()


def _near(found: np.ndarray, expected: np.ndarray) -> None:
    """Within 1e-4 of the largest. test/golden holds all but a few rows, whose terms cancel, to a tenth of that."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max(initial=0))


def same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """Holds outputs to others, to the bit."""
    assert list(found) == list(expected)
    for name, a in expected.items():
        b = found[name]
        assert b.shape == a.shape and b.dtype == a.dtype, name
        assert texts(b) == texts(a) if a.dtype == object else b.tobytes() == a.tobytes(), name


def texts(tensor: np.ndarray) -> list[str]:
    """A tensor of BYTES as str, whichever of the two a client gives."""
    return [value if isinstance(value, str) else value.decode() for value in tensor.flat]
