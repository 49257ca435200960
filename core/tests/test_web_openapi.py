from __future__ import annotations

import subprocess
import sys

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from pydantic import Field

from locex.errors import ActiveJob, UnknownJob, UnknownModel
from locex.schemas.base import Configuration
from locex.schemas.capabilities import Capabilities
from locex.schemas.model import ModelMetadata, StoredModel
from locex.schemas.record import JobRecord, JobState
from locex.web.app import create_app
from locex.web.auth import Access
from locex.web.routes import Routes, Scope
from locex.web.upload import CONSUMES


class Filter(Configuration):
    state: list[JobState] = Field(default_factory=list, description="Only these.")
    limit: int = Field(default=100, ge=1, le=1000)


class Options(Configuration):
    epochs: int = 1
    ratio: float = 0.5


routes = Routes()


@routes.get("/jobs", tag="jobs", query=Filter, response=list[JobRecord])
async def list_jobs(request, query):
    """List runs.

    Newest first.
    """


@routes.post(
    "/job/config/{training_id}/",
    tag="jobs",
    scope=Scope.RUN,
    body=dict,
    body_schema={"$ref": "#/components/schemas/Job"},
    response=JobRecord,
    errors=(ActiveJob, UnknownModel),
    statuses={"model-unknown": 422},
)
async def post_job(request, training_id, body):
    """Start a training."""


@routes.post("/options", body=Options, response=Options, status=201)
async def post_options(request, body):
    """Take options."""


@routes.post("/model/", scope=Scope.ADMIN, body=ModelMetadata, response=StoredModel)
async def post_model(request, body):
    """Take a model."""


@routes.put("/model/{name}/{version}", scope=Scope.ADMIN, consumes=CONSUMES, errors=(UnknownModel,))
async def put_model(request, name, version):
    """Take bytes."""


@routes.get("/job/{training_id}/events", produces="text/event-stream", errors=(UnknownJob,))
async def events(request, training_id):
    """Stream events."""


@routes.get("/capabilities", response=Capabilities)
async def capabilities(request):
    """Tell what there is."""


class Extension:
    def __init__(self):
        self.version, self.made = 1, 0

    async def key(self):
        return self.version

    async def extend(self, document):
        self.made += 1
        document["components"]["schemas"]["Job"] = {"type": "object", "title": f"version {self.version}"}


@pytest.fixture
def extension():
    return Extension()


@pytest.fixture
async def client(aiohttp_client, extension):
    app = create_app(
        [routes], title="Tiny", version="1.2", description="A service.", access=Access(), extension=extension
    )
    return await aiohttp_client(app)


@pytest.fixture
async def document(client):
    response = await client.get("/openapi.json")
    assert response.status == 200
    return await response.json()


def test_the_document_is_valid(document):
    OpenAPIV31SpecValidator(document).validate()
    assert document["openapi"] == "3.1.0"
    assert document["info"] == {"title": "Tiny", "version": "1.2", "description": "A service."}


def test_only_the_given_spelling_is_documented(document):
    assert {"/jobs", "/job/config/{training_id}/", "/model/", "/healthz", "/metrics"} <= set(document["paths"])
    assert not {"/jobs/", "/job/config/{training_id}", "/model", "/docs"} & set(document["paths"])


def test_an_operation_says_what_it_takes(document):
    operation = document["paths"]["/jobs"]["get"]
    assert (operation["summary"], operation["description"]) == ("List runs.", "Newest first.")
    state, limit = operation["parameters"]
    assert state["schema"]["items"] == {"$ref": "#/components/schemas/JobState"}
    assert state["description"] == "Only these."
    assert (limit["schema"]["maximum"], limit["required"]) == (1000, False)
    (name,) = document["paths"]["/job/config/{training_id}/"]["post"]["parameters"]
    assert (name["in"], name["required"], name["schema"]["pattern"][0]) == ("path", True, "^")


def test_bodies_are_tolerant_and_answers_exact(document):
    operation = document["paths"]["/options"]["post"]
    taken = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rsplit("/", 1)[1]
    given = operation["responses"]["201"]["content"]["application/json"]["schema"]["$ref"].rsplit("/", 1)[1]
    schemas = document["components"]["schemas"]
    assert {"integer", "string"} == {kind["type"] for kind in schemas[taken]["properties"]["epochs"]["anyOf"]}
    assert schemas[given]["properties"]["epochs"]["type"] == "integer"


def test_uploads_and_streams_name_their_media_types(document):
    body = document["paths"]["/model/{name}/{version}"]["put"]["requestBody"]["content"]
    assert {"application/octet-stream", "multipart/form-data"} <= set(body)
    answer = document["paths"]["/job/{training_id}/events"]["get"]["responses"]["200"]["content"]
    assert list(answer) == ["text/event-stream"]


def test_problems_are_listed_by_status(document):
    responses = document["paths"]["/job/config/{training_id}/"]["post"]["responses"]
    assert {"400", "401", "403", "409", "413", "415", "422", "500"} <= set(responses)
    assert "404" not in responses
    content = responses["422"]["content"]["application/problem+json"]["schema"]["allOf"]
    assert set(content[1]["properties"]["code"]["enum"]) == {"request-invalid", "model-unknown"}


def test_security_names_scopes(document):
    assert document["paths"]["/model/"]["post"]["security"] == [{"bearer": ["admin"]}]
    assert document["paths"]["/healthz"]["get"]["security"] == []
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"


async def test_an_extension_is_asked_again_when_its_key_changes(client, extension):
    for _ in range(3):
        content = await (await client.get("/openapi.json")).json()
    assert (content["components"]["schemas"]["Job"]["title"], extension.made) == ("version 1", 1)
    extension.version = 2
    content = await (await client.get("/openapi.json/")).json()
    assert (content["components"]["schemas"]["Job"]["title"], extension.made) == ("version 2", 2)


def test_the_toolkit_imports_nothing_heavy():
    code = (
        "import sys, locex.web.app, locex.web.serve, locex.web.upload, locex.store.sqlite_plugin;"
        "print(*{'numpy', 'torch', 'jinja2', 'swagger_ui', 'pandas', 'locex.worker', 'locex.plugins.host'}"
        " & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"
