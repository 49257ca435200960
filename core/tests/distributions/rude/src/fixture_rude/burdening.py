"""A step whose module imports a framework at its top: a stand-in, so that none need be installed."""

import sys
from types import ModuleType

from fixture_rude.steps import Rude

sys.modules.setdefault("jax", ModuleType("jax"))


class Burdening(Rude):
    pass
