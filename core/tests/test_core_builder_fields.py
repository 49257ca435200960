"""What a job says to its builder: options, top-level fields, a warm-up; and the test jobs that bypass the site."""

from __future__ import annotations

import json

import pytest

from locex.errors import InvalidConfiguration, UnknownPlugin
from locex.jobs.choices import with_validated
from locex.schemas.job import parse_job
from locex.schemas.record import JobState

WARMUP = {"warmup_epochs": 1, "scheduler_conf": {"scheduler": "of another library", "step_size": 1}}


async def test_options_reach_the_builder_which_may_warn_of_them(node):
    accepted = await node.submit(builder={"damping": "0.5"})
    assert accepted.record.configuration["builder"] == {"damping": 0.5}
    record = await node.end()
    assert record.state is JobState.FINISHED, record.failure
    assert "training is damped by 0.5" in record.warnings


@pytest.mark.parametrize(
    ("options", "path", "part"),
    [
        ({"damping": 2}, "/builder/damping", "less than 1"),
        ({"colour": 1}, "/builder/colour", "damping"),
        ({"eval_func": "mse"}, "/builder/eval_func", "beside builder"),
    ],
)
async def test_a_wrong_option_is_named_where_it_stands(node, options, path, part):
    with pytest.raises(InvalidConfiguration) as caught:
        await node.submit(builder=options)
    (fault,) = caught.value.errors
    assert fault["path"] == path
    assert part in fault["message"]


async def test_a_wrong_field_of_the_top_level_keeps_its_path(node):
    with pytest.raises(InvalidConfiguration) as caught:
        await node.submit(eval_metrics=[{}])
    assert caught.value.errors[0]["path"] == "/eval_metrics/0"


async def test_a_warm_up_that_the_builder_does_not_have_is_ignored_aloud(node):
    accepted = await node.submit(warmup_config=WARMUP)
    assert accepted.warnings == ["warmup_config was ignored: the builder tiny does not take it"]
    assert "warmup_config" not in accepted.record.configuration
    assert (await node.end()).state is JobState.FINISHED


def test_validated_fields_take_the_place_of_those_that_were_written():
    """Otherwise a field with two names would be there by both, and a job that goes on be refused."""
    warmup = {"warmup_iters": 1, "scheduler_conf": {"scheduler": "cosine", "t_max": "4"}}
    small = {"server_address": "h", "model_name": "m", "model_version": "1"}
    job, _ = parse_job(small | {"warmup_config": warmup, "scheduler_config": warmup["scheduler_conf"]})
    validated = with_validated(job, {"warmup_scheduler": {"T_max": 4}, "scheduler": {"T_max": 4}})
    assert validated.warmup_config.scheduler_conf.fields() == {"T_max": 4}
    assert validated.scheduler_config.fields() == {"T_max": 4}


async def test_a_test_job_bypasses_data_source_and_pipelines(open_node, tmp_path):
    (tmp_path / "setup.json").write_text(json.dumps({"data_loader": "nowhere"}))
    changes = {"configuration_folder": tmp_path, "base_library": "tiny", "base_source": "gaussians"}
    async with open_node(**changes) as node:
        step = [{"id": "scale", "parameters": {"factor": 0}}]
        steps = {"transformations": {"train": step, "test": step}}
        with pytest.raises(UnknownPlugin):
            await node.submit(**steps)
        accepted = await node.submit(client_type_id="base", **steps)
        assert accepted.record.configuration["transformations"] == {"train": [], "test": []}
        assert accepted.record.configuration["data"]["source"] == "gaussians"
        assert "client_type_id is base: data source 'gaussians' is read, without transformations" in accepted.warnings
        record = await node.end()
    assert (record.state, record.client_type_id) == (JobState.FINISHED, "base")
    assert record.history[-1].evaluation["accuracy"] > 0.9
