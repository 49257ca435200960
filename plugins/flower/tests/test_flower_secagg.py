"""``secagg``: this node's half against Flower's own SecAgg+ workflow, in one process."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.common import FitIns, bytes_to_ndarray, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key, Stage
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.compat.common import recorddict_compat as compat
from flwr.server.client_manager import SimpleClientManager
from flwr.server.compat.grid_client_proxy import GridClientProxy
from flwr.server.compat.legacy_context import LegacyContext
from flwr.server.strategy import FedAvg
from flwr.server.workflow import SecAggPlusWorkflow
from flwr.supercore.task_identity import TaskIdentity

from locex.api import Update
from locex.errors import BadParameters, PrivacyRefused
from locex.keystream import uniform_integers
from locex_flower import secagg_node
from locex_flower.answer import reason_of
from locex_flower.secagg import SecAggConfig, SecureAggregation
from locex_flower.secagg_node import MASKS, STRONG, MaskedAnswers

SIZE = 20_000
SETTINGS = {"num_shares": 1.0, "reconstruction_threshold": 0.5, "max_weight": 100.0}


@pytest.fixture(autouse=True)
def server_app(monkeypatch):
    """Messages are made by a task of a run."""
    for name, value in (("_task_id", 1), ("_run_id", 1), ("_node_id", 1)):
        monkeypatch.setattr(TaskIdentity, name, value)


class Trained:
    """A participant whose training gives the weights that the test chose, after its mechanism."""

    def __init__(self, mechanism, weights, examples, error=None):
        self.mechanism, self.weights, self.examples, self.error = mechanism, weights, examples, error
        self.rounds, self.complete, self.stopping = 1, False, False
        self.received = None

    def waiting(self, reason):
        """Tell nobody."""

    def parameters(self):
        return {"a": self.weights}

    def fit(self, parameters, config):
        self.received = parameters, config
        if self.error:
            raise self.error
        named = {"layer": self.weights, "count": np.array(3, np.int64)}
        return self.mechanism.outgoing(Update(named, named, self.examples, {"loss": 0.5}), config)


class Node:
    def __init__(self, node_id, weights, examples, error=None, **settings):
        self.id = node_id
        self.mechanism = SecureAggregation(SecAggConfig(**{**SETTINGS, **settings}))
        self.participant = Trained(self.mechanism, weights, examples, error)
        self.answers = MaskedAnswers(self.mechanism)
        self.sent = {}
        self.fatal = None
        self.dies_before = None

    def answer(self, message):
        stage = message.content.config_records[RECORD_KEY_CONFIGS][Key.STAGE]
        if stage == self.dies_before:
            return None
        answered = self.answers.answer(self.participant, message)
        self.fatal = answered.fatal or self.fatal
        self.sent[stage] = answered.reply
        return answered.reply

    def masked(self):
        """Return the masked tensors as they went over the wire, the weight first."""
        told = self.sent[Stage.COLLECT_MASKED_VECTORS].content.config_records[RECORD_KEY_CONFIGS]
        return [bytes_to_ndarray(one) for one in told[Key.MASKED_PARAMETERS]]


class Grid:
    """Hands the workflow's messages to nodes in this process; ``changed`` sees each before its node."""

    def __init__(self, nodes, changed=lambda message: None):
        self.nodes = {node.id: node for node in nodes}
        self.changed = changed

    def send_and_receive(self, messages, *, timeout=None):
        replies = []
        for message in messages:
            arrived = message_from_proto(message_to_proto(message))
            arrived.metadata.__dict__["_message_id"] = "m"
            self.changed(arrived)
            if (reply := self.nodes[arrived.metadata.dst_node_id].answer(arrived)) is not None:
                reply.metadata.__dict__["_src_node_id"] = arrived.metadata.dst_node_id
                replies.append(reply)
        return replies


def strong(message):
    configs = message.content.config_records[RECORD_KEY_CONFIGS]
    if configs[Key.STAGE] == Stage.SETUP:
        configs[MASKS] = STRONG


class Chosen(FedAvg):
    def __init__(self, nodes):
        super().__init__()
        self.nodes, self.average, self.examples = nodes, None, None

    def configure_fit(self, server_round, parameters, client_manager):
        return [(GridClientProxy(node.id, None, 0), FitIns(parameters, {"server_round": 1})) for node in self.nodes]

    def aggregate_fit(self, server_round, results, failures):
        self.average = parameters_to_ndarrays(results[0][1].parameters)
        self.examples = [result.num_examples for _, result in results]
        return None, {}


def summed(nodes, changed=strong, **settings):
    """Run Flower's workflow over nodes; return the average it found, or None."""
    fields = {key: value for key, value in {**SETTINGS, **settings}.items() if key != "flower_masks"}
    strategy = Chosen(nodes)
    records = RecordDict({"config": ConfigRecord({"current_round": 1})})
    records["parameters"] = compat.parameters_to_arrayrecord(ndarrays_to_parameters([np.zeros(1)]), True)
    context = LegacyContext(Context(0, 0, {}, records, {}), None, strategy, SimpleClientManager())
    SecAggPlusWorkflow(**fields)(Grid(nodes, changed), context)
    return strategy.average


@pytest.fixture
def whole_seeds(monkeypatch):
    """Let Flower's workflow unmask as our collector does."""
    module = secagg_node.importlib.import_module("flwr.server.workflow.secure_aggregation.secaggplus_workflow")
    monkeypatch.setattr(module, "pseudo_rand_gen", uniform_integers)


def weights_of(number, seed=5):
    return np.random.default_rng(seed + number).normal(0, 0.3, SIZE).astype(np.float32)


def nodes_of(examples, **settings):
    return [Node(100 + n, weights_of(n), count, **settings) for n, count in enumerate(examples)]


def plain(nodes):
    total = sum(node.participant.examples for node in nodes)
    return sum(node.participant.weights.astype(np.float64) * node.participant.examples for node in nodes) / total


def bound(nodes, config):
    """Return how far the secure average may be from the plain one (docs/privacy/secagg.md derives it)."""
    heaviest = max(np.abs(node.participant.weights).max() for node in nodes)
    steps = sum(round(node.participant.examples / config.max_weight * config.quantization_range) for node in nodes)
    return len(nodes) * (2 * config.clipping_range + heaviest) / steps


@pytest.mark.parametrize("examples", [(90, 40, 100), (10, 1), (7, 50, 3, 99, 20)])
def test_the_sum_is_the_weighted_average_within_the_error_of_rounding(whole_seeds, examples):
    nodes = nodes_of(examples)
    layer, count = summed(nodes)
    allowed = bound(nodes, nodes[0].mechanism.config)
    assert allowed < 1e-3
    assert np.abs(layer - plain(nodes)).max() <= allowed
    assert count.shape == (1,)
    assert abs(count[0] - 3) <= allowed


def test_one_node_alone_sends_uniform_noise_that_differs_each_time(whole_seeds):
    first, second = nodes_of((90, 40, 100)), nodes_of((90, 40, 100))
    summed(first)
    summed(second)
    one, again = first[0].masked(), second[0].masked()
    assert [part.shape for part in one] == [(1,), (SIZE,), (1,)]
    values = one[1]
    # Chi-squared of 64 bins; 63 degrees of freedom: beyond 150 in one of 10^8 runs.
    counts = np.histogram(values, bins=64, range=(0, 2**32))[0]
    assert ((counts - SIZE / 64) ** 2 / (SIZE / 64)).sum() < 150
    # Not a trace of the weights: a correlation of 0.045 is six standard deviations.
    assert abs(np.corrcoef(values, first[0].participant.weights)[0, 1]) < 0.045
    assert (values == again[1]).mean() < 1e-3
    in_clear = first[0].sent[Stage.COLLECT_MASKED_VECTORS].content
    assert all(not record for record in in_clear.array_records.values())
    fit = compat.recorddict_to_fitres(in_clear, keep_input=True)
    assert (fit.num_examples, fit.metrics) == (90, {"loss": 0.5})


def test_a_node_lost_between_keys_and_masked_update_costs_its_share_alone(whole_seeds):
    nodes = nodes_of((90, 40, 100))
    nodes[1].dies_before = Stage.COLLECT_MASKED_VECTORS
    left = [nodes[0], nodes[2]]
    layer, _ = summed(nodes)
    assert np.abs(layer - plain(left)).max() <= bound(left, nodes[0].mechanism.config)


def test_a_node_lost_after_its_masked_update_still_counts(whole_seeds):
    nodes = nodes_of((90, 40, 100))
    nodes[1].dies_before = Stage.UNMASK
    layer, _ = summed(nodes)
    assert np.abs(layer - plain(nodes)).max() <= bound(nodes, nodes[0].mechanism.config)


def test_below_the_threshold_there_is_no_sum(whole_seeds):
    nodes = nodes_of((90, 40, 100))
    for node in nodes[1:]:
        node.dies_before = Stage.COLLECT_MASKED_VECTORS
    assert summed(nodes) is None


def test_two_rounds_on_the_same_nodes(whole_seeds):
    nodes = nodes_of((90, 40, 100))
    averages = [summed(nodes)[0] for _ in range(2)]
    allowed = 2 * bound(nodes, nodes[0].mechanism.config)
    assert np.abs(averages[0] - averages[1]).max() <= allowed


def test_flowers_masks_fold_their_seeds_and_ours_do_not():
    """Seeds whose 32-bit words have the same exclusive or give the same mask: 2^32 of them can be told apart."""
    one, other = bytes(range(32)), bytes(range(16, 32)) + bytes(range(16))
    shapes = [(1000,)]
    np.testing.assert_array_equal(pseudo_rand_gen(one, 2**32, shapes)[0], pseudo_rand_gen(other, 2**32, shapes)[0])
    assert (uniform_integers(one, 2**32, shapes)[0] != uniform_integers(other, 2**32, shapes)[0]).all()


def test_a_server_with_flowers_masks_alone_is_refused_unless_the_job_takes_them():
    careful, careless = nodes_of((90, 40, 100)), nodes_of((90, 40, 100), flower_masks=True)
    assert summed(careful, changed=lambda message: None) is None
    assert all("flower_masks" in node.fatal.remedy for node in careful)
    layer, _ = summed(careless, changed=lambda message: None)
    assert np.abs(layer - plain(careless)).max() <= bound(careless, careless[0].mechanism.config)


@pytest.mark.parametrize(
    ("proposed", "told"),
    [
        ({"reconstruction_threshold": 1.0}, "threshold 3, this job's 2"),
        ({"clipping_range": 4.0}, "clipping_range 4.0, this job's 8.0"),
        ({"quantization_range": 2**20}, "target_range 1048576, this job's 4194304"),
        ({"modulus_range": 2**30}, "mod_range 1073741824, this job's 4294967296"),
        ({"max_weight": 1000.0}, "max_weight 1000.0, this job's 100.0"),
    ],
)
def test_a_server_that_proposes_something_else_is_refused(proposed, told):
    nodes = nodes_of((90, 40, 100))
    assert summed(nodes, **proposed) is None
    assert all(told in node.fatal.message for node in nodes)
    assert all(node.participant.received is None for node in nodes)


def test_an_update_in_clear_is_refused():
    node = Node(100, weights_of(0), 10)
    content = RecordDict({"arrays": ArrayRecord([np.zeros(SIZE)]), "config": ConfigRecord({"server-round": 1})})
    message = Message(content, 100, MessageType.TRAIN)
    message.metadata.__dict__["_message_id"] = "m"
    answered = node.answers.answer(node.participant, message)
    assert answered.reply.has_error()
    assert isinstance(answered.fatal, PrivacyRefused)
    assert "in clear" in answered.fatal.message
    assert node.participant.received is None


def test_a_server_that_asks_for_both_secrets_of_a_node_gets_neither(whole_seeds):
    def curious(message):
        strong(message)
        configs = message.content.config_records[RECORD_KEY_CONFIGS]
        if configs[Key.STAGE] == Stage.UNMASK:
            configs[Key.DEAD_NODE_ID_LIST] = configs[Key.ACTIVE_NODE_ID_LIST][:1]

    nodes = nodes_of((90, 40, 100))
    assert summed(nodes, changed=curious) is None
    assert all("both secrets" in node.fatal.message for node in nodes)
    assert all(node.sent[Stage.UNMASK].has_error() for node in nodes)


def test_a_server_that_breaks_the_protocol_gets_an_error_and_the_node_stays():
    node = Node(100, weights_of(0), 10)
    content = RecordDict(
        {RECORD_KEY_CONFIGS: ConfigRecord({Key.STAGE: Stage.UNMASK, "active_nids": [], "dead_nids": []})}
    )
    message = Message(content, 100, MessageType.TRAIN)
    message.metadata.__dict__["_message_id"] = "m"
    answered = node.answers.answer(node.participant, message)
    assert "expect setup stage" in answered.reply.error.reason
    assert answered.fatal is None


def test_a_refused_training_is_this_nodes_failure_alone(whole_seeds):
    nodes = nodes_of((90, 40, 100))
    nodes[1].participant.error = BadParameters("layer is not finite")
    layer, _ = summed(nodes)
    left = [nodes[0], nodes[2]]
    assert np.abs(layer - plain(left)).max() <= bound(left, nodes[0].mechanism.config)
    assert nodes[1].sent[Stage.COLLECT_MASKED_VECTORS].error.reason == "parameters-refused: layer is not finite"
    assert nodes[1].fatal is None


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"examples": 101}, "101 examples, secagg's max_weight is 100"),
        ({"weight": 8.01}, "layer reaches more than secagg's clipping_range of 8 when weighted"),
    ],
)
def test_what_would_be_clipped_or_overflow_is_refused(changes, told):
    mechanism = SecureAggregation(SecAggConfig(**SETTINGS))
    layer = {"layer": np.full(3, changes.get("weight", 1.0))}
    with pytest.raises(PrivacyRefused, match=told) as found:
        mechanism.outgoing(Update(layer, layer, changes.get("examples", 100), {}), {})
    assert "8.01" not in reason_of(found.value)  # the server is not told how far a weight reaches


def test_a_server_that_names_a_neighbour_more_than_once_gets_nothing(whole_seeds):
    """A pair's mask that is added 2^k times leaves the k lowest bits of every weight without one."""

    def curious(message):
        strong(message)
        configs = message.content.config_records[RECORD_KEY_CONFIGS]
        if configs[Key.STAGE] == Stage.COLLECT_MASKED_VECTORS:
            configs[Key.SOURCE_LIST] = configs[Key.SOURCE_LIST][:1] * 64
            configs[Key.CIPHERTEXT_LIST] = configs[Key.CIPHERTEXT_LIST][:1] * 64

    nodes = nodes_of((90, 40, 100))
    assert summed(nodes, changed=curious) is None
    assert all("more than once" in node.fatal.message for node in nodes)
    assert all(node.participant.received is None for node in nodes)


def test_what_a_fault_of_the_training_says_stays_at_the_node(whole_seeds):
    nodes = nodes_of((90, 40, 100))
    nodes[1].participant.error = IndexError("target 7 is out of bounds")
    assert summed(nodes) is not None
    assert nodes[1].sent[Stage.COLLECT_MASKED_VECTORS].error.reason == "secagg: the training raised IndexError"


def test_nothing_leaves_but_through_the_masking():
    mechanism = SecureAggregation(SecAggConfig(**SETTINGS))
    layer = {"layer": np.ones(3)}
    sent = mechanism.outgoing(Update(layer, layer, 10, {"loss": 1.0}), {})
    assert (sent.parameters, sent.examples, sent.metrics) == ({}, 10, {"loss": 1.0})
    np.testing.assert_array_equal(mechanism.take(), [np.ones(3)])
    with pytest.raises(PrivacyRefused, match="no update to mask"):
        mechanism.take()


def test_more_rounds_than_the_node_takes_part_in_are_seen_at_their_setup():
    node = Node(100, weights_of(0), 10)
    configs = {Key.STAGE: Stage.SETUP, Key.SAMPLE_NUMBER: 3}
    for group, beyond in (("1", False), ("2", True)):
        message = Message(
            RecordDict({RECORD_KEY_CONFIGS: ConfigRecord(configs)}), 100, MessageType.TRAIN, group_id=group
        )
        assert node.answers.trains_beyond(node.participant, message) is beyond
    configs = {Key.STAGE: Stage.UNMASK}
    node.participant.complete = True  # a node waits longer for the unmasking than it waits for an evaluation
    message = Message(RecordDict({RECORD_KEY_CONFIGS: ConfigRecord(configs)}), 100, MessageType.TRAIN, group_id="1")
    assert node.answers.trains_beyond(node.participant, message) is False
