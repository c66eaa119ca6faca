"""The protocol in JSON, by the plainest client: what all others are held to is itself held to PEFT."""

import pytest

import oip
from mistakes import MISTAKES
from samples import rows


@pytest.mark.parametrize("sample, source", [
    ("digits", "image"), ("digits", "pixel_values"), ("packages", "text"), ("packages", "input_ids"),
])
def test_mixed_batch(request, sample, source):
    pool = request.getfixturevalue(sample)
    oip.check(rows(sample), oip.ask(pool, sample, oip.tensors(rows(sample), source)), source)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_mistakes(request, mistake):
    pool = request.getfixturevalue(mistake.sample)
    model = f"{mistake.model}/versions/{mistake.version}" if mistake.version else mistake.model
    response = oip.post(pool, model, mistake.inputs, mistake.outputs)
    assert response.status_code == mistake.status
    assert response.headers["Content-Type"] == "application/json"
    assert list(response.json()) == ["error"]
    for word in mistake.words:
        assert word in response.json()["error"]
