"""The schemas are those of the clients, in a pool of their own, and raw tensors pass protobuf by."""

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import model_config_pb2, service_pb2

from locex_inference.grpc.messages import POOL, ModelInferRequest, ModelInferResponse, message
from locex_inference.grpc.schema import read_schema
from locex_inference.grpc.wire import join, split


def fields(descriptor):
    return {
        field.name: (
            field.number,
            field.type,
            field.is_repeated,
            field.message_type and field.message_type.full_name,
            field.enum_type and field.enum_type.full_name,
            field.containing_oneof and field.containing_oneof.name,
        )
        for field in descriptor.fields
    }


def nested(descriptors):
    for descriptor in descriptors:
        yield descriptor
        yield from nested(descriptor.nested_types)


def test_every_message_of_the_protocol_is_that_of_tritonclient():
    theirs = {each.full_name: each for each in nested(service_pb2.DESCRIPTOR.message_types_by_name.values())}
    for name, descriptor in theirs.items():
        assert fields(POOL.FindMessageTypeByName(name)) == fields(descriptor), name


def test_the_configuration_is_a_part_of_that_of_tritonclient():
    ours = POOL.FindFileByName("model_config.proto")
    theirs = {each.full_name: each for each in nested(model_config_pb2.DESCRIPTOR.message_types_by_name.values())}
    for descriptor in nested(ours.message_types_by_name.values()):
        assert fields(descriptor).items() <= fields(theirs[descriptor.full_name]).items()
    kinds = {value.name: value.number for value in ours.enum_types_by_name["DataType"].values}
    assert kinds == dict(model_config_pb2.DataType.items())


def test_every_method_of_the_protocol_is_that_of_tritonclient():
    def methods(service):
        return {
            each.name: (
                each.input_type.full_name,
                each.output_type.full_name,
                each.client_streaming,
                each.server_streaming,
            )
            for each in service.methods
        }

    [theirs] = service_pb2.DESCRIPTOR.services_by_name.values()
    ours = methods(POOL.FindServiceByName(theirs.full_name))
    assert ours == methods(theirs)
    assert len(ours) == 20


def test_nothing_is_registered_in_the_common_pool():
    common = descriptor_pool.Default()
    for name in ("basic_inference.Tensor32", "extended_inference.ExtendedInferenceRequest"):
        with pytest.raises(KeyError):
            common.FindMessageTypeByName(name)
    assert service_pb2.ModelInferRequest is not ModelInferRequest


@pytest.mark.parametrize(
    "text",
    [
        'syntax = "proto2";',
        "message A { string a = 1 }",
        "message A { string a = 1;",
        "option x = 1;",
        "service S { stream X; }",
        "message A { string a = 1; } &",
    ],
)
def test_what_the_reader_does_not_know_is_refused(text):
    with pytest.raises(ValueError, match=r"stands where|ends in the middle|begins nothing|should begin|cannot be read"):
        read_schema(text, "x.proto")


def test_a_schema_is_read_as_protoc_reads_it():
    read = read_schema(
        'syntax = "proto3"; package p; // words\nimport "o.proto";\n'
        "enum E { A = 0; } message M { oneof c { string s = 1; E e = 2; } map<string, M> many_things = 3; }"
        " service S { rpc call(stream M) returns (M); }",
        "m.proto",
    )
    assert (read.package, list(read.dependency)) == ("p", ["o.proto"])
    [descriptor] = read.message_type
    entry = descriptor.nested_type[0]
    assert entry.name == "ManyThingsEntry"
    assert entry.options.map_entry
    assert [field.oneof_index for field in descriptor.field[:2]] == [0, 0]
    assert not descriptor.field[2].HasField("oneof_index")
    assert descriptor.field[2].label == descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED
    assert (read.service[0].method[0].client_streaming, read.service[0].method[0].server_streaming) == (True, False)


@given(st.lists(st.binary(max_size=300), max_size=5), st.text(max_size=20), st.text(max_size=200))
def test_split_and_join_agree_with_protobuf(raw, name, identifier):
    request = ModelInferRequest(model_name=name, id=identifier, raw_input_contents=raw)
    request.inputs.add(name=name, shape=[-1, 2**62])
    header, views = split(request.SerializeToString())
    assert [bytes(view) for view in views] == raw
    kept = ModelInferRequest.FromString(header)
    assert not kept.raw_input_contents
    kept.raw_input_contents.extend(raw)
    assert kept == request
    response = ModelInferResponse(model_name=name)
    joined = join(response.SerializeToString(), raw)
    response.raw_output_contents.extend(raw)
    assert ModelInferResponse.FromString(joined) == response


@given(st.binary(max_size=200))
def test_split_takes_any_bytes(content):
    header, views = split(content)
    assert len(header) + sum(map(len, views)) <= len(content)


def test_unknown_messages_are_key_errors():
    with pytest.raises(KeyError):
        message("inference.Absent")
