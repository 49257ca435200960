"""``GET /follow``: how it stands with the models that are followed."""

from __future__ import annotations

from aiohttp import web

from locex.web.routes import Routes
from locex_inference.following.follower import Follower
from locex_inference.following.status import FollowedModel

FOLLOWER: web.AppKey[Follower] = web.AppKey("follower", Follower)

routes = Routes()


@routes.get("/follow", tag="following", response=list[FollowedModel])
async def get_followed(request: web.Request) -> list[FollowedModel]:
    """Return every followed model: where it comes from, what serves, and what became of newer versions."""
    follower = request.app.get(FOLLOWER)
    return follower.status() if follower is not None else []
