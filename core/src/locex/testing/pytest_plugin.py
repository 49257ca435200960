"""What pytest offers to authors of plugins; it is there wherever locex-core is installed.

::

    def test_it_keeps_the_contract(locex_check):
        locex_check("transform", "trim", margin=2)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def locex_check() -> Callable[..., list[str]]:
    """Check an installed plugin: ``locex_check(kind, name, **fields)`` fails the test with every fault.

    Further arguments: ``examples`` (an .npz file with ``x`` and ``y``), ``model`` (a builder's artefact),
    ``optimizer`` (a builder's, a dictionary), ``data_folder`` (a data source's). Returns what was tried.
    """
    return _check


def _check(kind: str, name: str, /, **arguments: Any) -> list[str]:
    # imported here: this module is loaded into every test run of the environment
    from locex.testing.suite import check_now

    given = {key: arguments.pop(key) for key in ("examples", "model", "optimizer", "data_folder") if key in arguments}
    verdicts = check_now(name, kind=kind, fields=arguments, **given)
    faults = [f"{label}: {fault}" for label, verdict in verdicts.items() for fault in verdict.faults]
    if not verdicts:
        faults = [f"no {kind} named {name!r} is installed: run pip install -e . first"]
    if faults:
        pytest.fail("\n".join(faults), pytrace=False)
    return [note for verdict in verdicts.values() for note in verdict.notes]
