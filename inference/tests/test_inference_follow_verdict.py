"""Which new version may serve in place of another."""

from __future__ import annotations

import math

import numpy as np
import pytest

from locex_inference.following.scoring import Scorer
from locex_inference.following.verdict import Findings, Report, Score, Tensor, refusal


def findings(value=0.9, measure="accuracy", *, finite=True, classes=10, name="output"):
    return Findings(
        inputs=[Tensor(name="input", datatype="FP32", shape=[-1, 4])],
        outputs=[Tensor(name=name, datatype="FP32", shape=[-1, classes])],
        finite=finite,
        score=None if value is None else Score(measure=measure, value=value),
    )


def verdict(candidate, served=None, *, margin=0.02, required=False, note=""):
    return refusal(
        Report(candidate=candidate, served=served, examples=100, note=note), margin=margin, required=required
    )


def test_a_version_about_as_good_as_the_served_one_may_serve():
    assert verdict(findings(0.881), findings(0.9)) == ""
    assert verdict(findings(1.01, "mean squared error"), findings(1.0, "mean squared error")) == ""
    assert verdict(findings(0.1)) == ""  # nothing serves yet


def test_a_worse_version_is_refused_with_both_scores():
    reason = verdict(findings(0.5), findings(0.9))
    assert reason == (
        "accuracy 0.5 on 100 local test examples is worse than the served version's 0.9 by more than the margin of 0.02"
    )
    assert "mean squared error 2" in verdict(findings(2, "mean squared error"), findings(1, "mean squared error"))


def test_answers_must_be_finite_and_of_the_same_form():
    assert "not all finite" in verdict(findings(finite=False))
    assert "its outputs are output FP32 [-1, 3]" in verdict(findings(classes=3), findings())
    assert "its outputs are logits FP32" in verdict(findings(name="logits"), findings())
    assert "is not finite" in verdict(findings(math.nan, "mean squared error"))


def test_without_data_a_version_serves_unless_the_guard_is_required():
    assert verdict(findings(None), findings(None), note="no files") == ""
    assert verdict(findings(None), required=True, note="no files") == (
        "it could not be evaluated on local data: no files"
    )


@pytest.mark.parametrize("targets", [np.array([0, 2, 1]), np.array([[0.0], [2.0], [1.0]]), np.eye(3)[[0, 2, 1]]])
def test_targets_of_classes_count_right_answers(targets):
    scorer = Scorer()
    answers = np.array([[5.0, 1, 1], [0, 0, 9], [7, 0, 0]], np.float32)
    scorer.take(answers[:2], targets[:2])
    scorer.take(answers[2:], targets[2:])
    score = scorer.score()
    assert score.measure == "accuracy"
    assert score.value == pytest.approx(2 / 3)


@pytest.mark.parametrize("answers", [[0.2, 0.7, 0.4, 0.9], [-3.0, 2.0, -0.1, 4.0]])
def test_one_unit_for_two_classes_is_cut(answers):
    scorer = Scorer()
    scorer.take(np.array(answers)[:, None], np.array([0, 1, 1, 1]))
    assert scorer.score() == Score(measure="accuracy", value=0.75)


def test_other_targets_are_numbers():
    scorer = Scorer()
    scorer.take(np.array([[1.5], [2.0]]), np.array([1.0, 2.25]))
    assert scorer.score() == Score(measure="mean squared error", value=(0.25 + 0.0625) / 2)
    assert Scorer().score() is None
    mismatched = Scorer()
    mismatched.take(np.zeros((2, 5)), np.array([0.5, 1.5]))
    assert mismatched.score() is None
