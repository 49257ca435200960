"""Which store the settings choose, and where a lost one is felt."""

from __future__ import annotations

import pytest

from locex.errors import InvalidConfiguration, StoreUnavailable
from locex.settings import NodeSettings, read_settings, scheme_of
from locex.store.opening import chosen_store
from locex.testing.store_contract import job


@pytest.fixture
def located(monkeypatch):
    """Return plugin and URL that an environment chooses."""

    def choose(**environment):
        for name in ("LOCEX_STORE", "LOCEX_STORE_URL", "LOCEX_STORE_URL_FILE", "DATABASE_NAME", "DB_PORT"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, str(value))
        return read_settings(NodeSettings).store_location()

    return choose


@pytest.mark.parametrize(
    ("environment", "chosen"),
    [
        ({}, ("sqlite", "")),
        ({"LOCEX_STORE_URL": "sqlite:/var/lib/x"}, ("sqlite", "sqlite:/var/lib/x")),
        ({"LOCEX_STORE_URL": "mongodb://db/locex"}, ("mongodb", "mongodb://db/locex")),
        ({"LOCEX_STORE_URL": "mongodb+srv://db.example/"}, ("mongodb", "mongodb+srv://db.example/")),
        ({"LOCEX_STORE": "elsewhere", "LOCEX_STORE_URL": "mongodb://db"}, ("elsewhere", "mongodb://db")),
        ({"LOCEX_STORE": "elsewhere", "LOCEX_STORE_URL": "/mnt/x"}, ("elsewhere", "/mnt/x")),
        ({"DATABASE_NAME": "db-0"}, ("mongodb", "mongodb://db-0:27017/")),
        ({"DATABASE_NAME": "10.0.0.7", "DB_PORT": 27117}, ("mongodb", "mongodb://10.0.0.7:27117/")),
        ({"DATABASE_NAME": "fd00::7"}, ("mongodb", "mongodb://[fd00::7]:27017/")),
        ({"DATABASE_NAME": "db-0", "LOCEX_STORE": "sqlite"}, ("sqlite", "")),
        ({"DATABASE_NAME": "db-0", "LOCEX_STORE_URL": "sqlite:"}, ("sqlite", "sqlite:")),
        ({"DB_PORT": 1}, ("sqlite", "")),
    ],
)
def test_the_environment_chooses_a_store(located, environment, chosen):
    assert located(**environment) == chosen


def test_a_url_may_lie_in_a_file(located, tmp_path):
    secret = tmp_path / "url"
    secret.write_text("mongodb://locex:hunter2@db/\n", encoding="utf-8")
    assert located(LOCEX_STORE_URL_FILE=secret) == ("mongodb", "mongodb://locex:hunter2@db/")
    with pytest.raises(InvalidConfiguration, match="exclude each other"):
        located(LOCEX_STORE_URL_FILE=secret, LOCEX_STORE_URL="sqlite:")
    with pytest.raises(InvalidConfiguration, match="cannot be read") as caught:
        located(LOCEX_STORE_URL_FILE=tmp_path / "absent")
    assert "LOCEX_STORE_URL_FILE" in caught.value.remedy


def test_settings_do_not_show_the_url(tmp_path):
    assert "hunter2" not in repr(NodeSettings(store_url="mongodb://locex:hunter2@db/"))


@pytest.mark.parametrize(("url", "scheme"), [("", ""), ("/mnt/x", ""), ("a+b:", "a"), ("C:/x", ""), ("db:1", "db")])
def test_a_scheme_is_what_stands_before_the_colon(url, scheme):
    assert scheme_of(url) == scheme


async def test_the_embedded_store_may_lie_in_another_folder_with_one_owner(tmp_path):
    given = {"state_folder": tmp_path / "one", "store_url": f"sqlite://{tmp_path}/elsewhere"}
    store = chosen_store(NodeSettings(**given))
    await store.open()
    await store.put_job(job("r1"))
    assert (tmp_path / "elsewhere" / "store.sqlite3").exists()
    second = chosen_store(NodeSettings(**given | {"state_folder": tmp_path / "two"}))
    with pytest.raises(StoreUnavailable, match="in use by the process"):
        await second.open()
    await store.close()
    await second.open()
    assert await second.get_job("r1") == job("r1")
    await second.close()


@pytest.mark.parametrize("url", ["sqlite://host/x", "postgres://hunter2@host/"])
def test_the_embedded_store_refuses_other_urls(tmp_path, url):
    with pytest.raises(InvalidConfiguration, match="not sqlite:FOLDER") as caught:
        chosen_store(NodeSettings(state_folder=tmp_path, store="sqlite", store_url=url))
    assert "hunter2" not in str(caught.value.to_json())


def test_fields_of_the_store_are_checked(tmp_path):
    assert chosen_store(NodeSettings(state_folder=tmp_path, store_fields={"sweep_grace": 5}))
    with pytest.raises(InvalidConfiguration, match="sweep_grace"):
        chosen_store(NodeSettings(state_folder=tmp_path, store_fields={"sweep": 5}))
