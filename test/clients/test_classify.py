"""/classify in its two shapes: with "inputs" as HuggingFace's pipeline answers, which vLLM's Semantic Router wants, and
with "input" as vLLM and SGLang answer.
"""

import time

import numpy as np
import pytest
import requests

import oip
from pool import Pool
from samples import own

TEXTS = ["section", "language", "library"]  # classifiers of texts


def classify(pool: Pool, body: dict, path="/classify", **headers):
    response = requests.post(pool.url + path, json=body, headers=headers)
    assert response.status_code == 200, response.text
    return response.json()


def scores(found: list[dict]) -> list[tuple[str, np.float32]]:
    assert all(element.keys() == {"label", "score"} for element in found)
    return [(element["label"], np.float32(element["score"])) for element in found]


@pytest.mark.parametrize("adapter", TEXTS)
def test_inputs(packages, adapter):
    """One text has a flat list, of every label; several have a list of such lists, and two are no pair."""
    of = own(adapter)
    outputs = oip.ask(packages, adapter, oip.given(of, "text"))
    expected = [oip.ranked(row, outputs, i) for i, row in enumerate(of)]
    texts = [row.given["text"] for row in of]
    header = {"Switchyard-Adapter": adapter}
    assert scores(classify(packages, {"inputs": texts[0]}, **header)) == expected[0]
    for n in (1, 2, len(texts)):
        found = classify(packages, {"inputs": texts[:n]}, **header)
        assert [scores(of_one) for of_one in found] == expected[:n]


@pytest.mark.parametrize("adapter", TEXTS)
def test_semantic_router(packages, adapter):
    """Its request, in which nothing but the address tells the classifier, and all that it demands of the answer."""
    for row in own(adapter):
        response = requests.post(f"{packages.url}/classify", json={"inputs": row.given["text"]}, headers={
            "Accept": "application/json", "Authorization": "Bearer any", "Host": f"{adapter}.demo.svc:8080",
        })
        assert 200 <= response.status_code < 300
        found = response.json()
        assert sorted(element["label"] for element in found) == sorted(row.labels)
        assert all(0 <= element["score"] <= 1 for element in found)
        assert abs(sum(np.float32(element["score"]) for element in found) - 1) <= 0.02
        assert max(found, key=lambda element: element["score"])["label"] == row.label


@pytest.mark.parametrize("path", ["/classify", "/v1/classify"])
@pytest.mark.parametrize("adapter", TEXTS)
def test_input(packages, path, adapter):
    """As vLLM: probabilities in the order of the labels, and how many tokens were read."""
    of = own(adapter)
    outputs = oip.ask(packages, adapter, oip.given(of, "text"))
    for n in (None, 1, len(of)):
        asked = of[:n or 1]
        texts = [row.given["text"] for row in asked]
        began = int(time.time())
        found = classify(packages, {"model": adapter, "input": texts if n else texts[0]}, path)
        assert (found["object"], found["model"]) == ("list", adapter)
        assert found["id"].startswith("classify-") and began <= found["created"] <= time.time()
        tokens = sum(len(row.given["input_ids"]) for row in asked)
        assert (found["usage"]["prompt_tokens"], found["usage"]["total_tokens"]) == (tokens, tokens)
        assert found["usage"].get("completion_tokens", 0) == 0
        assert [element["index"] for element in found["data"]] == list(range(len(asked)))
        for i, (row, element) in enumerate(zip(asked, found["data"])):
            assert (element["label"], element["num_classes"]) == (row.label, len(row.labels))
            assert np.array(element["probs"], np.float32).tobytes() == outputs["probabilities"][i].tobytes()


def test_ids_differ(packages):
    asked = [classify(packages, {"model": "section", "input": "x"})["id"] for _ in range(3)]
    assert len(set(asked)) == 3


@pytest.mark.parametrize("body, status, words", [
    ({"model": "nobody", "input": "x"}, 404, ["nobody"]),
    ({"model": "versions", "input": "x"}, 400, ["versions", "token"]),
    ({"model": "section", "input": []}, 400, ["input"]),
    ({"model": "section", "input": ["x", 3]}, 400, ["input", "1"]),
    ({"model": "section"}, 400, ["input"]),
    ({"model": "section", "input": "x", "inputs": "x"}, 400, ["input", "inputs"]),
    ({"input": "x"}, 400, ["packages", "classifier"]),
], ids=["model", "tokens", "empty", "type", "none", "both", "no model"])
def test_mistakes(packages, body, status, words):
    response = requests.post(f"{packages.url}/classify", json=body)
    assert response.status_code == status, response.text
    for word in words:
        assert word in response.json()["error"]
