"""The kinds of plugins: each has an entry-point group and the hook that makes one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of plugin. ``by_library``: names are ``<library>.<name>``, users type the last part."""

    name: str
    by_library: bool = False

    @property
    def group(self) -> str:
        """The entry-point group."""
        return f"locex.{self.name}"

    @property
    def hook(self) -> str:
        """The hook that makes an instance."""
        return f"locex_create_{self.name}"


KINDS = {
    kind.name: kind
    for kind in (
        Kind("builder"),
        Kind("architecture", by_library=True),
        Kind("optimizer", by_library=True),
        Kind("scheduler", by_library=True),
        Kind("transform"),
        Kind("data"),
        Kind("privacy"),
        Kind("aggregation"),
        Kind("federation"),
        Kind("store"),
        Kind("inferencer"),
    )
}
