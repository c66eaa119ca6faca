"""V1 predict, as people write it for curl. KServe's client speaks it in test_kserve.py."""

import base64

import numpy as np
import pytest
import requests

import oip
from pool import Pool
from samples import Row, rows


def predict(pool: Pool, model: str, instances: list[dict]) -> list[dict]:
    response = requests.post(f"{pool.url}/v1/models/{model}:predict", json={"instances": instances})
    assert response.status_code == 200, response.text
    assert list(response.json()) == ["predictions"]
    return response.json()["predictions"]


def instance(row: Row) -> dict:
    if "text" in row.given:
        return {"text": row.given["text"]}
    return {"image": {"b64": base64.b64encode(row.given["image"]).decode()}}


def check(row: Row, found: dict, outputs: dict[str, np.ndarray], i: int) -> None:
    """Holds a prediction to row number i of what the protocol's tensors say."""
    if row.token_logits is not None:
        oip.check_entities(found["entities"], row.entities)
        return
    assert found["label"] == row.label
    assert np.float32(found["score"]) == outputs["score"][i]
    assert {label: np.float32(p) for label, p in found["probabilities"].items()} == dict(oip.ranked(row, outputs, i))


def test_mixed_instances(pool):
    source = {"digits": "image", "packages": "text"}[pool.name]
    expected = oip.ask(pool, pool.name, oip.tensors(rows(pool.name), source))
    found = predict(pool, pool.name, [instance(row) | {"adapter": row.adapter} for row in rows(pool.name)])
    assert len(found) == len(rows(pool.name))
    for i, row in enumerate(rows(pool.name)):
        check(row, found[i], expected, i)
        assert found[i]["adapter"] == (row.adapter or pool.name)


def test_adapter_is_a_model(pool):
    for adapter in pool.adapters:
        [row, *_] = [row for row in rows(pool.name) if row.adapter == adapter]
        source = {"digits": "image", "packages": "text"}[pool.name]
        [found] = predict(pool, adapter, [instance(row)])
        check(row, found, oip.ask(pool, adapter, oip.given([row], source)), 0)
        assert found["adapter"] == adapter


def test_fan_out(packages):
    adapters = ["library", "section"]
    row = rows("packages")[0]
    found = predict(packages, "packages", [instance(row) | {"adapter": adapters}])
    alone = [predict(packages, adapter, [instance(row)]) for adapter in adapters]
    assert found == [prediction for predictions in alone for prediction in predictions]


def test_models(pool):
    names = [pool.name, *pool.adapters]
    assert requests.get(f"{pool.url}/v1/models").json()["models"] == names
    for name in names:
        found = requests.get(f"{pool.url}/v1/models/{name}").json()
        assert (found["name"], found["ready"]) == (name, True)


@pytest.mark.parametrize("model, body, status, words", [
    ("nobody", {"instances": [{"text": "x"}]}, 404, ["nobody"]),
    ("packages", {"instances": [{"text": "x", "adapter": "section"}, {"text": "x", "adapter": "nobody"}]}, 404,
     ["1", "nobody"]),
    ("section", {"instances": [{"text": "x"}, {"words": "x"}]}, 400, ["1", "words"]),
    ("section", {"instances": [{"text": "x"}, {"text": 3}]}, 400, ["1", "text"]),
    ("section", {"instances": []}, 400, ["instances"]),
    ("section", {"inputs": ["x"]}, 400, ["inputs"]),
    ("section", {"instances": [{"text": "x", "adapter": "library"}]}, 400, ["adapter"]),
], ids=["model", "adapter", "member", "type", "empty", "no instances", "an adapter's adapter"])
def test_mistakes(packages, model, body, status, words):
    response = requests.post(f"{packages.url}/v1/models/{model}:predict", json=body)
    assert response.status_code == status, response.text
    for word in words:
        assert word in response.json()["error"]
