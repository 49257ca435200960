"""A SuperLink inside the training process: Flower's Fleet API on one port, and a run whose messages we exchange.

Flower's own ``flower-superlink`` serves its Control and Runtime APIs on the same port, without authentication: whoever
reaches it could start a run, that is, have code executed. Here only the Fleet API is served, and the server's half of
the run calls the handlers of the Runtime API directly. Nothing is installed and no further process is started.
"""

from __future__ import annotations

import contextlib
import hashlib
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import uvicorn
from fastapi import FastAPI
from flwr.common.constant import NOOP_FLWR_AID, SubStatus
from flwr.server.superlink.linkstate import LinkState, LinkStateFactory
from flwr.supercore.constant import NOOP_FEDERATION_ID, TaskType
from flwr.supercore.error import http_error_translator
from flwr.supercore.fab import Fab
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.protobuf.translation import ProtobufTranslationMiddleware
from flwr.supercore.routers import health
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.federation import NoOpFederationManager
from flwr.superlink.grid import HttpGrid
from flwr.superlink.routers.fleet.node_auth import NodeAuthMiddleware
from flwr.superlink.routers.fleet.router import router as fleet_router
from flwr.superlink.servicer.runtime import runtime_handlers
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware

from locex_controller.training.fab import FAB_ID, FAB_VERSION, build_fab
from locex_controller.training.port import bind
from locex_controller.training.spec import Tls, TrainingSpec

_ARRIVAL = 5.0  # seconds
_HEARTBEAT = 10.0  # seconds; Flower gives a task up after 60


class SuperLink:
    """Serves as soon as it is made. ``grid`` pushes and pulls the messages of its run."""

    def __init__(self, spec: TrainingSpec) -> None:
        # Nodes stay registered in the file when the training process is started again; messages need not.
        state_factory = LinkStateFactory(
            str(spec.folder / "superlink.sqlite3"), NoOpFederationManager(), ObjectStoreFactory()
        )
        self._state: LinkState = state_factory.state()
        self._end_former_runs()
        self._task = self._start_run()
        self.grid = _LocalGrid(self._state, self._task)
        self._over = threading.Event()
        threading.Thread(target=self._beat, daemon=True).start()
        self._server = _server(state_factory, spec.tls)
        listener = bind(spec.host, spec.port)
        listener.listen()  # nodes may come from now on, though the server is still starting
        self._thread = threading.Thread(target=self._serve, args=(listener,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Finish the run and stop serving."""
        self._over.set()
        self._state.finish_task(self._task.task_id, sub_status=SubStatus.COMPLETED, details="")
        self._server.should_exit = True
        self._thread.join(timeout=5)

    def _serve(self, listener: socket.socket) -> None:
        self._server.run(sockets=[listener])

    def _end_former_runs(self) -> None:
        for run in self._state.get_run_info():
            if run.primary_task_id is not None:
                self._state.finish_task(run.primary_task_id, sub_status=SubStatus.STOPPED, details="")

    def _start_run(self) -> Any:
        content = build_fab()
        fab = Fab(hashlib.sha256(content).hexdigest(), content, {})
        self._state.store_app(
            fab=fab,
            federation_id=NOOP_FEDERATION_ID,
            app_id=f"@{FAB_ID}",
            app_type=TaskType.SERVER_APP,
            added_by=NOOP_FLWR_AID,
        )
        run_id = self._state.create_run(
            FAB_ID, FAB_VERSION, fab.hash_str, {}, NOOP_FEDERATION_ID, None, NOOP_FLWR_AID, TaskType.SERVER_APP
        )
        task_id = self._state.get_run_info(run_ids=[run_id])[0].primary_task_id
        assert task_id is not None  # a new run has one
        token = self._state.claim_task(task_id)
        assert token is not None  # nobody else could claim it
        self._state.activate_task(task_id)
        task = self._state.get_task_by_token(token)
        assert task is not None  # it was just activated
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = task.task_id, run_id, 1
        return task

    def _beat(self) -> None:
        while not self._over.wait(_HEARTBEAT):
            with contextlib.suppress(Exception):
                self._state.acknowledge_task_heartbeat(self._task.task_id)


class _LocalGrid(HttpGrid):
    """Flower's grid, with the handlers of the Runtime API instead of its HTTP client."""

    def __init__(self, state: LinkState, task: Any) -> None:
        super().__init__(token="unused")  # noqa: S106 -- no request is made
        self._local = _Runtime(state, task)
        self.set_run(state.get_run_info(run_ids=[task.run_id])[0])

    @property
    def _runtime_client(self) -> Any:
        return self._local


class _Runtime:
    """The calls of Flower's ``RuntimeHttpClient`` that its grid makes, under their names."""

    def __init__(self, state: LinkState, task: Any) -> None:
        self.GetNodes = lambda request: runtime_handlers.get_nodes(request, state, task)
        self.PushMessages = lambda request: runtime_handlers.push_messages(request, state, task)
        self.PullMessages = lambda request: runtime_handlers.pull_messages(request, state, task)
        self.PushObject = lambda request: runtime_handlers.push_object(request, state, task)
        self.PullObject = lambda request: _when_there(lambda: runtime_handlers.pull_object(request, state, task))
        self.ConfirmMessageReceived = lambda request: runtime_handlers.confirm_message_received(request, state, task)


def _when_there(pull: Callable[[], Any]) -> Any:
    """Pull until the object is there: a node sends arrays just after their message, Flower tries again after 1 s."""
    deadline = time.monotonic() + _ARRIVAL
    while not (answer := pull()).object_available and answer.object_found and time.monotonic() < deadline:
        time.sleep(0.02)
    return answer


def _server(state_factory: LinkStateFactory, tls: Tls | None) -> uvicorn.Server:
    app = FastAPI(
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        middleware=[
            Middleware(BaseHTTPMiddleware, dispatch=http_error_translator),
            Middleware(ProtobufTranslationMiddleware),
            Middleware(NodeAuthMiddleware),
        ],
    )
    app.state.linkstate_factory = state_factory
    app.state.enable_supernode_auth = False
    app.include_router(health.router)
    app.include_router(fleet_router)
    return uvicorn.Server(
        uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=2,
            ssl_certfile=str(tls.certificate) if tls else None,
            ssl_keyfile=str(tls.key) if tls else None,
        )
    )
