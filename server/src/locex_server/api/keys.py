"""The typed keys of what the application holds."""

from __future__ import annotations

from aiohttp import web

from locex.jobs.service import JobService
from locex.plugins.installed import Installed
from locex.plugins.listing import Listing
from locex.settings import NodeSettings
from locex_server.checks import Checks
from locex_server.formats import Formats

SETTINGS: web.AppKey[NodeSettings] = web.AppKey("settings", NodeSettings)
JOBS: web.AppKey[JobService] = web.AppKey("jobs", JobService)
LISTING: web.AppKey[Listing] = web.AppKey("listing", Listing)
INSTALLED: web.AppKey[Installed] = web.AppKey("installed", Installed)
CHECKS: web.AppKey[Checks] = web.AppKey("checks", Checks)
FORMATS: web.AppKey[Formats] = web.AppKey("formats", Formats)
