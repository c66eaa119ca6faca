"""/predict, as text-embeddings-inference has it: its clients are people's own HTTP requests."""

import numpy as np
import pytest
import requests

import oip
from pool import Pool
from samples import own


def predict(pool: Pool, adapter: str, inputs, **how):
    response = requests.post(
        f"{pool.url}/predict", json={"inputs": inputs, **how}, headers={"Switchyard-Adapter": adapter})
    assert response.status_code == 200, response.text
    return response.json()


def scores(predictions: list[dict]) -> list[tuple[str, np.float32]]:
    assert all(p.keys() == {"label", "score"} for p in predictions)
    return [(p["label"], np.float32(p["score"])) for p in predictions]


def test_text(packages):
    """Every label, best first; a list of one string is that string."""
    for row in own("section"):
        expected = oip.ranked(row, oip.ask(packages, "section", oip.given([row], "text")))
        assert expected[0][0] == row.label
        assert scores(predict(packages, "section", row.given["text"])) == expected
        assert scores(predict(packages, "section", [row.given["text"]], truncate=True)) == expected


def test_pairs_and_batches(packages):
    """A list of two strings is a pair; a list of lists is a batch, of either kind."""
    first, second, *_ = own("library")
    a, b = first.given["text"], second.given["text"]
    alone = oip.ranked(first, oip.ask(packages, "library", {"text": oip.objects([a])}))
    pair = oip.ranked(first, oip.ask(packages, "library", {"text": oip.objects([a]), "text_pair": oip.objects([b])}))
    assert scores(predict(packages, "library", [a, b])) == pair
    assert [scores(of) for of in predict(packages, "library", [[a], [a, b], [a]])] == [alone, pair, alone]


def test_raw_scores(packages):
    """Logits."""
    row = own("language")[0]
    expected = oip.ranked(row, oip.ask(packages, "language", oip.given([row], "text")), of="logits")
    assert scores(predict(packages, "language", row.given["text"], raw_scores=True)) == expected


@pytest.mark.parametrize("inputs", [[], ["a", "b", "c"], [["a", "b", "c"]], [[]], [["a"], "b"], 3, None], ids=str)
def test_mistakes(packages, inputs):
    response = requests.post(
        f"{packages.url}/predict", json={"inputs": inputs}, headers={"Switchyard-Adapter": "section"})
    assert response.status_code == 400, response.text
    assert "inputs" in response.json()["error"]
