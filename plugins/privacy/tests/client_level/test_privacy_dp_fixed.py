"""``dp-fixed`` on the node: what leaves, what is charged, what is refused."""

import json
import threading
from importlib.metadata import entry_points

import numpy as np
import pytest

from locex.api import Stage, Update
from locex.errors import InvalidConfiguration, PrivacyRefused
from locex.schemas.base import validate
from locex_privacy.dp_fixed.mechanism import DpFixedConfig
from locex_privacy.noise import system_normal


def silent(size):
    return np.zeros(size)


def seeded(seed=0):
    return np.random.default_rng(seed).standard_normal


def model(scale=1.0, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return {
        "weight": (rng.normal(size=(20, 30)) * scale).astype(dtype),
        "bias": (rng.normal(size=30) * scale).astype(dtype),
        "count": np.array(seed + 7, np.int64),
    }


def released(mechanism, reference, change):
    """Run one round in which training adds ``change``; return the update that leaves."""
    trained = {name: (tensor + change[name]).astype(tensor.dtype) for name, tensor in reference.items()}
    mechanism.before_fit({})
    return mechanism.outgoing(Update(trained, reference, examples=321, metrics={"loss": 0.5}), {})


def rounds_until_refused(mechanism):
    for rounds in range(1000):
        try:
            mechanism.before_fit({})
        except PrivacyRefused:
            return rounds
    raise AssertionError("never refused")


def flat(parameters, reference):
    names = ("weight", "bias")
    return np.concatenate([(parameters[name].astype(np.float64) - reference[name]).ravel() for name in names])


# --- what leaves


def test_rounding_beside_the_servers_weights_comes_after_the_noise(site):
    step = 2.0**-32  # between floats at 2^20
    reference = {"w": np.array([2.0**20])}
    mechanism = site.mechanism(lambda size: np.full(size, 0.7 / 0.6), clip_norm=0.6 * step)

    update = released(mechanism, reference, {"w": np.ones(1)})

    # 0.6 of the update and 0.7 of noise are 1.3 steps; rounded one by one they would be 2
    assert update.parameters["w"][0] - 2.0**20 == step


def test_a_servers_clipping_norm_without_room_for_noise_is_refused(site):
    mechanism = site.mechanism(noise_multiplier=0.4)
    with pytest.raises(PrivacyRefused, match="no positive number from 1e-100 on"):
        mechanism.before_fit({"dpfedavg_clip_norm": 5e-324})  # 0.4 times it is 0
    assert not site.ledger.events


@pytest.mark.parametrize("norm", [1e-3, 0.49, 0.51, 7, 1e6])
def test_the_update_is_clipped_over_all_tensors_together(site, norm):
    reference = model(dtype=np.float64)
    change = model(seed=1, dtype=np.float64)
    size = np.linalg.norm(np.concatenate([change["weight"].ravel(), change["bias"]]))
    change = {name: tensor * norm / size for name, tensor in change.items()}

    update = released(site.mechanism(silent, clip_norm=0.5), reference, change)

    moved, meant = flat(update.parameters, reference), flat(change, {"weight": 0.0, "bias": 0.0})
    assert np.linalg.norm(moved) <= 0.5 * (1 + 1e-12)
    np.testing.assert_allclose(moved, meant * min(1, 0.5 / norm), atol=1e-9)


def test_noise_of_z_times_c_reaches_every_coordinate(site):
    reference = {"a": np.zeros((300, 400)), "b": np.zeros(80_000)}

    update = released(site.mechanism(seeded(), clip_norm=0.3, noise_multiplier=2.5), reference, {"a": 0, "b": 0})

    noise = np.concatenate([update.parameters["a"].ravel(), update.parameters["b"]])
    assert noise.std() == pytest.approx(0.75, rel=0.02)  # 200,000 values: the standard error is 0.16 %
    assert abs(noise.mean()) < 0.01
    assert np.count_nonzero(noise) == noise.size
    assert abs(np.corrcoef(noise[:80_000], noise[-80_000:])[0, 1]) < 0.02


def test_the_release_is_the_clipped_update_plus_the_noise_drawn(site):
    reference, change = model(), {"weight": 0.5, "bias": -0.5, "count": 1}

    quiet = released(site.mechanism(silent, noise_multiplier=3), reference, change)
    noisy = released(site.mechanism(np.ones, noise_multiplier=3), reference, change)

    np.testing.assert_allclose(flat(noisy.parameters, quiet.parameters), 3.0, atol=1e-5)


def test_nothing_else_leaves(site):
    reference = model()

    update = released(site.mechanism(), reference, {"weight": 1, "bias": 1, "count": 100})

    assert update.parameters["count"] == 7
    assert update.parameters["count"].dtype == np.int64
    assert (update.examples, update.metrics) == (1, {})
    assert site.mechanism().withholds_metrics
    assert site.mechanism().stage is Stage.NOISE


def test_types_shapes_order_and_inputs_stay(site):
    reference = model() | {"half": np.zeros((2, 1), np.float16), "scalar": np.array(2.0)}
    trained = {name: tensor.copy() for name, tensor in reference.items()}
    for tensor in (*reference.values(), *trained.values()):
        tensor.flags.writeable = False
    mechanism = site.mechanism()
    mechanism.before_fit({})

    update = mechanism.outgoing(Update(trained, reference, 1, {}), {})

    assert list(update.parameters) == list(reference)
    for name, tensor in update.parameters.items():
        assert (tensor.dtype, tensor.shape) == (reference[name].dtype, reference[name].shape)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_update_that_is_not_finite_is_refused(site, bad):
    with pytest.raises(PrivacyRefused, match="not finite"):
        released(site.mechanism(), model(), {"weight": bad, "bias": 0, "count": 0})


def test_an_update_too_large_to_measure_is_refused(site):
    reference = {"a": np.zeros(2)}

    with np.errstate(over="ignore"), pytest.raises(PrivacyRefused, match="not finite"):
        released(site.mechanism(), reference, {"a": 1e300})


# --- the noise's source


def test_the_default_noise_never_repeats(site):
    reference, change = model(), {"weight": 0, "bias": 0, "count": 0}
    np.random.seed(0)  # noqa: NPY002 -- a seed must not reach the noise
    first = released(site.mechanism(), reference, change)
    np.random.seed(0)  # noqa: NPY002 -- likewise
    second = released(site.mechanism(), reference, change)

    assert not np.any(flat(first.parameters, reference) == flat(second.parameters, reference))


@pytest.mark.parametrize("size", [0, 1, 2, 3, 524_288, 524_289, 1_000_001])
def test_system_noise_has_the_size_asked_for(size):
    noise = system_normal(size)

    assert noise.shape == (size,)
    assert np.isfinite(noise).all()


def test_system_noise_is_standard_normal():
    from scipy import stats

    noise = system_normal(1_000_000)

    # true entropy: these bounds fail by chance once in more than 10⁹ runs
    assert abs(noise.mean()) < 6.5e-3
    assert abs(noise.std() - 1) < 5e-3
    assert stats.kstest(noise, "norm").statistic < 3.5e-3
    assert abs(np.corrcoef(noise[:-1], noise[1:])[0, 1]) < 6.5e-3
    assert abs(np.corrcoef(noise[:262_144] ** 2, noise[262_144:524_288] ** 2)[0, 1]) < 0.013


# --- the ledger


def test_a_round_is_charged_before_training_and_reported(site):
    site.mechanism(noise_multiplier=1.5).before_fit({"server_round": 1})

    assert site.ledger.read() == (1, [{"mechanism": "gaussian", "noise_multiplier": 1.5}])
    assert site.epsilon() == pytest.approx(2.7, abs=0.1)


def test_epsilon_grows_over_rounds_and_over_jobs_on_one_data_set(site, site_of):
    grown = []
    for _ in range(3):
        mechanism = site.mechanism(noise_multiplier=2)
        for _ in range(2):
            mechanism.before_fit({})
            grown.append(site.epsilon())

    assert grown == sorted(set(grown))
    alone = site_of()
    alone.mechanism(noise_multiplier=2 / 6**0.5).before_fit({})
    assert grown[-1] == pytest.approx(alone.epsilon())


def test_a_crash_between_charge_and_release_keeps_the_charge(site):
    mechanism = site.mechanism()
    mechanism.before_fit({})
    state = json.loads(json.dumps(mechanism.state()))
    first = site.epsilon()

    resumed = site.mechanism()
    resumed.restore(state)
    with pytest.raises(PrivacyRefused, match="not charged"):
        resumed.outgoing(Update(model(), model(), 1, {}), {})
    resumed.before_fit({})

    assert site.epsilon() > first
    assert len(site.ledger.events) == 2


def test_one_charge_pays_for_one_release(site):
    mechanism = site.mechanism()
    released(mechanism, model(), {"weight": 0, "bias": 0, "count": 0})

    with pytest.raises(PrivacyRefused, match="not charged"):
        mechanism.outgoing(Update(model(), model(), 1, {}), {})


def test_the_round_that_would_pass_the_budget_is_refused(site):
    mechanism = site.mechanism(noise_multiplier=2, max_epsilon=2.5)
    mechanism.before_fit({})
    within = site.epsilon()

    with pytest.raises(PrivacyRefused) as caught:
        mechanism.before_fit({})

    assert "'patients' (unit client, δ=1e-05) from 1.9" in caught.value.message
    assert "past max_epsilon=2.5" in caught.value.message
    assert "noise_multiplier" in caught.value.remedy
    assert (len(site.ledger.events), site.epsilon()) == (1, within)
    with pytest.raises(PrivacyRefused, match="not charged"):
        mechanism.outgoing(Update(model(), model(), 1, {}), {})


def test_the_budget_counts_what_other_jobs_spent(site):
    site.mechanism(noise_multiplier=1).before_fit({})

    with pytest.raises(PrivacyRefused, match=r"from 4\.377"):
        site.mechanism(noise_multiplier=100, max_epsilon=4).before_fit({})


def test_a_lost_race_is_run_again_with_what_the_winner_charged(site, site_of):
    site.ledger.races = 1

    site.mechanism(noise_multiplier=2).before_fit({})

    assert [event["noise_multiplier"] for event in site.ledger.read()[1]] == [5, 2]
    alone = site_of()
    alone.mechanism(noise_multiplier=(1 / 4 + 1 / 25) ** -0.5).before_fit({})
    assert site.epsilon() == pytest.approx(alone.epsilon())


def test_a_lost_race_may_use_up_the_budget(site):
    site.ledger.races = 1

    with pytest.raises(PrivacyRefused, match="max_epsilon"):
        site.mechanism(noise_multiplier=2, max_epsilon=2).before_fit({})

    assert len(site.ledger.events) == 1


def test_races_without_end_are_given_up(site):
    site.ledger.races = 10**6

    with pytest.raises(PrivacyRefused, match="changed 100 times"):
        site.mechanism(noise_multiplier=2).before_fit({})


def test_jobs_at_once_never_pass_the_budget_together(site, site_of):
    together = threading.Barrier(2)

    def job():
        together.wait()
        rounds_until_refused(site.mechanism(noise_multiplier=8, max_epsilon=3))

    threads = [threading.Thread(target=job) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    affordable = rounds_until_refused(site_of().mechanism(noise_multiplier=8, max_epsilon=3))
    assert len(site.ledger.events) == affordable > 10
    assert max(epsilon for _, epsilon in site.spent) <= 3


@pytest.mark.parametrize(
    "event",
    [
        {"mechanism": "laplace", "noise_multiplier": 1.0},
        {"mechanism": "gaussian"},
        {"mechanism": "gaussian", "noise_multiplier": 0},
        {"mechanism": "gaussian", "noise_multiplier": "1"},
        {"mechanism": "gaussian", "noise_multiplier": 1.0, "count": 100},
        {},
    ],
)
def test_what_cannot_be_accounted_for_is_never_left_out(site, event):
    site.ledger.append(0, event)

    with pytest.raises(PrivacyRefused, match="cannot be accounted for"):
        site.mechanism().before_fit({})

    assert len(site.ledger.events) == 1


# --- configuration


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"noise_multiplier": 0}, "/noise_multiplier"),
        ({"noise_multiplier": -1}, "/noise_multiplier"),
        ({"noise_multiplier": 1e-18}, "/noise_multiplier"),
        ({"noise_multiplier": "nan"}, "/noise_multiplier"),
        ({"noise_multiplier": None}, "/noise_multiplier"),
        ({"clip_norm": 0}, "/clip_norm"),
        ({"clip_norm": "inf"}, "/clip_norm"),
        ({"delta": 0}, "/delta"),
        ({"delta": 1}, "/delta"),
        ({"max_epsilon": 0}, "/max_epsilon"),
        ({"server_side_noising": "perhaps"}, "/server_side_noising"),
        ({"weight_cap": 0}, "/weight_cap"),
        ({"num_sampled_clients": 0}, "/num_sampled_clients"),
    ],
)
def test_configurations_that_would_not_protect_are_refused(site, fields, path):
    with pytest.raises(InvalidConfiguration) as caught:
        site.mechanism(**fields)

    assert caught.value.errors[0]["path"] == path


def test_the_clipping_norm_has_its_older_name_too():
    config = validate(DpFixedConfig, {"init_clip_norm": "0.1", "noise_multiplier": "1.5"})

    assert (config.clip_norm, config.noise_multiplier, config.delta, config.max_epsilon) == (0.1, 1.5, 1e-5, None)


def test_the_installed_plugin_protects_with_the_systems_noise(site):
    (entry,) = entry_points(group="locex.privacy", name="dp-fixed")
    plugin = entry.load()()
    config = validate(plugin.locex_config_model(), {"clip_norm": 1, "noise_multiplier": 1})
    mechanism = plugin.locex_create_privacy(config, site.context)
    session = object()
    for federation in ("flower-grpc", "flower-superlink"):
        mechanism.requires(federation)
    mechanism.prepare(session)
    arrived = [np.zeros(3)]

    assert mechanism.incoming(arrived, {}) is arrived
    update = released(mechanism, {"a": np.zeros(10_000)}, {"a": 0})
    assert update.parameters["a"].std() == pytest.approx(1, abs=0.1)
