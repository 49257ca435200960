"""What a worker hands to mechanisms: ledgers in memory, and a list of the ε that they report."""

import collections
import json
import threading

import pytest

from locex.api import PrivacyContext
from locex.schemas.base import validate
from locex_privacy.client_level.mechanism import ClientLevelMechanism
from locex_privacy.dp_adaptive.config import DpAdaptiveConfig
from locex_privacy.dp_adaptive.mechanism import rules_of
from locex_privacy.dp_fixed.mechanism import DpFixedConfig
from locex_privacy.noise import system_normal


class SharedLedger:
    """A ledger in memory; events pass through JSON as they do on their way to a store."""

    def __init__(self):
        self.events = []
        self.races = 0
        self._lock = threading.Lock()

    def read(self):
        with self._lock:
            return len(self.events), [json.loads(event) for event in self.events]

    def append(self, version, event):
        with self._lock:
            if self.races:
                self.races -= 1
                self.events.append(json.dumps({"mechanism": "gaussian", "noise_multiplier": 5.0}))
            if version != len(self.events):
                return False
            self.events.append(json.dumps(event))
            return True


class Site:
    """What the worker hands to a mechanism."""

    def __init__(self):
        self.ledgers = collections.defaultdict(SharedLedger)
        self.spent = []
        self.context = PrivacyContext("patients", self.ledgers.__getitem__, lambda *report: self.spent.append(report))

    @property
    def ledger(self):
        return self.ledgers["client"]

    def mechanism(self, normal=system_normal, **fields):
        fields = {"clip_norm": 1, "noise_multiplier": 1} | fields
        return ClientLevelMechanism(validate(DpFixedConfig, fields).rules(), self.context, normal)

    def adaptive(self, normal=system_normal, **fields):
        fields = {"server_side_noising": False} | fields
        return ClientLevelMechanism(rules_of(validate(DpAdaptiveConfig, fields)), self.context, normal)

    def epsilon(self, unit="client"):
        ((told, value),) = self.spent[-1:]
        assert told == unit
        return value


@pytest.fixture
def site():
    return Site()


@pytest.fixture(scope="session")
def site_of():
    """Make a site with empty ledgers."""
    return Site
