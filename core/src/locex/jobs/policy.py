"""Jobs held against the site's policy (``LOCEX_POLICY_FILE``), which is read anew for every job."""

from __future__ import annotations

import json

from locex.errors import InvalidConfiguration, PolicyRefused
from locex.schemas.base import validate
from locex.schemas.job import JobConfiguration
from locex.schemas.policy import Policy
from locex.settings import SiteSettings

UNREADABLE = "unreadable-policy"
CLOSED = "closed"


def policy_of(site: SiteSettings) -> Policy:
    """Return the site's policy; raise `PolicyRefused` for a file that cannot be read: then no job is taken."""
    if site.policy_file is None:
        return Policy()
    try:
        return validate(Policy, json.loads(site.policy_file.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError, InvalidConfiguration) as error:
        raise PolicyRefused(UNREADABLE, f"the policy file cannot be used: {error}") from None


def require_kept(job: JobConfiguration, policy: Policy, dataset: str) -> None:
    """Raise `PolicyRefused` where a job, with every field of its plugins, breaks a rule."""
    rules = policy.about(dataset)
    for rule in rules:
        if breach := rule.breach(job):
            raise PolicyRefused(rule.name, breach)
    if policy.closed:
        known = {one.mechanism for rule in rules for one in rule.require}
        unknown = [name for name in job.privacy_mechanisms if name not in known]
        if not known:
            raise PolicyRefused(CLOSED, f"no rule lets a job train on the data set {dataset!r}")
        if unknown:
            raise PolicyRefused(CLOSED, f"no rule names {', '.join(unknown)}")


def counts_examples(policy: Policy, dataset: str) -> bool:
    """Return whether a rule asks for a number of training examples."""
    return any(rule.min_examples for rule in policy.about(dataset))


def require_examples(examples: int, policy: Policy, dataset: str) -> None:
    """Raise `PolicyRefused` where the node has fewer training examples than a rule asks for."""
    for rule in policy.about(dataset):
        if examples < rule.min_examples:
            # How many there are is not told: it would leave the node.
            raise PolicyRefused(rule.name, f"the node has fewer than {rule.min_examples} training examples")
