"""Plugins from outside the tree: built, installed into a running service's environment, used without a restart."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
from safetensors.numpy import load, save

EXAMPLES = Path(__file__).parents[1] / "examples"


def environment(folder):
    """Make a virtual environment that begins with what this one has; return its interpreter."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    here = sysconfig.get_path("purelib")
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "all_of_this.pth").write_text(f"import site; site.addsitedir({here!r})\n")
    return str(folder / "bin" / "python")


def install(python, *sources):
    """Build wheels and install them, as a third party and an operator would."""
    wheels = Path(python).parents[2] / "wheels"
    options = ["--quiet", "--disable-pip-version-check", "--no-deps"]
    pip = [sys.executable, "-m", "pip"]
    build = [*options, "--no-build-isolation", "--wheel-dir", str(wheels)]
    subprocess.run([*pip, "wheel", *build, *map(str, sources)], check=True)
    subprocess.run([*pip, "--python", python, "install", *options, *map(str, wheels.glob("*.whl"))], check=True)


def test_a_builder_and_a_step_of_third_parties_train_without_a_restart(programs, house_with, tmp_path):
    programs.python = environment(tmp_path / "environment")
    house = house_with()
    linear = save({"coef": np.zeros((10, 64)), "intercept": np.zeros(10)})
    house.add_model("linear", linear, library="sklearn")
    pipeline = [{"id": "log_scale", "parameters": {"offset": "0.5"}}]
    job = house.job(
        model_name="linear",
        eval_func="log_loss",
        optimizer_config={"optimizer": "sgd", "learning_rate": 0.01},
        transformations={"train": pipeline, "test": pipeline},
    )
    house.collect(3, model_name="linear")
    node = house.nodes[0]
    refused = node.http.post(f"/job/config/{house.id}/", json=job | {"server_address": f"127.0.0.1:{house.port}"})
    assert refused.status_code == 422
    assert "no builder named 'sklearn' is installed" in refused.json()["detail"]

    install(programs.python, EXAMPLES / "third_party_builder", EXAMPLES / "third_party_transform")
    listed = {(one["kind"], one["name"]) for one in node.call("GET", "/plugins").json()}
    assert {("builder", "sklearn"), ("optimizer", "sklearn.sgd"), ("transform", "log_scale")} <= listed
    schemas = node.call("GET", "/openapi.json").json()["components"]["schemas"]
    assert "offset" in str(schemas["transform.log_scale"])

    for each in house.nodes:
        each.post(house.id, job | {"server_address": f"127.0.0.1:{house.port}"})
    records = [each.finished(house.id) for each in house.nodes]
    assert house.collector.finished(house.id)["round"] == 3
    assert {"acme-sklearn", "acme-log-scale"} <= records[0]["plugins"].keys()
    assert house.accuracy(records) > 0.85
    kept = load(io.BytesIO(node.call("GET", f"/job/{house.id}/model").content).getvalue())
    assert kept["coef"].shape == (10, 64)


def test_the_examples_own_tests_and_the_contract_suite_pass(tmp_path):
    python = environment(tmp_path / "environment")
    install(python, EXAMPLES / "third_party_builder", EXAMPLES / "third_party_transform")
    installed = {**os.environ, "LOCEX_STATE_FOLDER": str(tmp_path / "state")}
    tests = [str(EXAMPLES / "third_party_transform"), "--rootdir", str(tmp_path), "-p", "no:cacheprovider"]
    subprocess.run([python, "-m", "pytest", "-q", "-c", os.devnull, *tests], env=installed, check=True)

    model, examples = tmp_path / "model.safetensors", tmp_path / "examples.npz"
    model.write_bytes(save({"coef": np.zeros((3, 5)), "intercept": np.zeros(3)}))
    np.savez(examples, x=np.random.default_rng(1).normal(size=(60, 5)), y=np.arange(60) % 3)
    check = [python, "-m", "locex.cli", "plugins", "check", "sklearn", "--model", model, "--examples", examples]
    checked = subprocess.run(check, env=installed, check=True, capture_output=True, text=True)
    assert "builder sklearn of acme-sklearn 1.0.0: ok" in checked.stdout
    assert "tried: a round of 60 examples, its state and its export" in checked.stdout
