from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import AliasChoices, Field

from locex.errors import InvalidConfiguration
from locex.schemas.base import Configuration, schema_of, validate
from locex.schemas.data_format import DataFormat
from locex.schemas.job import JobConfiguration, parse_job

# The public description's template: every field with a fitting value; of a plugin's own fields only some.
SCHEDULER = {"scheduler": "string", "step_size": 1, "gamma": 0.1, "verbose": True, "milestones": [1], "mode": "string"}
TEMPLATE = {
    "client_type_id": "string",
    "server_address": "string",
    "eval_metrics": ["string"],
    "eval_func": "string",
    "num_classes": 1,
    "num_rounds": 1,
    "shape": [1],
    "training_id": 0,
    "model_name": "string",
    "model_version": "string",
    "config": [{"config_id": "string", "batch_size": 1, "steps_per_epoch": 1, "epochs": 1, "learning_rate": 0.5}],
    "optimizer_config": {"optimizer": "string", "lr": 0.5, "betas": ["0.9", "0.99"], "amsgrad": True, "beta_2": 0.5},
    "scheduler_config": SCHEDULER,
    "warmup_config": {
        "scheduler": "linear",
        "warmup_iters": 1,
        "warmup_epochs": 1,
        "warmup_factor": 0.5,
        "scheduler_conf": SCHEDULER,
    },
    "privacy-mechanisms": {},
}
RELAXED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the machine may be busy
SMALL = {"server_address": "tc", "model_name": "m", "model_version": "1"}


class Options(Configuration):
    count: int = 1
    rate: float = 0.5
    flag: bool = False
    sizes: list[int] = Field(default_factory=list)
    betas: tuple[float, float] = (0.9, 0.999)
    word: str | None = None


class Renamed(Configuration):
    T_max: int = Field(validation_alias=AliasChoices("T_max", "t_max"))
    rate: float = Field(default=0.1, validation_alias=AliasChoices("lr", "learning_rate"))
    steps: list[int] = Field(default=[], validation_alias=AliasChoices("steps", "milestones"))


def dumped(job):
    return job.model_dump(mode="json", by_alias=True, exclude_none=True)


def test_every_field_of_the_public_description_is_known_and_kept():
    job, warnings = parse_job(TEMPLATE)
    assert warnings == []
    kept = dumped(job)
    assert kept["training_id"] == "0"
    for name, value in TEMPLATE.items():
        assert name == "training_id" or kept[name] == value, name


@pytest.mark.parametrize("part", ["config", "warmup_config"])
def test_parts_refuse_keys_that_they_do_not_have(part):
    content = TEMPLATE[part][0] if part == "config" else TEMPLATE[part]
    with pytest.raises(InvalidConfiguration) as caught:
        parse_job(SMALL | {part: content | {"epoch~/s": 1}})
    (fault,) = caught.value.errors
    assert fault["path"].startswith(f"/{part}")
    assert fault["path"].endswith("/epoch~0~1s")
    assert fault["message"] == "unknown key"


def test_an_unknown_key_at_the_top_of_a_plugins_fields_lists_the_allowed():
    with pytest.raises(InvalidConfiguration, match="/data/colour: unknown key; allowed here are: betas, count, flag,"):
        validate(Options, {"colour": 1}, at="/data")


def test_every_fault_is_told_at_once():
    with pytest.raises(InvalidConfiguration) as caught:
        parse_job(SMALL | {"num_rounds": "x", "config": [{"epochs": 0}, {"batch_size": "1.5"}], "shape": [3, 0]})
    paths = [fault["path"] for fault in caught.value.errors]
    assert sorted(paths) == ["/config/0/epochs", "/config/1/batch_size", "/num_rounds", "/shape"]
    assert all(path in str(caught.value) for path in paths)


def test_what_was_sent_is_not_repeated_in_errors():
    with pytest.raises(InvalidConfiguration) as caught:
        validate(Options, {"count": "a password"})
    assert "a password" not in str(caught.value)


@RELAXED
@given(st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False), st.booleans())
def test_numbers_and_booleans_may_come_as_strings(count, rate, flag):
    told = {"count": str(count), "rate": repr(rate), "flag": str(flag)}
    plain = {"count": count, "rate": rate, "flag": flag}
    assert Options.model_validate(told) == Options.model_validate(plain) == Options(**plain)
    assert Draft202012Validator(schema_of(Options)).is_valid(told)


@RELAXED
@given(st.one_of(st.integers(), st.lists(st.integers(), max_size=3)))
def test_a_scalar_may_stand_for_a_list_of_one(sizes):
    assert Options(sizes=sizes).sizes == (sizes if isinstance(sizes, list) else [sizes])


@RELAXED
@given(st.dictionaries(st.sampled_from(list(Options.model_fields)), st.none()))
def test_null_means_not_given(content):
    assert Options.model_validate(content) == Options()


def test_a_list_of_wrong_length_stays_wrong():
    with pytest.raises(InvalidConfiguration, match="/betas"):
        validate(Options, {"betas": 0.9})


@pytest.mark.parametrize("number", ["nan", "inf", float("nan"), float("-inf"), "1e999"])
def test_floats_are_finite(number):
    with pytest.raises(InvalidConfiguration, match="finite"):
        validate(Options, {"rate": number})


@RELAXED
@given(st.text("0123456789+-.eE trufalsTRUFAL_x", max_size=6), st.sampled_from(["count", "rate", "flag"]))
def test_the_schema_accepts_no_string_that_validation_refuses(text, field):
    if (
        Draft202012Validator(schema_of(Options)).is_valid({field: text})
        and not text.lower().partition("e")[2].isdigit()
    ):
        validate(Options, {field: text})  # what has an exponent may be infinite, which JSON Schema cannot tell


@pytest.mark.parametrize(
    "content",
    [
        TEMPLATE,
        SMALL,
        SMALL | {"number_of_rounds": "3"},
        SMALL | {"privacy_mechanisms": {"a": {"b": 1}}},
        SMALL | {"transformations": {"train": [{"id": "t", "params": {"a": 1}}]}},
        SMALL | {"training_id": "abc", "config": [{"batch_size": "64", "learning_rate": "0.005"}]},
    ],
)
def test_the_published_schema_accepts_what_is_accepted_and_a_round_trip_changes_nothing(content):
    Draft202012Validator(schema_of(JobConfiguration)).validate(content)
    job, _ = parse_job(content)
    once = dumped(job)
    again = JobConfiguration.model_validate(json.loads(json.dumps(once)))
    assert again == job
    assert dumped(again) == once
    Draft202012Validator(schema_of(JobConfiguration)).validate(once)


def test_names_that_controllers_write_otherwise_are_understood():
    job, warnings = parse_job(
        SMALL | {"number_of_rounds": 7, "privacy_mechanisms": {"a": {}}, "transformations": {"test": {"id": "t"}}}
    )
    assert warnings == []
    assert job.num_rounds == 7
    assert job.privacy_mechanisms == {"a": {}}
    assert [step.id for step in job.transformations.test] == ["t"]


@pytest.mark.parametrize("name", ["T_max", "t_max"])
def test_a_required_field_may_be_given_by_any_of_its_names(name):
    published = Draft202012Validator(schema_of(Renamed))
    content = {name: "3", "learning_rate": 0.2, "milestones": 4}
    published.validate(content | {"milestones": [4]})
    assert validate(Renamed, content).model_dump() == {"T_max": 3, "rate": 0.2, "steps": [4]}


def test_a_required_field_that_is_given_by_none_of_its_names_is_missed():
    assert not Draft202012Validator(schema_of(Renamed)).is_valid({"lr": 1})
    with pytest.raises(InvalidConfiguration, match="/T_max: Field required"):
        validate(Renamed, {"lr": 1})


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ({"T_max": 1, "lr": 0.1, "learning_rate": 0.1}, "lr and learning_rate"),
        ({"T_max": 1, "lr": 0.1, "rate": 0.2}, "lr and rate"),
        ({"T_max": 1, "t_max": 2}, "T_max and t_max"),
    ],
)
def test_a_field_given_by_two_names_is_refused_with_both(content, names):
    with pytest.raises(InvalidConfiguration, match=f"{names} are the same field: give it once") as caught:
        validate(Renamed, content, at="/optimizer_config")
    paths = [fault["path"] for fault in caught.value.errors]
    assert paths == [f"/optimizer_config/{name}" for name in names.split(" and ")]


def test_a_field_of_a_part_that_is_given_by_two_names_is_found_there():
    step = {"id": "t", "parameters": {}, "params": {}}
    with pytest.raises(InvalidConfiguration, match="parameters and params are the same field") as caught:
        parse_job(SMALL | {"transformations": {"train": [step]}})
    place = "/transformations/train/0"
    assert [fault["path"] for fault in caught.value.errors] == [f"{place}/parameters", f"{place}/params"]


def test_a_second_name_without_a_value_is_not_given():
    assert validate(Renamed, {"T_max": 1, "lr": 0.5, "learning_rate": None}).rate == 0.5


def test_unknown_top_level_keys_are_ignored_and_named():
    job, warnings = parse_job(SMALL | {"zeta": 1, "strategy": {"x": 1}})
    assert warnings == ["unknown key 'strategy' was ignored", "unknown key 'zeta' was ignored"]
    assert "zeta" not in dumped(job)


@pytest.mark.parametrize("key", ["privacy", "privacy_mechanism", "Privacy-Mechanisms"])
def test_a_key_that_is_meant_for_privacy_is_not_ignored(key):
    with pytest.raises(InvalidConfiguration, match=f"{key}.* without privacy-mechanisms") as caught:
        parse_job(SMALL | {key: {"dp-sgd": {}}})
    assert caught.value.errors[0]["path"] == f"/{key}"


def test_a_plugins_fields_are_those_given():
    job, _ = parse_job(SMALL | {"optimizer_config": {"optimizer": "adam", "lr": "0.1", "rho": None}})
    assert job.optimizer_config.fields() == {"lr": "0.1"}


@pytest.mark.parametrize(
    "address", ["tc", "tc:8080", "10.0.0.7", "10.0.0.7:1", "[::1]", "[fe80::1]:8080", "fl_collector.site-1.example:9"]
)
def test_addresses_that_are_taken(address):
    assert parse_job(SMALL | {"server_address": f" {address} "})[0].server_address == address


@pytest.mark.parametrize(
    "address",
    ["", "::1", "fe80::1:8080", "tc:", "tc:port", "tc:123456", "http://tc:80", "tc/x", "a b", "tc:80\nx", "[::1"],
)
def test_addresses_that_are_refused(address):
    with pytest.raises(InvalidConfiguration, match="/server_address"):
        parse_job(SMALL | {"server_address": address})


@pytest.mark.parametrize("missing", SMALL)
def test_fields_that_no_default_can_replace(missing):
    with pytest.raises(InvalidConfiguration, match=f"/{missing}: Field required"):
        parse_job({key: value for key, value in SMALL.items() if key != missing})


@pytest.mark.parametrize(("size", "read"), [(10, [10]), ([], []), ([28, 28], [28, 28])])
def test_a_bare_size_is_a_list_of_one(size, read):
    form = DataFormat.of({"tabular": {"size": size, "normalized": True, "unit": "m"}}, {"y": {"size": []}})
    tensor = form.x.data_types["tabular"]
    assert tensor.size == read
    assert tensor.model_dump(exclude_none=True) == {"size": read, "normalized": True, "unit": "m"}
    assert DataFormat.model_validate(form.model_dump()) == form
