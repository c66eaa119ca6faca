"""schemathesis: each operation of the OpenAPI document does what the document says, whatever is sent to it."""

import subprocess
import sys
from pathlib import Path

import requests

CONFIG = Path(__file__).with_name("schemathesis.toml")
PATHS = {
    "/", "/predict", "/classify", "/v1/classify", "/v1/models", "/v1/models/{model}", "/v1/models/{model}:predict",
    "/v2", "/v2/health/live", "/v2/health/ready", "/v2/models", "/v2/models/{model}", "/v2/models/{model}/ready",
    "/v2/models/{model}/infer", "/v2/models/{model}/versions/{version}", "/v2/models/{model}/versions/{version}/ready",
    "/v2/models/{model}/versions/{version}/infer",
}


def test_document(pool):
    document = requests.get(f"{pool.url}/openapi.json").json()
    assert document["openapi"].startswith("3.1.")
    assert PATHS <= document["paths"].keys()


def test_operations(pool, tmp_path):
    run = subprocess.run(
        [
            Path(sys.executable).with_name("schemathesis"), "--config-file", CONFIG, "run", f"{pool.url}/openapi.json",
            "--no-color", "--phases=examples,coverage,fuzzing", "--max-examples=50", "--generation-deterministic",
            # No schema can say that a tensor has as many values as its shape: what it lets through may be refused.
            "--exclude-checks=positive_data_acceptance",
        ],
        cwd=tmp_path, capture_output=True, text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
