"""KServe's own client of V2, over HTTP and gRPC, and of V1. It is run by itself: no process can have tritonclient's
messages, too.
"""

import asyncio
import base64
from collections.abc import Awaitable, Callable

import grpc
import httpx
import numpy as np
import pytest
from kserve import InferInput, InferRequest, InferResponse, InferenceGRPCClient, InferenceRESTClient, RESTConfig
from kserve.protocol.infer_type import RequestedOutput
from kserve.utils.numpy_codec import from_np_dtype

import oip
from mistakes import MISTAKES
from pool import Pool
from samples import own, rows

SOURCES = [("digits", "image"), ("digits", "pixel_values"), ("packages", "text"), ("packages", "input_ids")]


def rest(protocol: str, ask: Callable[[InferenceRESTClient], Awaitable]):
    """What ask has of a client."""
    async def run():
        config = RESTConfig(protocol=protocol, verify=False)  # which else reads all certificates there are
        async with InferenceRESTClient(config) as client:
            return await ask(client)
    return asyncio.run(run())


def over_grpc(pool: Pool, ask: Callable[[InferenceGRPCClient], Awaitable]):
    async def run():
        async with InferenceGRPCClient(pool.grpc) as client:
            return await ask(client)
    return asyncio.run(run())


def infer_rest(pool: Pool, request: InferRequest) -> InferResponse:
    return rest("v2", lambda client: client.infer(pool.url, request, model_name=request.model_name))


def infer_grpc(pool: Pool, request: InferRequest) -> InferResponse:
    return over_grpc(pool, lambda client: client.infer(request))


def in_lists(model: str, inputs: dict[str, np.ndarray], **how) -> InferRequest:
    """Tensors as lists: in JSON, or in the typed fields of gRPC."""
    return InferRequest(model, [
        InferInput(name, list(a.shape), from_np_dtype(a.dtype), a.ravel().tolist()) for name, a in inputs.items()
    ], **how)


def in_binary(model: str, inputs: dict[str, np.ndarray], **how) -> InferRequest:
    tensors = [InferInput(name, list(a.shape), from_np_dtype(a.dtype)) for name, a in inputs.items()]
    for tensor, a in zip(tensors, inputs.values()):
        tensor.set_data_from_numpy(a, binary_data=True)
    return InferRequest(model, tensors, **how)


def read(response: InferResponse) -> dict[str, np.ndarray]:
    return {output.name: output.as_numpy() for output in response.outputs}


WAYS = {
    "JSON": lambda pool, model, inputs, **how: infer_rest(pool, in_lists(model, oip.for_json(inputs), **how)),
    "binary to JSON": lambda pool, model, inputs, **how: infer_rest(pool, in_binary(model, inputs, **how)),
    "binary": lambda pool, model, inputs, **how: infer_rest(
        pool, in_binary(model, inputs, parameters={"binary_data_output": True}, **how)),
    "gRPC in lists": lambda pool, model, inputs, **how: infer_grpc(pool, in_lists(model, inputs, **how)),
    "gRPC": lambda pool, model, inputs, **how: infer_grpc(pool, in_binary(model, inputs, **how)),
}


@pytest.mark.parametrize("sample, source", SOURCES)
@pytest.mark.parametrize("way", WAYS)
def test_mixed_batch(request, way, sample, source):
    pool = request.getfixturevalue(sample)
    inputs = oip.tensors(rows(sample), source)
    found = read(WAYS[way](pool, sample, inputs))
    oip.check(rows(sample), found, source)
    oip.same(found, oip.ask(pool, sample, inputs))


@pytest.mark.parametrize("way", WAYS)
def test_chosen_outputs(packages, way):
    inputs = oip.given(own("section"), "text")
    response = WAYS[way](packages, "section", inputs, request_id="mine",
                         request_outputs=[RequestedOutput("score"), RequestedOutput("label")])
    assert (response.id, response.model_name) == ("mine", "section")
    oip.same(read(response), oip.ask(packages, "section", inputs, ("score", "label")))


def test_ready(pool):
    names = [pool.name, *pool.adapters]
    assert rest("v2", lambda client: client.is_server_live(pool.url))
    assert rest("v2", lambda client: client.is_server_ready(pool.url))
    assert rest("v1", lambda client: client.is_server_live(pool.url))
    assert over_grpc(pool, lambda client: client.is_server_live())
    assert over_grpc(pool, lambda client: client.is_server_ready())
    for name in names:
        assert rest("v2", lambda client: client.is_model_ready(pool.url, name))
        assert rest("v1", lambda client: client.is_model_ready(pool.url, name))
        assert over_grpc(pool, lambda client: client.is_model_ready(name))


def test_not_ready(pool):
    assert not rest("v2", lambda client: client.is_model_ready(pool.url, "nobody"))
    with pytest.raises(httpx.HTTPStatusError, match="nobody"):
        rest("v1", lambda client: client.is_model_ready(pool.url, "nobody"))
    with pytest.raises(grpc.RpcError) as refused:
        over_grpc(pool, lambda client: client.is_model_ready("nobody"))
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("adapter", ["digit", "parity", "holes"])
def test_predict(digits, adapter):
    of = own(adapter)
    instances = [{"image": {"b64": base64.b64encode(row.given["image"]).decode()}} for row in of]
    found = rest("v1", lambda client: client.infer(digits.url, {"instances": instances}, model_name=adapter))
    expected = oip.ask(digits, adapter, oip.given(of, "image"))
    for i, (row, prediction) in enumerate(zip(of, found["predictions"], strict=True)):
        assert (prediction["adapter"], prediction["label"]) == (adapter, row.label)
        assert np.float32(prediction["score"]) == expected["score"][i]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("mistake", [m for m in MISTAKES if not m.version], ids=lambda mistake: mistake.name)
def test_mistakes(request, way, mistake):
    pool = request.getfixturevalue(mistake.sample)
    with pytest.raises((httpx.HTTPStatusError, grpc.RpcError)) as refused:
        WAYS[way](pool, mistake.model, mistake.inputs,
                  request_outputs=[RequestedOutput(name) for name in mistake.outputs])
    if isinstance(refused.value, grpc.RpcError):
        assert refused.value.code().name == mistake.code
        message = refused.value.details()
    else:
        assert refused.value.response.status_code == mistake.status
        message = str(refused.value)
    for word in mistake.words:
        assert word in message
