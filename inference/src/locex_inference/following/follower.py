"""Follows models: looks for new versions, fetches, checks and serves them. Nothing a peer does disturbs serving."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from pathlib import Path
from typing import Any, Protocol

from locex.errors import LocexError
from locex_inference.following.errors import PeerFailed
from locex_inference.following.guard import Guard
from locex_inference.following.metrics import FollowMetrics
from locex_inference.following.offers import Offer, newest
from locex_inference.following.peer import Peer, token_of
from locex_inference.following.settings import EVERY, FollowSettings, url_of
from locex_inference.following.shelf import Decision, Kept, ModelState, Shelf
from locex_inference.following.status import FollowedModel
from locex_inference.following.verdict import Report
from locex_inference.inferencers.question import Question

log = logging.getLogger(__name__)
_JITTER = 0.2  # part of a pause


class Served(Protocol):
    """What following asks of the models that are served."""

    async def take(self, kept: Kept, path: Path) -> None:
        """Load a version and serve it; return when it answers, or raise why it does not and never did."""

    def stable(self, model: str) -> str | None:
        """Return the version that answers requests without a version; None where none does."""

    def digests(self, model: str) -> set[str]:
        """Return the digests of the versions that are loaded: their files must stay."""

    def noted(self, model: str, version: str, reason: str) -> None:
        """Have the index tell why an offered version does not serve."""

    def question(self, kept: Kept, path: Path) -> Question:
        """Return what an evaluation loads: the file, as the model's options have it."""


class Follower:
    """Follows everything that the settings name, a task for each service."""

    def __init__(
        self,
        settings: FollowSettings,
        served: Served,
        guard: Guard,
        *,
        folder: Path,
        max_bytes: int,
        metrics: FollowMetrics,
    ) -> None:
        """``folder`` is the follower's own; ``max_bytes`` bounds one model."""
        self._settings = settings
        self._served = served
        self._guard = guard
        self._shelf = Shelf(folder)
        self._metrics = metrics
        self._followed = settings.followed()
        token, ca = token_of(settings.node_token_file), settings.node_ca
        urls = dict.fromkeys(one.url for one in self._followed)
        # The token is the node's: no other service gets to see it.
        node = url_of(settings.node_address) if settings.node_address else None
        self._peers = [
            Peer(url, token=token if url == node else None, ca=ca if url == node else None, max_bytes=max_bytes)
            for url in urls
        ]
        self._looking = {url: asyncio.Lock() for url in urls}
        self._told: dict[str, FollowedModel] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def begin(self) -> None:
        """Serve what was followed before, then look for news, in the background."""
        self._tasks.append(asyncio.create_task(self._begin()))

    async def start(self) -> None:
        """Serve what was followed before; return then, and begin to look for news."""
        for name in await asyncio.to_thread(self._shelf.models):
            if url := self._url_of(name):
                await self._resume(name, url)
        self._tasks += [asyncio.create_task(self._follow(peer)) for peer in self._peers]

    async def close(self) -> None:
        """Follow no longer."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def status(self) -> list[FollowedModel]:
        """Return how it stands with every followed model, by name."""
        return [self._told[name] for name in sorted(self._told)]

    async def _begin(self) -> None:
        try:
            await self.start()
        except Exception:
            log.exception("following could not begin")

    async def look(self, peer: Peer) -> None:
        """Look at a service once and take up what is new; raise `PeerFailed`."""
        async with self._looking[peer.url]:
            await self._look(peer)

    async def _look(self, peer: Peer) -> None:
        try:
            listed = await peer.models()
        except PeerFailed as error:
            self._fail(peer, error)
            raise
        offers = newest(listed, uploads=self._settings.follow_uploads)
        failed: PeerFailed | None = None
        for name, offer in sorted(offers.items()):
            if self._url_of(name) != peer.url:
                continue
            told = self._told.setdefault(name, FollowedModel(model=name, url=peer.url))
            told.checked = time.time()
            try:
                await self._consider(peer, offer, told)
            except PeerFailed as error:
                failed = error
            except Exception as error:  # a full disk, a fault of ours: the models after this one are looked at too
                log.exception("following %s failed", name)
                failed = PeerFailed(peer.url, f"{name} could not be taken up: {error}")
            else:
                continue
            told.fail(failed.message)
            self._metrics.failed(name)
        if failed is not None:
            raise failed

    async def _follow(self, peer: Peer) -> None:
        """Look again and again; a service that fails is asked less and less often, and never given up."""
        failures = 0
        while True:
            try:
                await self.look(peer)
                failures = 0
            except PeerFailed as error:
                failures += 1
                log.log(logging.WARNING if failures == 1 else logging.DEBUG, "following: %s", error.message)
            except Exception:  # a fault of ours must not end the following
                failures += 1
                log.exception("following %s failed", peer.url)
            await asyncio.sleep(self._pause(failures))

    def _pause(self, failures: int) -> float:
        interval = self._settings.follow_interval
        longest = max(interval, self._settings.follow_backoff)
        jitter = random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 -- no secret
        return min(longest, interval * 2.0 ** min(failures, 16)) * jitter

    def _fail(self, peer: Peer, error: PeerFailed) -> None:
        """Tell of every model of a service that it could not be asked."""
        for one in self._followed:
            if one.url == peer.url and one.name != EVERY:
                self._told.setdefault(one.name, FollowedModel(model=one.name, url=one.url))
        for told in self._told.values():
            if told.url == peer.url:
                told.fail(error.message)

    async def _consider(self, peer: Peer, offer: Offer, told: FollowedModel) -> None:
        state = await asyncio.to_thread(self._shelf.read, offer.name)
        await self._notice(offer.name, state)
        if offer.key in state.decisions or _is_older(offer, state):
            told.settle(state)
            return
        told.enter("fetching", offer.version)
        with self._shelf.receiving(offer.name) as received:
            digest = await peer.download(offer, received)
            configuration = await peer.configuration_of(offer)
            kept = await asyncio.to_thread(self._shelf.keep, offer, digest, received)
        kept = kept.model_copy(update={"configuration": configuration})
        decision = await self._decide(kept, state, told)
        state.decide(offer.key, decision)
        if decision.accepted:
            state.former, state.serving = state.serving, kept
        await asyncio.to_thread(self._shelf.write, offer.name, state, self._served.digests(offer.name))
        told.settle(state)
        self._metrics.decided(offer.name, accepted=decision.accepted)

    async def _decide(self, kept: Kept, state: ModelState, told: FollowedModel) -> Decision:
        """Check a version and serve it; return what became of it."""
        name, version = kept.metadata.model_name, kept.version
        scores: dict[str, Any] = {}
        try:
            told.enter("checking", version)
            served = self._question(state.serving) if state.serving and self._served.stable(name) else None
            report = await self._guard.examine(kept.metadata, self._question(kept), served, kept.configuration)
            scores = _scores(report)
            told.enter("loading", version)
            await self._served.take(kept, self._shelf.path(name, kept))
        except LocexError as error:
            log.warning("%s %s does not serve: %s", name, version, error.message)
            self._served.noted(name, version, error.message)
            return Decision(version=version, digest=kept.digest, accepted=False, reason=error.message, scores=scores)
        log.info("%s %s serves", name, version)
        return Decision(version=version, digest=kept.digest, accepted=True, scores=scores)

    async def _resume(self, name: str, url: str) -> None:
        """Serve what was served before; what cannot be loaded any more is told, and followed anew."""
        state = await asyncio.to_thread(self._shelf.read, name)
        told = self._told.setdefault(name, FollowedModel(model=name, url=url))
        for kept in filter(None, (state.former, state.serving)):
            try:
                await self._served.take(kept, self._shelf.path(name, kept))
            except LocexError as error:
                log.warning("%s %s does not serve any more: %s", name, kept.version, error.message)
                state.decisions.pop(kept.key, None)
        told.settle(state)

    async def _notice(self, name: str, state: ModelState) -> None:
        """Remember a rollback that was asked for meanwhile: it outlives a restart."""
        stable = self._served.stable(name)
        if state.former is not None and state.serving is not None and stable == state.former.version:
            state.former, state.serving = state.serving, state.former
            await asyncio.to_thread(self._shelf.write, name, state, self._served.digests(name))

    def _question(self, kept: Kept) -> Question:
        return self._served.question(kept, self._shelf.path(kept.metadata.model_name, kept))

    def _url_of(self, name: str) -> str | None:
        """Return the service at which a model is followed: what names it goes before ``*``."""
        named = next((one.url for one in self._followed if one.name == name), None)
        return named or next((one.url for one in self._followed if one.name == EVERY), None)


def _scores(report: Report | None) -> dict[str, Any]:
    """Return what a decision tells of an evaluation."""
    if report is None:
        return {}
    told: dict[str, Any] = {"examples": report.examples, "note": report.note}
    for name, findings in (("candidate", report.candidate), ("served", report.served)):
        if findings is not None and findings.score is not None:
            told |= {name: findings.score.model_dump()}
    return told


def _is_older(offer: Offer, state: ModelState) -> bool:
    """Tell whether an offer was made before what serves: the newer ones were deleted where it is offered."""
    return bool(state.serving and offer.created and offer.created < state.serving.created)
