"""What is installed, from the metadata of distributions only: nothing is imported.

The service reads this in its own process, or through ``python -m locex.plugins.catalog`` where the workers run with
another interpreter.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from locex.errors import DuplicatePlugin, IncompatiblePlugin, RefusedPlugin, UnknownPlugin
from locex.plugins.kinds import KINDS

CORE = "locex-core"


@dataclass(frozen=True, slots=True)
class Entry:
    """One plugin as its distribution's metadata names it."""

    kind: str
    name: str
    target: str
    distribution: str
    version: str
    requires: str | None
    """What the distribution asks of locex-core, e.g. ``>=1,<2``."""
    fingerprint: str
    """Changes when the distribution's files change."""

    @property
    def origin(self) -> str:
        """Distribution and version, for people."""
        return f"{self.distribution} {self.version}"


@dataclass(frozen=True, slots=True)
class Policy:
    """The operator's rule about distributions; an empty ``allowed`` admits all that is not denied."""

    allowed: frozenset[str] = frozenset()
    denied: frozenset[str] = frozenset()

    def rule_against(self, distribution: str) -> str | None:
        """Return the setting that refuses a distribution, or None."""
        if distribution in self.denied:
            return "LOCEX_DENIED_DISTRIBUTIONS"
        if self.allowed and distribution not in self.allowed and distribution != CORE:
            return "LOCEX_ALLOWED_DISTRIBUTIONS"
        return None


class Catalog:
    """Every installed plugin of every kind."""

    def __init__(self, entries: Iterable[Entry], versions: Mapping[str, str], policy: Policy | None = None) -> None:
        self.entries = sorted(entries, key=lambda entry: (entry.kind, entry.name, entry.distribution))
        self.versions = dict(versions)
        """The distributions that bring plugins, and core, with their versions."""
        self.policy = policy or Policy()

    @property
    def fingerprint(self) -> str:
        """Changes when any plugin's distribution, or core, changes."""
        parts = sorted({entry.fingerprint for entry in self.entries})
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def names(self, kind: str, library: str | None = None) -> list[str]:
        """Return the names of a kind as users type them; of one library, for kinds that go by library."""
        names = {entry.name for entry in self.entries if entry.kind == kind}
        if library is not None and KINDS[kind].by_library:
            prefix = f"{library}."
            return sorted(name.removeprefix(prefix) for name in names if name.startswith(prefix))
        return sorted(names)

    def find(self, kind: str, name: str, *, library: str | None = None, path: str = "") -> Entry:
        """Return the one usable plugin of a name.

        Raise `UnknownPlugin`, `DuplicatePlugin`, `RefusedPlugin` or `IncompatiblePlugin`. A denied distribution does
        not count as a duplicate, so that the operator can choose between two.
        """
        full_name = f"{library}.{name}" if library is not None and KINDS[kind].by_library else name
        found = [entry for entry in self.entries if entry.kind == kind and entry.name == full_name]
        if not found:
            raise UnknownPlugin(kind, name, self.names(kind, library), path=path)
        admitted = [entry for entry in found if self.policy.rule_against(entry.distribution) is None]
        if not admitted:
            rule = self.policy.rule_against(found[0].distribution)
            raise RefusedPlugin(kind, full_name, found[0].origin, str(rule))
        if len(admitted) > 1:
            raise DuplicatePlugin(kind, full_name, [entry.origin for entry in admitted])
        self._check_version(admitted[0])
        return admitted[0]

    def _check_version(self, entry: Entry) -> None:
        core_version = self.versions[CORE]
        # A pre-release of core that is installed counts, as it does for pip.
        if entry.requires and not SpecifierSet(entry.requires, prereleases=True).contains(core_version):
            raise IncompatiblePlugin(entry.kind, entry.name, entry.origin, CORE + entry.requires, core_version)

    def to_json(self) -> str:
        """Return what `from_json` takes."""
        return json.dumps({"entries": [asdict(entry) for entry in self.entries], "versions": self.versions})

    @classmethod
    def from_json(cls, text: str, policy: Policy | None = None) -> Catalog:
        """Rebuild a catalogue that another process read."""
        content = json.loads(text)
        return cls([Entry(**entry) for entry in content["entries"]], content["versions"], policy)


def read_catalog(policy: Policy | None = None, folders: Sequence[Path] = ()) -> Catalog:
    """Read the metadata of every distribution on the path; ``folders`` are searched besides."""
    entries: list[Entry] = []
    versions: dict[str, str] = {}
    for distribution in importlib.metadata.distributions(path=[*sys.path, *map(str, folders)]):
        # Parsing METADATA of every distribution would take longer than all the rest: look at entry points first.
        if "locex." not in (distribution.read_text("entry_points.txt") or ""):
            continue
        name = canonicalize_name(distribution.metadata["Name"] or "")
        if not name or name in versions:  # half removed; or the first on the path is the one that imports find
            continue
        versions[name] = distribution.version
        points = [point for point in distribution.entry_points if point.group.removeprefix("locex.") in KINDS]
        requires, fingerprint = _core_requirement(distribution), _fingerprint(distribution)
        entries += [
            Entry(
                kind=point.group.removeprefix("locex."),
                name=point.name,
                target=point.value,
                distribution=name,
                version=distribution.version,
                requires=requires,
                fingerprint=fingerprint,
            )
            for point in points
            if point.group.startswith("locex.")
        ]
    return Catalog(entries, versions, policy)


def _core_requirement(distribution: importlib.metadata.Distribution) -> str | None:
    for text in distribution.requires or ():
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        if canonicalize_name(requirement.name) == CORE:
            return str(requirement.specifier) or None
    return None


def _fingerprint(distribution: importlib.metadata.Distribution) -> str:
    digest = hashlib.sha256(f"{distribution.metadata['Name']} {distribution.version}\n".encode())
    digest.update((distribution.read_text("RECORD") or "").encode())
    for source in sorted(_editable_files(distribution)):
        with contextlib.suppress(OSError):  # an editor's temporary file, or its dangling link
            status = source.stat()
            digest.update(f"{source} {status.st_mtime_ns} {status.st_size}\n".encode())
    return digest.hexdigest()


def _editable_files(distribution: importlib.metadata.Distribution) -> Iterator[Path]:
    """Return the sources of an editable install: its RECORD does not change with them."""
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    if not origin.get("dir_info", {}).get("editable"):
        return
    root = Path(url2pathname(urlsplit(str(origin["url"])).path))
    modules = {point.value.partition(":")[0].partition(".")[0] for point in distribution.entry_points}
    for place in (root / "src", root):
        for module in modules:
            yield from place.glob(f"{module}.py")
            yield from place.glob(f"{module}/**/*.py")


if __name__ == "__main__":
    sys.stdout.write(read_catalog(folders=[Path(folder) for folder in sys.argv[1:]]).to_json())
