"""torch.export archives that could do more than compute are refused, whatever stands in them."""

from __future__ import annotations

import io
import json
import pickle
import zipfile

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from locex.errors import InvalidModel
from locex.schemas.job import TrainConfig

CONFIG = TrainConfig(batch_size=16, epochs=2)


@pytest.fixture(scope="session")
def good(tmp_path_factory, kit):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 3))
    return kit.export(model, tmp_path_factory.mktemp("exported") / "good.pt2")


class Harmful:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


def entries_of(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rebuilt(path, entries):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


def tampered(good, path, member, change):
    """Return the archive with the JSON of one entry changed."""
    entries = entries_of(good)
    (name,) = (name for name in entries if name.endswith(member))
    content = json.loads(entries[name])
    change(content)
    return rebuilt(path, entries | {name: json.dumps(content).encode()})


CODE = "__import__('pathlib').Path('{}').write_text('run')"


def graph_of(program):
    return program["graph_module"]["graph"]


def set_size(program, text):
    graph_of(program)["tensor_values"]["input"]["sizes"][0] = {"as_expr": {"expr_str": text, "hint": None}}


def rename(program, name, old="linear"):
    text = json.dumps(program).replace(json.dumps(old), json.dumps(name))
    program.clear()
    program.update(json.loads(text))


def set_size_of(program, name, text):
    """A name that the author chose can be that of a field, whose content is read in another way."""
    rename(program, name, "input")
    graph_of(program)["tensor_values"][name]["sizes"][0] = {"as_expr": {"expr_str": text, "hint": None}}


def set_bound(program, text):
    for bounds in program["range_constraints"].values():
        bounds["max_val"] = text


def nested(depth):
    return {"a": nested(depth - 1)} if depth else []


def call(program, target, *arguments):
    node = graph_of(program)["nodes"][0]
    node["target"] = target
    if arguments:
        node["inputs"] = [{"name": "", "arg": {"as_string": text}, "kind": 1} for text in arguments]


PROGRAMS = {
    "size": (set_size, "it holds the size"),
    "size of functions": (lambda program, _: set_size(program, "exec(chr(65))"), "it holds the size"),
    "endless power": (lambda program, _: set_size(program, "9**9**9**9"), "it holds the size"),
    "name": (lambda program, code: rename(program, f"x\n    {code}"), "it holds the name"),
    "argument's name": (
        lambda program, code: program["graph_module"]["module_call_graph"][0]["signature"].update(
            forward_arg_names=[f"x={code}"]
        ),
        "it holds the name",
    ),
    "parameter's name": (
        lambda program, code: program["graph_module"]["signature"]["input_specs"][0]["parameter"].update(
            parameter_name=f'a"+{code}+"'
        ),
        "it holds the text",
    ),
    **{
        f"value named {name}": (lambda program, code, name=name: set_size_of(program, name, code), "it holds the size")
        for name in ("range_constraints", "tensor_values", "metadata", "name", "as_string", "expr_str", "target")
    },
    "bound of a range": (set_bound, "it holds the text"),
    "no ranges": (lambda program, _: program.update(range_constraints=None), "not that of torch.export"),
    "range": (lambda program, code: program["range_constraints"].update({code: {}}), "it holds the size"),
    "any function": (
        lambda program, code: call(program, "torch.serialization.os.system", "true"),
        "only operations of",
    ),
    "hub": (lambda program, _: call(program, "torch.hub.load", "a/b", "c"), "only operations of aten"),
    "file": (lambda program, _: call(program, "torch.ops.aten.from_file.default", "/etc/passwd"), "not among the op"),
    "attribute": (lambda program, _: call(program, "torch.ops.aten.__class__.mro"), "not among the operations"),
    "unknown operation": (lambda program, _: call(program, "torch.ops.aten.nonsense.default"), "not among the op"),
    "internal operation": (lambda program, _: call(program, "torch.ops.aten._resize_output_.default"), "not among"),
    "extension": (lambda program, _: call(program, "#delegate:x"), "only operations of aten"),
    "custom object": (
        lambda program, _: program["graph_module"]["graph"]["nodes"][0]["inputs"].append(
            {"name": "a", "arg": {"as_custom_obj": {"name": "a", "class_fqn": "b"}}, "kind": 1}
        ),
        "as_custom_obj",
    ),
    "tree": (
        lambda program, _: program["graph_module"]["module_call_graph"][0]["signature"].update(in_spec="[1, {}]"),
        "one tensor",
    ),
    "no calls": (
        lambda program, _: program["graph_module"].update(module_call_graph={"a": 1}),
        "how its model is call",
    ),
    "custom objects": (lambda program, _: graph_of(program).update(custom_obj_values={"a": 1}), "it holds custom obj"),
    "target alone": (
        lambda program, _: graph_of(program)["nodes"].append({"target": "torch.hub.list"}),
        "only operations of aten",
    ),
    "nodes": (lambda program, _: graph_of(program).update(nodes=[1]), "not that of torch.export"),
    "deeply nested": (
        lambda program, _: program.update(torch_version=nested(400)),
        "cannot load the torch.export arch",
    ),
    "nothing": (lambda program, _: program.clear(), "not that of torch.export"),
    "deep": (lambda program, _: program.update(torch_version=[[[[]]] * 3]), "cannot load the torch.export archive"),
    "no nodes": (lambda program, _: graph_of(program).update(nodes=[]), "cannot load the torch.export archive"),
}


@pytest.mark.parametrize("attack", PROGRAMS)
def test_programs_that_could_do_more_than_compute_are_refused(attack, good, tmp_path, make_session):
    change, message = PROGRAMS[attack]
    mark = tmp_path / "mark"
    path = tampered(good, tmp_path / "m.pt2", "models/model.json", lambda one: change(one, CODE.format(mark)))
    with pytest.raises(InvalidModel, match=message) as caught:
        make_session(path)
    assert "torch.export.save" in caught.value.remedy
    assert not mark.exists()


@pytest.mark.parametrize("name", ["token", "target", "inputs", "range_constraints", "torch", "class"])
def test_a_value_may_have_any_name(name, good, tmp_path, make_session):
    path = tampered(good, tmp_path / "m.pt2", "models/model.json", lambda program: rename(program, name))
    assert make_session(path).evaluate(CONFIG) == make_session(good).evaluate(CONFIG)


def test_guards_and_traces_are_dropped_unread(good, tmp_path, make_session):
    mark = tmp_path / "mark"
    code = CODE.format(mark)

    def change(program):
        program["guards_code"] = [f"{code} or L['x'].size()[1] == 8"]
        for node in graph_of(program)["nodes"]:
            node["metadata"] = {"stack_trace": f"\n{code}", "nn_module_stack": code}
        program["graph_module"]["metadata"] = {"custom": json.dumps(code)}

    session = make_session(tampered(good, tmp_path / "m.pt2", "models/model.json", change))
    session.fit(CONFIG, server_round=1)
    assert not mark.exists()


def weights(changes, name="0.weight"):
    return lambda config: config["config"][name].update(changes)


def resized(sizes, strides):
    return lambda config: config["config"]["0.weight"]["tensor_meta"].update(
        sizes=[{"as_int": size} for size in sizes], strides=[{"as_int": stride} for stride in strides]
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (weights({"use_pickle": True}), "pickle or a custom object"),
        (weights({"use_pickle": None}), "pickle or a custom object"),
        (weights({"path_name": "custom_obj_0"}), "pickle or a custom object"),
        (weights({"path_name": "opaque_obj_0"}), "pickle or a custom object"),
        (weights({"path_name": "../constants/tensor_0"}), "pickle or a custom object"),
        (weights({"path_name": "weight_99"}), "bytes of 0.weight are missing"),
        (weights({"tensor_meta": None}), "does not describe the tensor"),
        (resized([10**9, 10**9], [0, 0]), "sizes that its bytes do not hold"),
        (resized([16, -8], [8, 1]), "size is not a number"),
        (resized([1] * 100_000, [1]), "has no sizes"),
        (resized([16, 8], [10**9, 1]), "cannot load the torch.export archive"),
        (lambda config: config["config"]["0.weight"]["tensor_meta"].update(device={"type": "cuda"}), "not on the CPU"),
        (lambda config: config["config"].update({"a'b": config["config"]["0.weight"]}), "with the name"),
        (lambda config: config["config"].update({"__class__": config["config"]["0.weight"]}), "with the name"),
        (lambda config: config.clear(), "describes no tensors"),
        (lambda config: config["config"].pop("0.weight"), "cannot load the torch.export archive"),
    ],
)
def test_tensors_that_are_not_what_they_say_are_refused(change, message, good, tmp_path, make_session):
    path = tampered(good, tmp_path / "m.pt2", "model_weights_config.json", change)
    entries = entries_of(path)
    rebuilt(path, entries | {"good/data/weights/weight_0": pickle.dumps(Harmful()).ljust(16 * 8 * 4, b"\0")})
    with pytest.raises(InvalidModel, match=message):
        make_session(path)


def test_sample_inputs_are_dropped_unread(good, tmp_path, make_session):
    buffer = io.BytesIO()
    torch.save((Harmful(),), buffer)
    path = rebuilt(tmp_path / "m.pt2", entries_of(good) | {"good/data/sample_inputs/model.pt": buffer.getvalue()})
    make_session(path).fit(CONFIG, server_round=1)


@pytest.mark.parametrize(
    ("added", "message"),
    [
        ({"good/data/aotinductor/model/model.so": b"\x7fELF"}, "native code"),
        ({"good/data/aotinductor/model/model.cpp": b"int main;"}, "native code"),
        ({"good/extra/x.so": b"\x7fELF"}, "native code"),
        ({"good/models/second.json": b"{}"}, "must hold one program"),
        ({"other/models/model.json": b"{}"}, "twice"),
        ({"good/archive_version": b"1"}, "its archive_version is not '0'"),
        ({"good/byteorder": b"big"}, "its byteorder is not 'little'"),
        ({"good/archive_format": b"pt3"}, "its archive_format is not 'pt2'"),
        ({"good/models/model.json": b"["}, "is not JSON"),
        ({"good/models/model.json": b"[" * 100_000}, "is not JSON"),
        ({"good/models/model.json": b"NaN"}, "is not JSON"),
    ],
)
def test_archives_that_hold_more_or_less_than_a_program_are_refused(added, message, good, tmp_path, make_session):
    path = rebuilt(tmp_path / "m.pt2", entries_of(good) | added)
    with pytest.raises(InvalidModel, match=message):
        make_session(path)


def test_the_older_layout_is_refused_since_it_holds_pickles(good, tmp_path, make_session):
    entries = entries_of(good)
    config = next(name for name in entries if name.endswith("weights_config.json"))
    del entries[config]
    entries["good/data/weights/model.pt"] = pickle.dumps(Harmful())
    with pytest.raises(InvalidModel, match=r"before 2\.9 hold pickles"):
        make_session(rebuilt(tmp_path / "m.pt2", entries))


@pytest.mark.parametrize("percent", range(0, 100, 10))
def test_a_truncated_archive_is_refused(percent, good, tmp_path, make_session):
    content = good.read_bytes()
    (tmp_path / "m.pt2").write_bytes(content[: len(content) * percent // 100])
    with pytest.raises(InvalidModel):
        make_session(tmp_path / "m.pt2")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_program_is_refused_or_harmless(good, tmp_path, make_session, data):
    """Whatever stands in a value of the program's text, the answer is a session or `InvalidModel`."""
    text = entries_of(good)["good/models/model.json"].decode()
    place = data.draw(st.integers(0, len(text) - 1))
    added = data.draw(st.sampled_from(['"', "0", "null", "{", "'", "_", "x", "-1", "[]", "\\n", ","]))
    changed = text[:place] + added + text[place + data.draw(st.integers(0, 3)) :]
    path = rebuilt(tmp_path / "m.pt2", entries_of(good) | {"good/models/model.json": changed.encode()})
    try:
        make_session(path)
    except InvalidModel as error:
        assert error.remedy  # noqa: PT017 -- a session is as good an answer
