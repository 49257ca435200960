"""Why a version that was offered does not serve."""

from __future__ import annotations

from locex.errors import LocexError


class PeerFailed(LocexError):
    """A node or repository that cannot be asked, or whose answer is not what it should be; asked again later."""

    code = "follow-peer-failed"

    def __init__(self, url: str, reason: str) -> None:
        """Name the service and the reason."""
        super().__init__(f"{url}: {reason}", remedy="check that it runs, and LOCEX_NODE_TOKEN_FILE")


class VersionRefused(LocexError):
    """A version that must not serve in place of the one that does; it is not tried again."""

    code = "follow-refused"
