"""What tools learn from a gRPC server itself: reflection, as grpcurl uses it, and its health."""

import struct

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from samples import own

SERVICE = "inference.GRPCInferenceService"


@pytest.fixture
def channel(packages):
    with grpc.insecure_channel(packages.grpc) as channel:
        yield channel


def test_services(channel):
    found = set(ProtoReflectionDescriptorDatabase(channel).get_services())
    assert {SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"} <= found


def test_call_by_reflection(packages, channel):
    """A request made of nothing but what the server says of itself, in typed lists; answers are always in binary."""
    service = DescriptorPool(ProtoReflectionDescriptorDatabase(channel)).FindServiceByName(SERVICE)
    methods = {method.name: method for method in service.methods}
    assert set(methods) == {"ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer"}
    request = GetMessageClass(methods["ModelInfer"].input_type)
    response = GetMessageClass(methods["ModelInfer"].output_type)
    assert {field.name: field.number for field in request.DESCRIPTOR.fields} == {
        "model_name": 1, "model_version": 2, "id": 3, "parameters": 4, "inputs": 5, "outputs": 6,
        "raw_input_contents": 7,
    }
    assert {field.name: field.number for field in response.DESCRIPTOR.fields} == {
        "model_name": 1, "model_version": 2, "id": 3, "parameters": 4, "outputs": 5, "raw_output_contents": 6,
    }
    row = own("section")[0]
    infer = channel.unary_unary(
        f"/{SERVICE}/ModelInfer",
        request_serializer=request.SerializeToString, response_deserializer=response.FromString,
    )
    text = {"bytes_contents": [row.given["text"].encode()]}
    found = infer(request(
        model_name="section", inputs=[{"name": "text", "datatype": "BYTES", "shape": [1], "contents": text}],
        outputs=[{"name": "num_labels"}, {"name": "label"}],
    ))
    assert (found.model_name, [output.name for output in found.outputs]) == ("section", ["num_labels", "label"])
    count, label = found.raw_output_contents
    assert count == struct.pack("<i", len(row.labels))
    assert label == struct.pack("<I", len(row.label)) + row.label.encode()


def test_unknown_symbol(channel):
    with pytest.raises(KeyError):
        ProtoReflectionDescriptorDatabase(channel).FindFileContainingSymbol("inference.Nobody")


def test_health(channel):
    stub = health_pb2_grpc.HealthStub(channel)
    serving = health_pb2.HealthCheckResponse(status="SERVING")
    for service in ("", SERVICE):
        assert stub.Check(health_pb2.HealthCheckRequest(service=service)) == serving
        watched = stub.Watch(health_pb2.HealthCheckRequest(service=service))
        assert next(watched) == serving
        watched.cancel()
    with pytest.raises(grpc.RpcError) as refused:
        stub.Check(health_pb2.HealthCheckRequest(service="nobody"))
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND


def test_unknown_method(channel):
    with pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary(f"/{SERVICE}/ModelConfig")(b"")
    assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED
