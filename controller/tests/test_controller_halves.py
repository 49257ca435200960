"""Several mechanisms in one training: who decodes, who averages, and which exclude each other."""

import sys

import numpy as np
import pytest
from safetensors.numpy import load_file

from locex.api import Contribution
from locex.errors import InvalidConfiguration, UnknownPlugin
from locex_controller.training.halves import load_halves
from locex_controller.training.spec import AggregationSpec, MechanismSpec
from locex_controller.training.wire import Replies

MODULE = '''
import numpy as np
from locex.api import Contribution, Stage
from locex.hookspecs import hookimpl
from locex.schemas.plugin import PluginConfig

class Nothing(PluginConfig):
    """Nothing to configure."""

class Step(PluginConfig):
    step: float = 1

class Decoder:
    def __init__(self, stage, factor, step):
        self.stage, self.factor, self.step = stage, factor, step

    def decode(self, contribution, current):
        if contribution.examples == 13:
            raise ValueError("unlucky")
        parameters = [tensor * self.factor + self.step for tensor in contribution.parameters]
        return Contribution(parameters, contribution.examples, contribution.metrics)

class Early:
    @hookimpl
    def locex_config_model(self):
        return Step

    @hookimpl
    def locex_create_aggregation(self, config):
        return Decoder(Stage.NOISE, 10, config.step)

class Late(Early):
    @hookimpl
    def locex_create_aggregation(self, config):
        return Decoder(Stage.COMPRESS, 2, config.step)

class Mean:
    plain_mean = True

    def configure(self, server_round):
        return {}

    def aggregate(self, server_round, current, contributions):
        return contributions[0].parameters

    def state(self):
        return {}

    def restore(self, state):
        pass

class Sealed(Mean):
    plain_mean = False

    def configure(self, server_round):
        return {"key": "k"}

    def fault_of(self, contribution, current):
        return "no seal" if contribution.parameters[0].dtype != np.uint8 else ""

    def aggregate(self, server_round, current, contributions):
        if len({len(one.parameters) for one in contributions}) > 1:
            raise ValueError("two sizes")
        return [np.frombuffer(b"sum", np.uint8), np.frombuffer(b"of", np.uint8), np.frombuffer(b"all", np.uint8)]

class Adaptive(Mean):
    plain_mean = False

class Average:
    made = Mean

    @hookimpl
    def locex_config_model(self):
        return Nothing

    @hookimpl
    def locex_create_aggregation(self):
        return self.made()

class Plain(Average):
    pass

class Seals(Average):
    made = Sealed

class Adapts(Average):
    made = Adaptive

class NodeOnly:
    pass
'''
ENTRIES = """[locex.aggregation]
early = controller_halves:Early
late = controller_halves:Late
plain = controller_halves:Plain
sealed = controller_halves:Seals
adaptive = controller_halves:Adapts

[locex.privacy]
node-only = controller_halves:NodeOnly
"""


@pytest.fixture(autouse=True)
def installed_halves(tmp_path, monkeypatch):
    site = tmp_path / "site"
    folder = site / "controller_halves-1.0.dist-info"
    folder.mkdir(parents=True)
    (site / "controller_halves.py").write_text(MODULE)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: controller-halves\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(ENTRIES)
    monkeypatch.setenv("LOCEX_PLUGIN_FOLDER", str(site))
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.delitem(sys.modules, "controller_halves", raising=False)


def halves(*mechanisms, chosen=None, **config):
    asked = [MechanismSpec(name=name, config=config if name == "early" else {}) for name in mechanisms]
    return load_halves(chosen or AggregationSpec(), asked)


def sent(value, examples=1, dtype=np.float32):
    return Contribution([np.full(2, value, dtype)], examples, {})


def test_decoders_act_in_the_reverse_order_of_their_stages():
    for order in (("early", "late"), ("late", "early")):
        both = halves(*order, step=3, nodes_own=9)
        replies = both.accepted(Replies({"a": sent(1), "b": sent(1, examples=13)}, {"c": "died"}), [np.zeros(2)])
        # The later stage is undone first: (1 · 2 + 1) · 10 + 3.
        assert replies.results["a"].parameters[0].tolist() == [33, 33]
        assert replies.failures == {"c": "died", "b": "contribution refused: unlucky"}
        assert type(both.aggregation).__name__ == "WeightedAverage"


def test_what_was_decoded_is_checked_as_any_contribution():
    replies = halves("late").accepted(Replies({"a": sent(np.inf)}), [np.zeros(2)])
    assert replies.failures == {"a": "contribution refused: tensor 0 is not finite"}


def test_a_mechanism_of_nodes_only_needs_nothing_here():
    assert type(halves("node-only").aggregation).__name__ == "WeightedAverage"


def test_an_unknown_mechanism_is_refused_with_those_of_both_sides():
    with pytest.raises(UnknownPlugin, match=r"no privacy mechanism named 'nonsense'.*early.*node-only") as raised:
        halves("early", "nonsense")
    assert raised.value.errors[0]["path"] == "/privacy-mechanisms/nonsense"


@pytest.mark.parametrize("order", [("plain", "sealed"), ("sealed", "plain")])
def test_a_plain_mean_gives_way_to_what_cannot_be_read(order):
    both = halves(*order, "node-only")
    assert both.opaque
    assert both.aggregation.configure(1) == {"key": "k"}
    replies = both.accepted(Replies({"a": sent(1), "b": sent(1, dtype=np.uint8)}), [np.zeros(2)])
    assert (list(replies.results), replies.failures) == (["b"], {"a": "contribution refused: no seal"})


@pytest.mark.parametrize(
    ("pair", "reason"),
    [
        (("adaptive", "sealed"), "both average"),
        (("plain", "adaptive"), "both average"),
        (("late", "sealed"), "what is encrypted cannot be decoded"),
    ],
)
def test_pairs_that_exclude_each_other_are_both_named(pair, reason):
    with pytest.raises(InvalidConfiguration, match=f"'{pair[0]}' and '{pair[1]}' exclude each other.*{reason}"):
        halves(*pair)


def test_a_mechanism_takes_the_place_of_the_usual_strategy_only():
    usual = AggregationSpec(name="fedavg", pointer="/strategy", stated=True)
    assert halves("adaptive", chosen=usual).warnings == (
        "'strategy' was ignored: the aggregation of the privacy mechanism takes its place",
    )
    assert halves("late", chosen=usual).warnings == ()
    for name, pointer in (("median", "/strategy"), ("fedavg", "/aggregation")):
        with pytest.raises(InvalidConfiguration, match="chooses 'adaptive' already") as raised:
            halves("adaptive", chosen=AggregationSpec(name=name, pointer=pointer, stated=True))
        assert raised.value.errors[0]["path"] == pointer


def test_fields_that_the_aggregation_does_not_have_are_refused():
    chosen = AggregationSpec(config={"step": 2}, config_pointer="/strategy_conf")
    for mechanisms in (("adaptive",), ("late",), ()):
        with pytest.raises(InvalidConfiguration) as raised:
            halves(*mechanisms, chosen=chosen)
        assert raised.value.errors[0]["path"] == "/strategy_conf/step"


def test_a_decoder_is_no_strategy():
    with pytest.raises(InvalidConfiguration, match="'late' only decodes"):
        halves(chosen=AggregationSpec(name="late"))


async def test_global_parameters_that_cannot_be_read_pass_through(
    training_engine, flower_node, collector_port, tmp_path
):
    """Each round's ciphertext goes to the nodes, into the checkpoint, and on after a restart."""
    plan = {"num_rounds": 3, "round_timeout": 30, "wait_timeout": 60}
    engine = await training_engine(plan, mechanisms=[{"name": "sealed"}, {"name": "plain"}])
    node = flower_node(collector_port, 1, 10, "sealed", "pause")
    await engine.until("round", round=1)
    assert not engine.of("warning")
    engine.child.kill()
    await engine.end()
    again = await training_engine(plan, mechanisms=[{"name": "sealed"}, {"name": "plain"}], reported=1)
    assert await again.end() == 0, again.messages
    assert [(one["round"], one["evaluation"]) for one in again.of("round")][-2:] == [
        (2, {"loss": 1, "accuracy": 0.1}),
        (3, {"loss": 1, "accuracy": 0.1}),
    ]
    kept = load_file(tmp_path / "run" / "checkpoint.safetensors")
    assert [bytes(kept[name]) for name in ("0", "1", "2")] == [b"sum", b"of", b"all"]
    told = node.communicate(timeout=20)[0].splitlines()
    assert '"fit_clients": 1' in told[0]
    assert '"key": "k"' in told[0]


async def test_contributions_that_do_not_go_together_cost_the_attempt(training_engine, flower_node, collector_port):
    plan = {
        "num_rounds": 1,
        "round_attempts": 2,
        "fraction_evaluate": 0.5,
        "min_available_clients": 2,
        "round_timeout": 30,
        "wait_timeout": 60,
    }
    engine = await training_engine(plan, mechanisms=[{"name": "sealed"}])
    flower_node(collector_port, 1, 10, "sealed")
    flower_node(collector_port, 1, 10, "sealed", "more")
    assert await engine.end() == 1
    assert [one["reason"] for one in engine.of("attempt")] == ["the aggregate is refused: two sizes"] * 2
    assert engine.of("warning")[0]["text"].startswith("fraction_evaluate is 0.5: only nodes that evaluate")
