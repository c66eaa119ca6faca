"""huggingface_hub's InferenceClient, which posts to / and knows of one model: the adapter is a header's."""

import numpy as np
import pytest
import requests
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError

import oip
from pool import Pool
from samples import own

ENTITY = ("entity_group", "score", "word", "start", "end")


def connect(pool: Pool, adapter: str) -> InferenceClient:
    return InferenceClient(model=pool.url, headers={"Switchyard-Adapter": adapter})


def scores(found) -> list[tuple[str, np.float32]]:
    return [(element.label, np.float32(element.score)) for element in found]


@pytest.mark.parametrize("adapter", ["section", "language", "library"])
def test_text_classification(packages, adapter):
    """Every label, best first, to the bit what the protocol's tensors say; or the best few."""
    client = connect(packages, adapter)
    for row in own(adapter):
        expected = oip.ranked(row, oip.ask(packages, adapter, oip.given([row], "text")))
        assert expected[0][0] == row.label
        assert scores(client.text_classification(row.given["text"])) == expected
        assert scores(client.text_classification(row.given["text"], top_k=2)) == expected[:2]


def test_function_to_apply(packages):
    client = connect(packages, "section")
    for row in own("section"):
        outputs = oip.ask(packages, "section", oip.given([row], "text"))
        found = client.text_classification(row.given["text"], function_to_apply="none")
        assert scores(found) == oip.ranked(row, outputs, of="logits")
        found = client.text_classification(row.given["text"], function_to_apply="softmax")
        assert scores(found) == oip.ranked(row, outputs)
        of_each = dict(scores(client.text_classification(row.given["text"], function_to_apply="sigmoid")))
        expected = 1 / (1 + np.exp(-outputs["logits"][0].astype(np.float64)))
        np.testing.assert_allclose([of_each[label] for label in row.labels], expected, rtol=1e-6)


def test_token_classification(packages):
    client = connect(packages, "versions")
    for row in own("versions"):
        found = client.token_classification(row.given["text"])
        oip.check_entities([{name: element[name] for name in ENTITY} for element in found], row.entities)
        assert client.token_classification(row.given["text"], aggregation_strategy="simple") == found


@pytest.mark.parametrize("adapter", ["section", "versions"])
def test_batches(packages, adapter):
    """A list of texts, which this client does not send but others do, has a list of answers."""
    def ask(inputs):
        return requests.post(packages.url, json={"inputs": inputs}, headers={"Switchyard-Adapter": adapter}).json()
    asked = [row.given["text"] for row in own(adapter)]
    alone = [ask(text) for text in asked]  # of a classifier of texts, a list of one list
    assert ask(asked) == (alone if adapter == "versions" else [answer for [answer] in alone])


@pytest.mark.parametrize("adapter", ["digit", "parity", "holes"])
def test_image_classification(digits, adapter):
    """The client sends an image as it is, but in JSON where it also sends parameters."""
    client = connect(digits, adapter)
    for row in own(adapter):
        expected = oip.ranked(row, oip.ask(digits, adapter, oip.given([row], "image")))
        assert expected[0][0] == row.label
        assert scores(client.image_classification(row.given["image"])) == expected
        assert scores(client.image_classification(row.given["image"], top_k=2)) == expected[:2]


@pytest.mark.parametrize("sample, adapter, ask, status, words", [
    ("packages", "nobody", lambda client: client.text_classification("x"), 404, ("nobody",)),
    ("packages", "packages", lambda client: client.text_classification("x"), 400, ("packages", "classifier")),
    ("packages", "section", lambda client: client.text_classification("x", top_k=0), 400, ("top_k",)),
    ("digits", "parity", lambda client: client.image_classification(b"x", top_k=2), 422, ("image",)),
    ("digits", "parity", lambda client: client.image_classification(b"x"), 422, ("image",)),
    ("packages", "versions", lambda client: client.token_classification("x", aggregation_strategy="max"), 400,
     ("aggregation_strategy", "max")),
    ("packages", "versions", lambda client: client.token_classification("x", stride=3), 400, ("stride",)),
], ids=["adapter", "base", "top_k", "image in JSON", "image", "aggregation_strategy", "stride"])
def test_mistakes(request, sample, adapter, ask, status, words):
    with pytest.raises(HfHubHTTPError) as refused:
        ask(connect(request.getfixturevalue(sample), adapter))
    assert refused.value.response.status_code == status
    for word in words:
        assert word in refused.value.response.json()["error"]
