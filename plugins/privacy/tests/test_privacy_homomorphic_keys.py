"""Keys of homomorphic encryption: made, found, refused; and parameters that must not be used."""

import json
import os
import stat

import pytest
from click.testing import CliRunner

from locex.api import PrivacyReview
from locex.errors import InvalidConfiguration, LocexError, PrivacyRefused
from locex.plugins.catalog import read_catalog
from locex.plugins.host import Host
from locex_privacy.homomorphic.commands import keys
from locex_privacy.homomorphic.keys import read_key

pytest.importorskip("locex_privacy.homomorphic.ckks", reason="the extra [homomorphic] is not installed")


@pytest.fixture
def run():
    return lambda *argv: CliRunner().invoke(keys, [str(one) for one in argv])


@pytest.fixture
def made(run, tmp_path, monkeypatch):
    """A folder with the key ``fed``; both settings name its files."""
    folder = tmp_path / "keys"
    assert run("new", "fed", "--folder", folder).exit_code == 0
    monkeypatch.setenv("HM_SECRET_FILE", str(folder / "fed.secret"))
    monkeypatch.setenv("HM_PUBLIC_FILE", str(folder / "fed.public"))
    return folder


def reviewed(**config):
    host = Host()
    plugin = host.configure(host.load(read_catalog().find("privacy", "homomorphic")), config, at="/p")
    return host.review_privacy(plugin, PrivacyReview({"homomorphic": plugin.config}, "flower-grpc", "pytorch"))


def summing(**config):
    host = Host()
    return host.aggregation(host.configure(host.load(read_catalog().find("aggregation", "homomorphic")), config))


def test_a_pair_is_made_for_its_owner_only_and_shown(run, tmp_path):
    before = os.umask(0)
    try:
        told = run("new", "fed", "--folder", tmp_path / "new")
    finally:
        os.umask(before)
    secret, public = tmp_path / "new" / "fed.secret", tmp_path / "new" / "fed.public"
    assert (stat.S_IMODE(secret.stat().st_mode), stat.S_IMODE(public.stat().st_mode)) == (0o600, 0o644)
    key_id = read_key(public, "x").key_id
    assert f"key {key_id}" in told.output
    shown = [run("show", path).output for path in (secret, public)]
    assert shown[0].startswith(f"key {key_id}, SECRET")
    assert shown[1].startswith(f"key {key_id}, public half")
    assert "poly_modulus_degree: 4096" in shown[0]
    assert "coeff_mod_bit_sizes: [54, 54]" in shown[0]
    assert "stay below: 4.1943e+06" in shown[0]
    content = json.loads(secret.read_text())
    assert content["context"] not in public.read_text()
    assert all(content["context"][:40] not in output for output in (told.output, *shown))


def test_a_key_is_not_overwritten_and_two_keys_differ(run, made):
    kept = (made / "fed.secret").read_bytes()
    again = run("new", "fed", "--folder", made)
    assert again.exit_code == 1
    assert "exist already" in again.output
    assert (made / "fed.secret").read_bytes() == kept
    run("new", "other", "--folder", made)
    assert read_key(made / "fed.public", "x").key_id != read_key(made / "other.public", "x").key_id


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--coeff-mod-bit-sizes", "60,60"), "120 bits together.*more than 109"),
        (("--poly-modulus-degree", "2048", "--coeff-mod-bit-sizes", "54,54"), "108 bits together.*more than 54"),
        (("--poly-modulus-degree", "4000"), "must be one of 1024, 2048"),
        (("--coeff-mod-bit-sizes", "54"), "names 1 prime"),
        (("--coeff-mod-bit-sizes", "61,40"), "prime of 61 bits"),
        (("--coeff-mod-bit-sizes", "much"), "no list of numbers"),
        (("--scale-bits", "10"), "scale_bits is 10: with fewer than 20"),
        (("--scale-bits", "48"), r"leaves 4 bits for max\|w\|"),
    ],
)
def test_parameters_that_must_not_be_used_are_refused_with_the_reason(run, tmp_path, options, reason):
    import re

    told = run("new", "bad", "--folder", tmp_path, *options)
    assert told.exit_code == 2
    assert re.search(reason, told.output.replace("\n", " "))
    assert not list(tmp_path.iterdir())


def test_a_name_is_never_a_path(run, tmp_path):
    assert "no name" in run("new", "../fed", "--folder", tmp_path / "keys").output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"poly_modulus_degree": 4096, "coeff_mod_bit_sizes": [60, 40, 40]}, "140 bits together"),
        ({"poly_modulus_degree": "4096", "coeff_mod_bit_sizes": [54, 54], "scale_bits": 50}, "leaves 2 bits"),
        ({"scheme": "BFV"}, "only CKKS"),
        ({"key": "../../etc/passwd"}, "pattern"),
        ({"poly_modulus": 4096}, "unknown key"),
    ],
)
def test_a_job_with_such_parameters_is_refused(made, config, reason):
    with pytest.raises(InvalidConfiguration, match=reason):
        reviewed(**config)


def test_a_job_hears_of_the_collector_that_it_needs(made):
    (warning,) = reviewed(poly_modulus_degree=4096, coeff_mod_bit_sizes=["54", "54"], scale_bits=30, scheme="ckks")
    key_id = read_key(made / "fed.public", "x").key_id
    assert warning.startswith(f"homomorphic needs locex's collector, with the public half of key {key_id}")


def test_what_cannot_stand_beside_it_is_refused(made):
    host = Host()
    plugin = host.configure(host.load(read_catalog().find("privacy", "homomorphic")), {})
    for other, reason in (("secagg", "both hide single updates"), ("compression", "cannot be added")):
        review = PrivacyReview({"homomorphic": plugin.config, other: plugin.config}, "flower-superlink", "pytorch")
        with pytest.raises(PrivacyRefused, match=reason):
            host.review_privacy(plugin, review)


def test_parameters_must_be_those_of_the_key(made):
    with pytest.raises(PrivacyRefused, match=r"poly_modulus_degree is 4096, not 8192; coeff_mod_bit_sizes is \[54, 54"):
        reviewed(poly_modulus_degree=8192, coeff_mod_bit_sizes=[60, 40, 40])
    with pytest.raises(PrivacyRefused, match="scale_bits is 30, not 40"):
        summing(scale_bits=40)


@pytest.mark.parametrize(
    ("mode", "refused"), [(0o600, False), (0o400, False), (0o640, False), (0o604, True), (0o620, True), (0o644, True)]
)
def test_a_secret_that_others_can_read_is_refused(made, mode, refused):
    (made / "fed.secret").chmod(mode)
    if refused:
        with pytest.raises(PrivacyRefused, match=rf"mode {mode:04o}\) can be read or changed by") as raised:
            reviewed()
        assert "chmod 600" in raised.value.remedy
    else:
        assert [text for text in reviewed() if "its group" in text] == (
            [f"the secret key {made / 'fed.secret'} (mode 0640) can be read by its group"] if mode == 0o640 else []
        )


def test_a_folder_of_keys_serves_several_federations(run, made, monkeypatch):
    monkeypatch.setenv("HM_SECRET_FILE", str(made))
    monkeypatch.setenv("HM_PUBLIC_FILE", str(made))
    assert reviewed() == reviewed(key="fed")
    run("new", "second", "--folder", made)
    with pytest.raises(PrivacyRefused, match="are: fed, second; which of them is meant must be said"):
        reviewed()
    with pytest.raises(PrivacyRefused, match="are: fed, second; 'third' is not among them"):
        summing(key="third")
    assert reviewed(key="second") != reviewed(key="fed")
    assert summing(key="second").configure(1)["homomorphic_key"] == read_key(made / "second.public", "x").key_id


def test_a_file_answers_for_its_own_name_only(made):
    assert reviewed(key="fed")
    with pytest.raises(PrivacyRefused, match="the key 'other' is asked for, and HM_SECRET_FILE is the file"):
        reviewed(key="other")


def test_the_halves_are_not_taken_for_each_other(made, monkeypatch):
    monkeypatch.setenv("HM_SECRET_FILE", str(made / "fed.public"))
    with pytest.raises(PrivacyRefused, match=r"is the public half of key [0-9a-f]{32}: nodes need the secret"):
        reviewed()


def test_the_parameters_of_a_secret_cannot_be_changed(made):
    path = made / "fed.secret"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"parameters": content["parameters"] | {"scale_bits": 25}}))
    with pytest.raises(PrivacyRefused, match=f"is damaged: it is not {content['key_id']}"):
        reviewed()


def test_without_a_key_there_is_none(monkeypatch):
    monkeypatch.delenv("HM_SECRET_FILE", raising=False)
    monkeypatch.setenv("HM_PUBLIC_FILE", "")
    with pytest.raises(PrivacyRefused, match="HM_SECRET_FILE is not set") as raised:
        reviewed()
    assert "locex keys new NAME" in raised.value.remedy
    with pytest.raises(PrivacyRefused, match="HM_PUBLIC_FILE is not set"):
        summing()


def test_no_secret_gets_into_an_error(run, made):
    path = made / "fed.secret"
    content = json.loads(path.read_text())
    spoilt = [
        "not JSON " + content["context"],
        json.dumps({**content, "key_id": content["context"]}),
        json.dumps({**content, "context": "!" + content["context"]}),
        json.dumps({**content, "context": content["context"][:-40] + "AAAA" * 10}),
        json.dumps({**content, "further": content["context"]}),
        content["context"],
    ]
    for text in spoilt:
        path.write_text(text)
        with pytest.raises(LocexError) as raised:
            reviewed()
        assert str(path) in raised.value.message
        told = json.dumps(raised.value.to_json()) + repr(raised.value.__cause__)
        assert content["context"][100:130] not in told
    path.unlink()
    with pytest.raises(InvalidConfiguration, match=r"cannot be read.*No such file"):
        reviewed()


def test_without_tenseal_the_extra_is_named(made, monkeypatch):
    import importlib.util

    monkeypatch.setattr("locex_privacy.homomorphic.settings.find_spec", lambda name: None)
    assert importlib.util.find_spec("tenseal")
    for ask in (reviewed, summing):
        with pytest.raises(PrivacyRefused, match="needs TenSEAL") as raised:
            ask()
        assert raised.value.remedy == "pip install 'locex-privacy[homomorphic]'"
