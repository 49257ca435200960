"""``dp-sgd``: what a round costs, what is charged before it, what leaves, what is refused before anything runs."""

import json

import numpy as np
import pytest

from locex.api import PrivacyReview, PrivateSession, Stage, Update
from locex.errors import DataUnavailable, InvalidConfiguration, PrivacyRefused
from locex.schemas.base import validate
from locex.schemas.job import TrainConfig, parse_job
from locex.schemas.plugin import PluginConfig
from locex_privacy.accountant import calibrated, epsilon, poisson_gaussian_event
from locex_privacy.dp_sgd.config import DpSgdConfig

CONFIG = TrainConfig(batch_size=10, epochs=2)  # of 40 examples: 8 steps a round with a rate of 1/4


def linear():
    import torch

    torch.manual_seed(3)
    return torch.nn.Linear(8, 3)


@pytest.fixture
def trained(session, kit):
    return session("pytorch", linear, kit.blobs(), optimizer=kit.optimizer("pytorch", rate=0.05))


def prepared(mechanism, session):
    mechanism.prepare(session)
    return mechanism


# --- what is charged


def test_a_round_is_charged_before_the_data_is_touched(site, trained, kit):
    mechanism = prepared(site.mechanism(CONFIG, noise_multiplier=1.5), trained)

    mechanism.before_fit({"server_round": 1})

    assert site.events() == [poisson_gaussian_event(1.5, 0.25, 8)]
    assert site.events("client") == []
    assert site.spent == [("example", pytest.approx(epsilon(site.events(), 1e-5)))]


def test_the_entry_that_the_server_chooses_is_charged(site, trained):
    small = TrainConfig(config_id="small", batch_size=5, steps_per_epoch=3)
    mechanism = prepared(site.mechanism(CONFIG, small), trained)

    mechanism.before_fit({"config_id": "small"})
    mechanism.before_fit({"config_id": "unknown"})

    assert [(event["sampling_rate"], event["steps"]) for event in site.events()] == [(0.125, 3), (0.25, 8)]


def test_a_batch_of_all_examples_is_no_subsampling(site, trained, kit):
    config = TrainConfig(batch_size=64, epochs=3)
    mechanism = prepared(site.mechanism(config, noise_multiplier=2), trained)

    kit.train(mechanism, trained, config)

    assert site.events() == [poisson_gaussian_event(2, 1.0, 3)]


def test_epsilon_grows_over_rounds_and_jobs_where_an_engine_of_each_round_stands_still(site, session, kit):
    """The classic trap: Opacus' own accountant begins anew with each round's engine."""
    from opacus.accountants import PRVAccountant

    grown = []
    for job in range(2):
        trained = session("pytorch", linear, kit.blobs(), seed=job)
        mechanism = prepared(site.mechanism(CONFIG, noise_multiplier=2), trained)
        for server_round in range(1, 6):
            kit.train(mechanism, trained, CONFIG, server_round)
            grown.append(site.epsilon)

    def by_an_engine(steps):
        accountant = PRVAccountant()
        accountant.history = [(2.0, 0.25, steps)]
        return accountant.get_epsilon(1e-5)

    of_any_round, of_all = by_an_engine(8), by_an_engine(80)
    assert grown == sorted(set(grown))
    assert grown[0] == pytest.approx(of_any_round, abs=0.03)
    assert grown[-1] == pytest.approx(of_all, abs=0.03)
    assert of_all > 2.5 * of_any_round


def test_the_round_that_would_pass_the_budget_is_refused(site, trained, kit):
    within = epsilon([poisson_gaussian_event(1.5, 0.25, 16)], 1e-5)
    mechanism = prepared(site.mechanism(CONFIG, noise_multiplier=1.5, max_epsilon=within + 0.1), trained)
    for server_round in (1, 2):
        kit.train(mechanism, trained, CONFIG, server_round)

    with pytest.raises(PrivacyRefused, match=r"'patients' \(unit example, δ=1e-05\) from .* past max_epsilon"):
        mechanism.before_fit({})

    assert len(site.events()) == 2
    with pytest.raises(PrivacyRefused, match="not charged"):
        trained.fit(CONFIG, server_round=3)


def test_a_crash_after_the_charge_keeps_it(site, session, kit, tmp_path):
    first = session("pytorch", linear, kit.blobs(), optimizer=kit.optimizer("pytorch", "adam", 0.01))
    mechanism = prepared(site.mechanism(CONFIG), first)
    kit.train(mechanism, first, CONFIG, 1)
    first.save_state(tmp_path)
    kept, state = first.get_parameters(), json.loads(json.dumps(mechanism.state()))
    mechanism.before_fit({})  # and the process dies in the midst of the round

    again = session("pytorch", linear, kit.blobs(), optimizer=kit.optimizer("pytorch", "adam", 0.01))
    resumed = prepared(site.mechanism(CONFIG), again)
    again.load_state(tmp_path)
    again.set_parameters(kept)
    resumed.restore(state)
    sent = kit.train(resumed, again, CONFIG, 2)

    assert [event["steps"] for event in site.events()] == [8, 8, 8]
    assert site.epsilon == pytest.approx(epsilon([poisson_gaussian_event(1, 0.25, 24)], 1e-5))
    assert all(np.isfinite(tensor).all() for tensor in sent.parameters.values())


# --- noise from a target


def test_a_target_is_what_the_planned_rounds_spend(site, trained, kit):
    mechanism = prepared(site.mechanism(CONFIG, num_rounds=5, target_epsilon=3, noise_multiplier=None), trained)
    for server_round in range(1, 6):
        kit.train(mechanism, trained, CONFIG, server_round)

    assert 2.98 < site.epsilon <= 3
    with pytest.raises(PrivacyRefused, match="past max_epsilon=3"):
        mechanism.before_fit({})


def test_rounds_beside_the_target_are_the_plan(site, trained):
    mechanism = site.mechanism(CONFIG, num_rounds=50, target_epsilon=3, noise_multiplier=None, rounds=2)
    prepared(mechanism, trained).before_fit({})

    assert site.events()[0]["noise_multiplier"] == pytest.approx(calibrated(3, 1e-5, 0.25, 16))


def test_a_target_without_a_plan_is_refused(site, trained):
    with pytest.raises(PrivacyRefused, match="number of planned rounds") as caught:
        site.mechanism(CONFIG, target_epsilon=3, noise_multiplier=None).prepare(trained)

    assert "num_rounds" in caught.value.remedy


# --- what leaves


def test_nothing_leaves_beside_the_weights(site, trained, kit):
    mechanism = prepared(site.mechanism(CONFIG), trained)

    sent = kit.train(mechanism, trained, CONFIG)

    assert (sent.examples, sent.metrics) == (1, {})
    assert mechanism.withholds_metrics
    assert mechanism.stage is Stage.TRAIN
    assert list(sent.parameters) == list(sent.reference)


def test_a_public_number_of_examples_may_be_sent(site, trained, kit):
    mechanism = prepared(site.mechanism(CONFIG, public_examples=1000), trained)

    assert kit.train(mechanism, trained, CONFIG).examples == 1000


def test_weights_that_the_mechanism_did_not_train_do_not_leave(site, trained, kit):
    mechanism = prepared(site.mechanism(CONFIG), trained)
    weights = trained.get_parameters()
    mechanism.before_fit({})

    with pytest.raises(PrivacyRefused, match="its gradients did not make"):
        mechanism.outgoing(Update(weights, weights, 40, {"loss": 1.0}), {})
    kit.train(mechanism, trained, CONFIG)
    with pytest.raises(PrivacyRefused, match="its gradients did not make"):
        mechanism.outgoing(Update(weights, weights, 40, {"loss": 1.0}), {})


def test_a_round_that_was_charged_for_another_training_is_refused(site, trained):
    mechanism = prepared(site.mechanism(CONFIG), trained)
    mechanism.before_fit({})

    with pytest.raises(PrivacyRefused, match="not charged"):
        trained.fit(TrainConfig(batch_size=20, epochs=2), server_round=1)


def test_steps_beyond_those_charged_are_refused(site, trained, kit):
    mechanism = prepared(site.mechanism(CONFIG), trained)
    mechanism.before_fit({})
    trained.fit(CONFIG, server_round=1)

    with pytest.raises(PrivacyRefused, match="not charged"):
        trained.fit(CONFIG, server_round=2)


# --- sampling


def test_every_step_draws_a_batch_of_its_own_and_batches_may_be_empty(site, session, kit):
    config = TrainConfig(batch_size=2, epochs=30)
    trained = session("pytorch", linear, kit.blobs(examples=20))
    drawn = []

    def choice(size, rate):
        from locex_privacy.noise import system_choice

        drawn.append(system_choice(size, rate))
        return drawn[-1]

    mechanism = prepared(site.mechanism(config, choice=choice), trained)
    kit.train(mechanism, trained, config)

    assert len(drawn) == 300
    sizes = [len(one) for one in drawn]
    assert min(sizes) == 0  # 300 batches of binomial(20, 0.1): none is empty with probability 10⁻¹⁷
    assert len(set(sizes)) > 2
    assert np.mean(sizes) == pytest.approx(2, abs=0.5)
    assert len({tuple(one) for one in drawn if len(one) > 2}) > 50


def test_an_epoch_in_which_nobody_took_part_tells_no_loss(site, trained, kit):
    mechanism = prepared(site.mechanism(CONFIG, choice=kit.always([])), trained)
    mechanism.before_fit({})

    result = trained.fit(CONFIG, server_round=1)

    assert (result.examples, result.metrics) == (0, {})


# --- sessions and data


class Plain:
    """A session of a builder that has no seam."""

    signature = None

    def __getattr__(self, name):
        if name in ("differentiable", "take_gradients_from"):
            raise AttributeError(name)
        return lambda *_, **__: None


def test_a_session_that_cannot_be_taken_over_is_refused(site, trained):
    assert isinstance(trained, PrivateSession)
    with pytest.raises(PrivacyRefused, match="builder trains in a way") as caught:
        site.mechanism(CONFIG).prepare(Plain())
    assert "PrivateSession" in caught.value.remedy


def test_a_framework_that_is_not_known_is_refused(site, trained, monkeypatch):
    from dataclasses import replace

    parts = replace(trained.differentiable(), framework="jax")
    monkeypatch.setattr(type(trained), "differentiable", lambda _self: parts)

    with pytest.raises(PrivacyRefused, match="a jax model"):
        site.mechanism(CONFIG).prepare(trained)


def test_steps_that_learned_from_the_data_are_refused(site, trained):
    with pytest.raises(PrivacyRefused, match=r"step 2 \(scaler\) learned from the training data"):
        site.mechanism(CONFIG, learned=["step 2 (scaler)"]).prepare(trained)


def test_no_training_data_is_what_it_is_without_the_mechanism(site, session, kit):
    data = kit.blobs()
    empty = type(data)(data.x[:0], data.y[:0])
    trained = session("pytorch", linear, empty, test=data)

    with pytest.raises(DataUnavailable, match="no training data"):
        site.mechanism(CONFIG).prepare(trained)


def test_a_mechanism_without_its_session_protects_nothing(site):
    with pytest.raises(PrivacyRefused, match="not given the session"):
        site.mechanism(CONFIG).before_fit({})


# --- configuration and review


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({}, "exactly one of target_epsilon and noise_multiplier"),
        ({"noise_multiplier": 1, "target_epsilon": 3}, "exactly one of target_epsilon and noise_multiplier"),
        ({"noise_multiplier": 0}, "/noise_multiplier"),
        ({"noise_multiplier": "nan"}, "/noise_multiplier"),
        ({"target_epsilon": 0}, "/target_epsilon"),
        ({"noise_multiplier": 1, "max_grad_norm": 0}, "/max_grad_norm"),
        ({"noise_multiplier": 1, "max_grad_norm": "inf"}, "/max_grad_norm"),
        ({"noise_multiplier": 1, "delta": 1}, "/delta"),
        ({"noise_multiplier": 1, "unit": "client"}, "/unit"),
        ({"noise_multiplier": 1, "secure_mode": True}, "/secure_mode"),
    ],
)
def test_configurations_that_would_not_protect_are_refused(fields, told):
    with pytest.raises(InvalidConfiguration) as caught:
        validate(DpSgdConfig, {"max_grad_norm": 1} | fields)

    assert told in json.dumps(caught.value.errors, ensure_ascii=False)


class Options(PluginConfig):
    """A builder's, or a scheduler's."""

    mixed_precision: str | None = None
    compile: bool = False
    monitor: str | None = None


def reviewed(kit, library="pytorch", plugins=None, job=None, **fields):
    plugin = kit.plugin("privacy", "dp-sgd")
    fields = {"max_grad_norm": 1} | (fields or {"noise_multiplier": 1, "max_epsilon": 8})
    config = validate(plugin.locex_config_model(), fields)
    given = {"model_name": "m", "model_version": "1", "server_address": "localhost:1"} | (job or {})
    review = PrivacyReview({"dp-sgd": config}, "flower-grpc", library, plugins or {}, parse_job(given)[0])
    return plugin.locex_review_privacy(config, review)


def test_a_job_that_goes_is_taken_without_a_warning(kit):
    options = {"builder": Options(), "scheduler": Options()}
    assert reviewed(kit, plugins=options, job={"optimizer_config": {"optimizer": "adam"}}) == []
    assert reviewed(kit, "keras", target_epsilon=8, job={"num_rounds": 3}) == []
    assert reviewed(kit, "acme", target_epsilon=8, rounds=3) == []


def test_a_job_without_a_bound_is_warned(kit):
    (warning,) = reviewed(kit, noise_multiplier=1)
    assert "max_epsilon" in warning


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"plugins": {"builder": Options(mixed_precision="float16")}}, "/builder/mixed_precision"),
        ({"plugins": {"builder": Options(compile=True)}}, "/builder/compile"),
        ({"plugins": {"scheduler": Options(monitor="loss")}}, "/scheduler_config"),
        ({"plugins": {"warmup_scheduler": Options(monitor="loss")}}, "/warmup_config/scheduler_conf"),
        ({"job": {"optimizer_config": {"optimizer": "lbfgs"}}}, "/optimizer_config/optimizer"),
        ({"job": {"optimizer_config": {"optimizer": "sparseadam"}}}, "/optimizer_config/optimizer"),
        ({"target_epsilon": 3}, "/privacy-mechanisms/dp-sgd/target_epsilon"),
        (
            {"library": "keras", "noise_multiplier": 1, "ghost_clipping": True},
            "/privacy-mechanisms/dp-sgd/ghost_clipping",
        ),
    ],
)
def test_what_cannot_be_trained_privately_is_refused_at_once(kit, fields, path):
    with pytest.raises(PrivacyRefused) as caught:
        reviewed(kit, **fields)

    assert caught.value.errors[0]["path"] == path
    assert caught.value.remedy


def test_a_missing_opacus_is_told_with_the_extra(kit, site, trained, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)

    for attempt in (lambda: reviewed(kit), lambda: site.mechanism(CONFIG).prepare(trained)):
        with pytest.raises(PrivacyRefused, match="opacus, which is not installed") as caught:
            attempt()
        assert caught.value.remedy == "pip install locex-privacy[torch]"


def test_a_target_is_the_bound_too_where_no_other_is_given():
    config = validate(DpSgdConfig, {"max_grad_norm": 1, "target_epsilon": 8})

    assert (config.max_epsilon, config.model_dump()["max_epsilon"]) == (8, 8)
    assert validate(DpSgdConfig, {"max_grad_norm": 1, "target_epsilon": 8, "max_epsilon": 9}).max_epsilon == 9
    assert validate(DpSgdConfig, {"max_grad_norm": 1, "noise_multiplier": 1}).max_epsilon is None
