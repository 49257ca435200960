"""Jobs over HTTP: the rules of their configuration, their life, and every way in which one is refused."""

from __future__ import annotations

STEP = "/transformations/train/0"
TYPE = {"Content-Type": "application/json"}


def step(name, **parameters):
    steps = [{"id": name, "parameters": parameters}]
    return {"train": steps, "test": steps}


async def test_a_job_from_its_configuration_to_its_model(node):
    accepted = await node.submit("7", training_id=7)
    assert accepted["training_id"] == "7"
    assert accepted["warnings"] == []
    record = await node.end("7")
    assert record["state"] == "FINISHED", record["failure"]
    assert record["run_id"] == accepted["run_id"]
    assert record["configuration"] == accepted["configuration"]
    assert record["round"] == 3
    assert [known["round"] for known in record["history"]] == [1, 2, 3]
    assert record["history"][-1]["evaluation"]["accuracy"] > 0.9
    states = await node.states("7")
    assert states[:4] == ["QUEUED", "CONFIGURING", "PREPARING", "WAITING"]
    assert states[-1] == "FINISHED"
    weights = await node.call("GET", "/job/7/model")
    trained = record["model"]
    assert weights == await node.call("GET", f"/model/m/{trained['model_version']}/")
    query = {"model_name": "m", "model_version": trained["model_version"]}
    lineage = (await node.call("GET", "/model/meta", params=query))["lineage"]
    assert (lineage["training_id"], lineage["round"]) == ("7", 3)


async def test_what_a_job_is_understood_as(node, absent):
    accepted = await node.submit(
        "20",
        training_id="20",
        server_address="loop",
        number_of_rounds="1",
        num_rounds=absent,
        eval_metrics="accuracy",
        config={"batch_size": "64", "learning_rate": " 0.25 ", "steps_per_epoch": None},
        optimizer_config={"optimizer": "sgd"},
        scheduler_config=None,
        privacy_mechanisms={"round_off": {"decimals": "3"}},
        controller_url="http://controller",
        **{"privacy-mechanisms": absent},
    )
    understood = accepted["configuration"]
    assert understood["training_id"] == "20"
    assert understood["server_address"] == "loop:8080"
    assert understood["num_rounds"] == 1
    assert understood["eval_metrics"] == ["accuracy"]
    assert understood["config"] == [{"config_id": "default", "batch_size": 64, "epochs": 1, "learning_rate": 0.25}]
    assert understood["optimizer_config"] == {"optimizer": "sgd", "learning_rate": 0.25}
    assert understood["privacy-mechanisms"] == {"round_off": {"decimals": 3, "budget": 1000}}
    assert "scheduler_config" not in understood
    assert accepted["warnings"] == ["unknown key 'controller_url' was ignored"]
    assert (await node.end("20"))["round"] == 1


async def test_the_port_of_flower_servers_is_a_setting_and_addresses_keep_their_own(open_node):
    node = await open_node(federated_port=9099)
    await node.put_model()
    for training_id, given, understood in (
        ("a", "host", "host:9099"),
        ("b", "[::1]", "[::1]:9099"),
        ("c", "h:1", "h:1"),
    ):
        accepted = await node.submit(training_id, server_address=given)
        assert accepted["configuration"]["server_address"] == understood


WRONG = [
    (
        {"optimizer_config": {"optimizer": "sgd", "rho": 1}},
        "/optimizer_config/rho",
        "allowed here are: learning_rate",
    ),
    ({"optimizer_config": {"optimizer": "sgd", "learning_rate": -1}}, "/optimizer_config/learning_rate", "greater"),
    ({"config": [{}, {"epochs": "two"}]}, "/config/1/epochs", "integer"),
    ({"config": [{"epoch": 1}]}, "/config/0/epoch", "unknown key"),
    ({"num_rounds": 0}, "/num_rounds", "greater than 0"),
    ({"shape": [0]}, "/shape", "positive"),
    ({"server_address": "http://host"}, "/server_address", "pattern"),
    ({"training_id": 8}, "/training_id", "'t'"),
    ({"transformations": step("scale", colour=1)}, f"{STEP}/parameters/colour", "allowed here are: factor, repeat"),
    ({"privacy-mechanisms": {"round_off": {"x": 1}}}, "/privacy-mechanisms/round_off/x", "decimals"),
    ({"federation": "pigeons"}, "/federation", "installed are: "),
    ({"optimizer_config": {"optimizer": "adam"}}, "/optimizer_config/optimizer", "installed are: sgd"),
    ({"scheduler_config": {"scheduler": "steplr"}}, "/scheduler_config/scheduler", "installed are: none"),
    ({"data": {"source": "tape"}}, "/data/source", "gaussians"),
    ({"model_version": "2"}, "/model_name", "unknown model"),
]


async def test_a_wrong_field_is_named_with_its_reason(node, subtests):
    for changes, path, message in WRONG:
        with subtests.test(path, changes=changes):
            problem = await node.submit("t", 422, **changes)
            (fault,) = (fault for fault in problem["errors"] if fault["path"] == path)
            assert message in fault["message"]
            assert problem["remedy"]
    assert (await node.call("GET", "/jobs"))["total"] == 0


async def test_a_path_or_body_that_is_no_job_is_refused(node):
    assert (await node.call("POST", "/job/config/a%20b", 422, json={}))["code"] == "request-invalid"
    assert (await node.call("POST", "/job/config/t", 400, data=b"{", headers=TYPE))["code"] == "body-malformed"
    assert (await node.call("POST", "/job/config/t", 400, json=[1]))["code"] == "body-malformed"
    assert (await node.call("POST", "/job/config/t", 415, data={"a": "b"}))["code"] == "media-type-unsupported"
    missing = await node.call("POST", "/job/config/t", 422, json={})
    assert {fault["path"] for fault in missing["errors"]} == {"/server_address", "/model_name", "/model_version"}


UNUSABLE = [
    ("raising", 424, "plugin-broken", ["locex-fixture-raising 1.0.0", "RuntimeError: this plugin never loads"]),
    ("too_old", 409, "plugin-incompatible", ["locex-fixture-too-old 0.3.0", "locex-core 1.0.0"]),
    ("doubled", 409, "plugin-duplicate", ["locex-fixture-duplicate 2.0.0", "locex-fixture-duplicate-too 3.0.0"]),
    ("exiting", 403, "plugin-refused", ["locex-fixture-exiting 1.0.0", "LOCEX_DENIED_DISTRIBUTIONS"]),
]


async def test_a_plugin_that_cannot_be_used_is_named_with_its_origin(node, subtests):
    for name, status, code, parts in UNUSABLE:
        with subtests.test(name):
            problem = await node.submit("t", status, transformations=step(name))
            assert problem["code"] == code
            assert problem["remedy"]
            for part in parts:
                assert part in problem["detail"]


async def test_a_plugin_that_exits_costs_one_answer(open_node):
    node = await open_node(denied_distributions=[])
    await node.put_model()
    exited = await node.submit("t", 424, transformations=step("exiting"))
    assert exited["code"] == "plugin-crashed"
    assert "exit code 3" in exited["detail"]
    assert "the last words of a plugin" in exited["detail"]
    await node.submit()
    assert (await node.end())["state"] == "FINISHED"


async def test_a_plugin_that_hangs_costs_one_answer(open_node):
    node = await open_node(denied_distributions=[], plugin_timeout=10)
    await node.put_model()
    hung = await node.submit("t", 424, transformations=step("hanging"))
    assert hung["code"] == "plugin-crashed"
    assert "transform hanging" in hung["detail"]
    assert "did not end within 10 s" in hung["detail"]
    await node.submit()
    assert (await node.end())["state"] == "FINISHED"


async def test_status_total_and_stop(open_node):
    node = await open_node(queue_limit=1)
    await node.put_model()
    assert await node.call("GET", "/job/total") == 0
    accepted = await node.submit("long", server_address="endless")
    await node.until("WAITING", "long")
    assert await node.call("GET", "/job/total/") == 1
    brief = {"state": "WAITING", "round": 0, "rounds": 3, "run_id": accepted["run_id"]}
    assert await node.call("GET", "/job/status/") == {"long": brief}
    assert "locex_jobs_running 1.0" in (await node.call("GET", "/metrics")).decode()
    assert (await node.call("GET", "/job/long/model", 404))["detail"].endswith("which is WAITING")

    active = await node.submit("long", 409)
    assert active["code"] == "job-active"
    assert "DELETE /job/long" in active["remedy"]
    await node.submit("next")
    third = accepted["configuration"] | {"training_id": "third"}
    async with node.http.post("/job/config/third/", json=third) as full:
        assert full.status == 429
        assert int(full.headers["Retry-After"]) > 0
        assert (await full.json(content_type=None))["code"] == "queue-full"

    assert "locex_jobs_waiting 1.0" in (await node.call("GET", "/metrics")).decode()
    assert (await node.call("DELETE", "/job/next"))["state"] == "STOPPED"
    assert (await node.call("DELETE", "/job/long/"))["state"] == "STOPPED"
    assert (await node.call("DELETE", "/job/long"))["state"] == "STOPPED"
    assert await node.call("GET", "/job/status") == {}
    again = await node.submit("long")
    assert again["run_id"] != accepted["run_id"]
    assert (await node.end("long"))["run_id"] == again["run_id"]


async def test_metrics_tell_the_progress_of_live_jobs_by_their_clients_id(node, monkeypatch):
    monkeypatch.setenv("FIXTURE_ROUND_SECONDS", "5")  # the next round is not over when the first has been told
    await node.submit(client_type_id="ward 7")
    events = await node.events(until=lambda event: event["event"] == "round" and event["data"]["content"]["evaluation"])
    said = (await node.call("GET", "/metrics")).decode()
    labels = 'client_type_id="ward 7"'
    assert f'locex_job_round{{{labels},training_id="t"}} 1.0' in said
    assert f'locex_job_state{{{labels},state="' in said
    loss = events[-1]["data"]["content"]["evaluation"]["loss"]
    assert f'locex_job_metric{{{labels},metric="loss",split="evaluation",training_id="t"}} {loss}' in said
    await node.call("DELETE", "/job/t")
    assert "locex_job_round{" not in (await node.call("GET", "/metrics")).decode()


async def test_an_unknown_job_is_404_wherever_it_is_asked_for(node):
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/events"), ("GET", "/model")):
        assert (await node.call(method, f"/job/nobody{path}", 404))["code"] == "job-unknown"


async def test_runs_are_paged_and_filtered(node):
    await node.submit("a", num_rounds=1)
    first = await node.end("a")
    await node.submit("b", server_address="nowhere")
    failed = await node.end("b")
    await node.submit("a", num_rounds=1)
    second = await node.end("a")
    runs = [second["run_id"], failed["run_id"], first["run_id"]]

    async def found(**query):
        page = await node.call("GET", "/jobs", params=query)
        return [record["run_id"] for record in page["jobs"]], page["total"]

    assert await found() == (runs, 3)
    assert await found(limit=1, offset=1) == (runs[1:2], 3)
    assert await found(state="FAILED") == ([failed["run_id"]], 1)
    assert await found(training_id="a") == ([second["run_id"], first["run_id"]], 2)
    assert (await node.call("GET", "/jobs?state=FAILED&state=STOPPED"))["total"] == 1
    assert (await node.call("GET", "/jobs?state=LOST", 422))["errors"][0]["path"] == "/state/0"
    assert (await node.call("GET", "/jobs?limit=0", 422))["code"] == "request-invalid"
    assert failed["failure"]["kind"] == "federation lost"
    assert failed["failure"]["remedy"] == "start the server"


async def test_events_resume_after_the_last_that_arrived(node, monkeypatch):
    monkeypatch.setenv("FIXTURE_ROUND_SECONDS", "0.2")
    await node.submit()
    head = await node.events(until=lambda event: event["event"] == "round")
    tail = await node.events(after=head[-1]["id"])
    every = await node.events()
    assert head + tail == every
    assert [int(event["id"]) for event in every] == list(range(1, len(every) + 1))
    assert every[-1]["data"]["content"] == {"state": "FINISHED"}
    assert [event["data"]["content"]["round"] for event in every if event["event"] == "round"][-1] == 3
    assert await node.events(after=every[-1]["id"]) == []
    bad = await node.call("GET", "/job/t/events", 422, headers={"Last-Event-ID": "x"})
    assert bad["code"] == "request-invalid"


async def test_servers_outside_the_allow_list_are_refused(open_node):
    node = await open_node(allowed_servers=["loop"])
    await node.put_model()
    problem = await node.submit("t", 403, server_address="elsewhere:1")
    assert problem["code"] == "server-refused"
    assert problem["errors"][0]["path"] == "/server_address"
    await node.submit()
