"""Triton's own clients, over HTTP and gRPC: the judges of the Open Inference Protocol and of its binary tensors."""

import queue
from collections.abc import Sequence

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

import oip
from mistakes import BINARY_MISTAKES, MISTAKES
from pool import Pool
from samples import rows

SOURCES = [("digits", "image"), ("digits", "pixel_values"), ("packages", "text"), ("packages", "input_ids")]


class Http:
    """tritonclient.http. Inputs and outputs are in binary or in JSON; where no outputs are named it asks for all, in
    binary.
    """

    def __init__(self, pool: Pool, binary_inputs=True, binary_outputs=True):
        self.client = tritonclient.http.InferenceServerClient(pool.http, concurrency=4)
        self.binary_inputs, self.binary_outputs = binary_inputs, binary_outputs

    def infer(self, model: str, inputs: dict[str, np.ndarray], outputs: Sequence[str] = (), **how):
        return self._read(self.client.infer(model, **self._request(inputs, outputs), **how))

    def infer_at_once(self, model: str, several: Sequence[dict[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
        """The answers to several requests that are under way together."""
        sent = [self.client.async_infer(model, **self._request(inputs)) for inputs in several]
        return [self._read(handle.get_result()) for handle in sent]

    def metadata(self, model="", version="") -> dict:
        return self.client.get_model_metadata(model, version) if model else self.client.get_server_metadata()

    def _request(self, inputs: dict[str, np.ndarray], outputs: Sequence[str] = ()) -> dict:
        return dict(
            inputs=[self._input(name, a, self.binary_inputs) for name, a in inputs.items()],
            outputs=[tritonclient.http.InferRequestedOutput(name, self.binary_outputs) for name in outputs],
        )

    @staticmethod
    def _input(name: str, a: np.ndarray, binary: bool):
        a = a if binary else oip.for_json({name: a})[name]
        return tritonclient.http.InferInput(name, a.shape, np_to_triton_dtype(a.dtype)).set_data_from_numpy(a, binary)

    @staticmethod
    def _read(result) -> dict[str, np.ndarray]:
        return {output["name"]: result.as_numpy(output["name"]) for output in result.get_response()["outputs"]}


class Grpc:
    """tritonclient.grpc, likewise. Its tensors are always in binary."""

    def __init__(self, pool: Pool):
        self.client = tritonclient.grpc.InferenceServerClient(pool.grpc)

    def infer(self, model: str, inputs: dict[str, np.ndarray], outputs: Sequence[str] = (), **how):
        return self._read(self.client.infer(model, **self._request(inputs, outputs), **how))

    def infer_at_once(self, model: str, several: Sequence[dict[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
        answered = [queue.SimpleQueue() for _ in several]
        for inputs, own in zip(several, answered):
            self.client.async_infer(model, callback=lambda result, error, own=own: own.put((result, error)),
                                    **self._request(inputs))
        found = [own.get() for own in answered]
        assert not [error for _, error in found if error]
        return [self._read(result) for result, _ in found]

    def metadata(self, model="", version="") -> dict:
        if not model:
            return self.client.get_server_metadata(as_json=True)
        found = self.client.get_model_metadata(model, version, as_json=True)
        for tensor in found["inputs"] + found["outputs"]:
            tensor["shape"] = [int(size) for size in tensor["shape"]]  # JSON of protobuf has 64 bits as strings
        return found

    @staticmethod
    def _request(inputs: dict[str, np.ndarray], outputs: Sequence[str] = ()) -> dict:
        return dict(
            inputs=[
                tritonclient.grpc.InferInput(name, a.shape, np_to_triton_dtype(a.dtype)).set_data_from_numpy(a)
                for name, a in inputs.items()
            ],
            outputs=[tritonclient.grpc.InferRequestedOutput(name) for name in outputs],
        )

    @staticmethod
    def _read(result) -> dict[str, np.ndarray]:
        return {output.name: result.as_numpy(output.name) for output in result.get_response().outputs}


both = pytest.mark.parametrize("connect", [Http, Grpc])


@both
def test_server(pool, connect):
    client = connect(pool)
    assert client.client.is_server_live() and client.client.is_server_ready()
    for model in [pool.name, *pool.adapters]:
        assert client.client.is_model_ready(model)
    found = client.metadata()
    assert found["name"] == "switchyard" and found["version"]
    assert "binary_tensor_data" in found["extensions"]


@both
def test_model_metadata(pool, connect):
    """A model names all that it takes and gives; a pool takes the adapter of each row beside it."""
    client = connect(pool)
    takes = {
        "digits": {"image": ("BYTES", [-1]), "pixel_values": ("FP32", [-1, 3, 32, 32])},
        "packages": {
            "text": ("BYTES", [-1]), "text_pair": ("BYTES", [-1]), "input_ids": ("INT64", [-1, -1]),
            "attention_mask": ("INT64", [-1, -1]), "token_type_ids": ("INT64", [-1, -1]),
        },
    }[pool.name]
    for model in [pool.name, *pool.adapters]:
        found = client.metadata(model)
        inputs = {t["name"]: (t["datatype"], t["shape"]) for t in found["inputs"]}
        assert (inputs.pop("adapter", None) is not None) == (model == pool.name)
        assert inputs == takes
        outputs = {t["name"]: t["datatype"] for t in found["outputs"]}
        tokens = {"entities": "BYTES", "token_logits": "FP32", "token_offsets": "INT32"}
        assert outputs == oip.OUTPUTS | tokens
        [version] = found["versions"]
        assert found["name"] == model and version.startswith("sha256:")
        assert client.metadata(model, version)["versions"] == [version]
        assert client.client.is_model_ready(model, version)


WAYS = {
    "binary": Http,
    "JSON to binary": lambda pool: Http(pool, binary_inputs=False),
    "binary to JSON": lambda pool: Http(pool, binary_outputs=False),
    "JSON": lambda pool: Http(pool, binary_inputs=False, binary_outputs=False),
    "gRPC": Grpc,
}


@pytest.mark.parametrize("sample, source", SOURCES)
@pytest.mark.parametrize("way", WAYS)
def test_mixed_batch(request, way, sample, source):
    """Rows of every adapter in one batch, whatever brings them: PEFT's answers, and the same bits."""
    pool = request.getfixturevalue(sample)
    inputs = oip.tensors(rows(sample), source)
    expected = oip.ask(pool, sample, inputs)
    found = WAYS[way](pool).infer(sample, inputs, outputs=list(expected) if "JSON" in way else ())
    oip.check(rows(sample), found, source)
    oip.same(found, expected)


def test_binary_beside_json(packages):
    """Each input and each output of one request chooses for itself."""
    inputs = oip.tensors(rows("packages"), "text")
    answer = Http(packages).client.infer(
        "packages",
        [Http._input(name, a, binary=name == "text") for name, a in inputs.items()],
        outputs=[
            tritonclient.http.InferRequestedOutput(name, binary_data=name == "logits") for name in ("label", "logits")
        ],
    )
    in_json = [output["name"] for output in answer.get_response()["outputs"] if "data" in output]
    assert in_json == ["label"]
    oip.same(Http._read(answer), oip.ask(packages, "packages", inputs, ("label", "logits")))


@both
def test_chosen_outputs(packages, connect):
    """Only what is asked for; what is large only then."""
    client = connect(packages)
    [row] = [row for row in rows("packages") if row.entities][:1]
    found = client.infer("versions", oip.given([row], "text"), ("token_offsets", "entities", "token_logits"))
    assert set(found) == {"token_offsets", "entities", "token_logits"}
    np.testing.assert_allclose(found["token_logits"][0], row.token_logits, atol=1e-4 * np.abs(row.token_logits).max())
    [entity] = row.entities
    assert [entity["start"], entity["end"]] in found["token_offsets"][0].tolist()
    oip.same(found, oip.ask(packages, "versions", oip.given([row], "text"), list(found)))


@both
def test_adapter_is_a_model(pool, connect):
    """By its name, and by its revision."""
    client = connect(pool)
    source = {"digits": "image", "packages": "text"}[pool.name]
    for adapter in pool.adapters:
        own = [row for row in rows(pool.name) if row.adapter == adapter]
        found = client.infer(adapter, oip.given(own, source))
        oip.check(own, found, source)
        oip.same(client.infer(adapter, oip.given(own, source), model_version=oip.texts(found["revision"])[0]), found)


@both
def test_fan_out(pool, connect):
    """K adapters of each of B inputs: B·K rows, those of an input side by side."""
    source = {"digits": "pixel_values", "packages": "input_ids"}[pool.name]
    inputs = oip.given(rows(pool.name)[:4], source)
    adapters = oip.objects([pool.adapters] * 4)
    repeated = {name: a.repeat(len(pool.adapters), axis=0) for name, a in inputs.items()}
    found = connect(pool).infer(pool.name, inputs | {"adapter": adapters})
    oip.same(found, oip.ask(pool, pool.name, repeated | {"adapter": adapters.ravel()}))


@both
def test_pairs(packages, connect):
    """A pair of texts is the ids of both, the second with type 1."""
    first, second = rows("packages")[0], rows("packages")[1]
    tokens = [first.given["input_ids"], second.given["input_ids"][1:]]  # without the second's [CLS]
    ids = {
        "input_ids": np.concatenate(tokens)[None],
        "token_type_ids": np.concatenate([np.full_like(ids, kind) for kind, ids in enumerate(tokens)])[None],
    }
    pair = {"text": oip.objects([first.given["text"]]), "text_pair": oip.objects([second.given["text"]])}
    client = connect(packages)
    oip.same(client.infer("section", pair), oip.ask(packages, "section", ids))


@both
def test_requests_in_flight(pool, connect):
    """Many at once, one row each: everyone's answer is its own, and to the bit what it is alone."""
    source = {"digits": "image", "packages": "text"}[pool.name]
    several = [oip.tensors([row], source) for row in rows(pool.name)]
    for row, inputs, found in zip(rows(pool.name), several, connect(pool).infer_at_once(pool.name, several)):
        oip.check([row], found, source)
        oip.same(found, oip.ask(pool, pool.name, inputs))


@both
def test_id_comes_back(digits, connect):
    client = connect(digits)
    answer = client.client.infer("parity", **client._request(oip.given(rows("digits")[:1], "image")), request_id="mine")
    response = answer.get_response()
    assert (response.id if connect is Grpc else response["id"]) == "mine"


@both
@pytest.mark.parametrize("how, parameter", [
    (dict(priority=1), "priority"), (dict(sequence_id=7), "sequence_"),
    (dict(parameters={"temperature": 0.5}), "temperature"),
])
def test_parameters_are_not_ignored(digits, connect, how, parameter):
    """What would have no effect is refused by its name."""
    with pytest.raises(InferenceServerException, match=parameter) as refused:
        connect(digits).infer("parity", oip.given(rows("digits")[:1], "image"), **how)
    assert refused.value.status() == ("StatusCode.INVALID_ARGUMENT" if connect is Grpc else "400")


def test_compression(digits):
    """Compressed requests are taken or refused as such, and compressed answers are read."""
    inputs = oip.tensors(rows("digits"), "pixel_values")
    expected = oip.ask(digits, "digits", inputs)
    for algorithm in ("gzip", "deflate"):
        oip.same(Http(digits).infer("digits", inputs, response_compression_algorithm=algorithm), expected)
        with pytest.raises(InferenceServerException, match=algorithm) as refused:
            Http(digits).infer("digits", inputs, request_compression_algorithm=algorithm)
        assert refused.value.status() == "415"
    oip.same(Grpc(digits).infer("digits", inputs, compression_algorithm="gzip"), expected)


@both
def test_too_large(packages, connect):
    with pytest.raises(InferenceServerException) as refused:
        connect(packages).infer("section", {"text": oip.objects(["x" * (65 << 20)])})
    assert refused.value.status() == ("StatusCode.RESOURCE_EXHAUSTED" if connect is Grpc else "413")
    assert str(64 << 20) in refused.value.message()


def test_deadline(packages):
    """A millisecond is over before the last of 256 rows."""
    [text] = oip.given(rows("packages")[:1], "text").values()
    with pytest.raises(InferenceServerException, match="deadline") as late:
        Http(packages).infer("section", {"text": text.repeat(256)}, headers={"Switchyard-Timeout-Ms": "1"})
    assert late.value.status() == "504"


@both
@pytest.mark.parametrize("mistake", MISTAKES + BINARY_MISTAKES, ids=lambda mistake: mistake.name)
def test_mistakes(request, connect, mistake):
    client = connect(request.getfixturevalue(mistake.sample))
    with pytest.raises(InferenceServerException) as refused:
        client.infer(mistake.model, mistake.inputs, mistake.outputs, model_version=mistake.version)
    assert refused.value.status() == (f"StatusCode.{mistake.code}" if connect is Grpc else str(mistake.status))
    for word in mistake.words:
        assert word in refused.value.message()
