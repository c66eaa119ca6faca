"""Whom a request that names no model in its path is for: the body's model, else the header, else the Host."""

import pytest
import requests

from samples import own

TEXT = own("section")[0].given["text"]
LABELS = {adapter: sorted(own(adapter)[0].labels) for adapter in ("section", "language", "library")}


@pytest.mark.parametrize("path, body", [
    ("/", {"inputs": TEXT}), ("/predict", {"inputs": TEXT}), ("/classify", {"inputs": TEXT}),
])
@pytest.mark.parametrize("model, header, host, expected", [
    (None, None, "library.demo.svc:8080", "library"),
    (None, None, "library", "library"),
    (None, "language", None, "language"),
    (None, "language", "library.demo.svc", "language"),
    ("section", "language", "library.demo.svc", "section"),
    ("section", None, None, "section"),
], ids=["host", "host alone", "header", "header before host", "body before both", "body"])
def test_precedence(packages, path, body, model, header, host, expected):
    headers = {name: value for name, value in {"Switchyard-Adapter": header, "Host": host}.items() if value}
    response = requests.post(packages.url + path, json=body | ({"model": model} if model else {}), headers=headers)
    assert response.status_code == 200, response.text
    found = response.json()[0] if path == "/" else response.json()
    assert sorted(element["label"] for element in found) == LABELS[expected]


def test_vllm_by_host(packages):
    """A body without a model says in its answer which it was."""
    response = requests.post(f"{packages.url}/v1/classify", json={"input": TEXT}, headers={"Host": "library.demo.svc"})
    found = response.json()
    assert found["model"] == "library"
    assert found["data"][0]["num_classes"] == len(LABELS["library"])


@pytest.mark.parametrize("host", ["packages.demo.svc", "nobody.demo.svc", "127.0.0.1", "[::1]:8080"])
def test_hosts_of_nobody(packages, host):
    """A Host that is no adapter's is the pool's, whose base has no classifier here."""
    response = requests.post(f"{packages.url}/classify", json={"inputs": TEXT}, headers={"Host": host})
    assert response.status_code == 400
    assert "packages" in response.json()["error"]


@pytest.mark.parametrize("headers, body", [
    ({"Switchyard-Adapter": "nobody", "Host": "library.demo.svc"}, {}),
    ({"Host": "library.demo.svc"}, {"model": "nobody"}),
], ids=["header", "body"])
def test_nobody(packages, headers, body):
    """A name that is given is meant: nothing else is asked in its place."""
    response = requests.post(f"{packages.url}/classify", json={"inputs": TEXT} | body, headers=headers)
    assert response.status_code == 404
    assert "nobody" in response.json()["error"]
