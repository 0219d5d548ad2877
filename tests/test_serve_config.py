"""Settings from a file, the environment, and the command line."""

from __future__ import annotations

import os
import re
from dataclasses import fields
from pathlib import Path

import pytest

from laconic import cli
from laconic.errors import InputError
from laconic.serve.config import Config
from laconic.serve.decisions import default_folder
from laconic.serve.rules import Rules

ONE = {"openai": "https://api.openai.com"}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "laconic.toml"

    def write(text, mode=0o600):
        path.write_text(text, encoding="utf-8")
        path.chmod(mode)
        return path

    return write


def test_options_are_over_the_environment_and_the_environment_over_the_file(file):
    path = file('[server]\nport = 1\nworkers = 2\nhost = "::1"\n[upstreams]\nopenai = "http://a"\n[rules]\nfloor = 9\n')
    config = Config.read_all(path, {"port": 3, "host": None}, {"LACONIC_PORT": "2", "LACONIC_WORKERS": "4"})
    assert (config.port, config.workers, config.host, config.upstreams) == (3, 4, "::1", {"openai": "http://a"})
    assert Rules.read(path, {}).floor == 9
    assert Config.read_all(path, {"upstreams": ONE}, {}).upstreams == ONE
    over = Config.read_all(path, {}, {"LACONIC_UPSTREAMS": "http://b, mine=http://c"})
    assert over.upstreams == {"openai": "http://b", "mine": "http://c"}


def test_every_setting_has_a_variable():
    texts = {
        "host": "0.0.0.0",
        "port": "1",
        "workers": "2",
        "key": "k",
        "store": "~/x",
        "model": "m",
        "method": "tfidf",
    }
    texts |= {"seconds": "0.5", "threads": "3", "queue": "4", "connect": "5", "read": "6", "grace": "7"}
    config = Config.read_all(None, {"upstreams": ONE}, {f"LACONIC_{k.upper()}": v for k, v in texts.items()})
    numbers = {
        "seconds": 0.5,
        "connect": 5.0,
        "read": 6.0,
        "port": 1,
        "workers": 2,
        "threads": 3,
        "queue": 4,
        "grace": 7,
    }
    assert config == Config(ONE, **{**texts, **numbers, "store": Path.home() / "x"})
    assert texts.keys() | {"upstreams"} == {setting.name for setting in fields(Config)}


def test_an_empty_variable_says_nothing(file):
    path = file('[server]\nkey = "secret"\nport = 1\n[upstreams]\nopenai = "http://a"\n')
    config = Config.read_all(path, {}, {"LACONIC_KEY": "", "LACONIC_PORT": " ", "LACONIC_STORE": ""})
    assert (config.key, config.port, config.store) == ("secret", 1, default_folder())


def test_server_clients_and_restore_read_the_same_store(monkeypatch):
    for given, folder in {"~/x": Path.home() / "x", "": Path.home() / ".local" / "share" / "laconic"}.items():
        monkeypatch.setattr(os, "environ", {"HOME": str(Path.home()), "LACONIC_STORE": given})
        assert Config.read_all(None, {"upstreams": ONE}, os.environ).store == default_folder() == folder


@pytest.mark.parametrize(
    ("wrong", "advice"),
    [
        ({"port": 99999}, "port must be 0 to 65535, got 99999"),
        ({"port": "80"}, "port must be 0 to 65535"),
        ({"workers": 0}, "workers must be 1 or more, got 0"),
        ({"queue": -1}, "queue must be 0 or more"),
        ({"seconds": 0}, "seconds must be a number above 0"),
        ({"read": float("inf")}, "read must be a number above 0"),
        ({"host": 1}, "host must be a text"),
        ({"store": 5}, "store must be a folder in quotes, got 5"),
        ({"upstreams": {}}, "pass --upstream URL"),
    ],
)
def test_a_wrong_value_is_answered_with_advice(wrong, advice):
    with pytest.raises(InputError, match=re.escape(advice)):
        Config(**{"upstreams": ONE, **wrong})


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("[server]\nprot = 1\n", "there is no 'prot' in [server]; did you mean port?"),
        ("[upstreams]\nopenai = 1\n", "openai in [upstreams] must be a URL in quotes"),
        ("upstreams = 1\n", "begin it with [upstreams]"),
        ('[upstream]\nopenai = "http://a"\n', "'upstream' is no table; did you mean upstreams?"),
    ],
)
def test_a_wrong_file_is_answered_with_advice(file, text, advice):
    with pytest.raises(InputError, match=re.escape(advice)):
        Config.read_all(file(text), {}, {})


@pytest.mark.skipif(os.name != "posix", reason="permissions")
def test_a_key_is_kept_in_a_file_of_its_owner_alone_and_never_shown(file):
    text = '[server]\nkey = "secret"\n[upstreams]\nopenai = "http://a"\n'
    assert "secret" not in repr(Config.read_all(file(text), {}, {}))
    with pytest.raises(InputError, match="chmod 600"):
        Config.read_all(file(text, 0o644), {}, {})
    for wrong in ("sec ret", "schlüssel", 1234):
        with pytest.raises(InputError, match="key must be") as caught:
            Config(ONE, key=wrong)
        assert str(wrong) not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        ([], "no upstream: pass --upstream URL"),
        (["--upstream", "x"], "not a URL: 'x'"),
        (["--upstream", "http://a", "--upstream", "http://b"], "two upstreams are named openai"),
        (["--upstream", "http://a", "--port", "x"], "'x' is not a whole number"),
        (["--upstream", "http://a", "--config", "missing.toml"], "missing.toml cannot be read"),
        (["--upstream", "http://a", "--host", "192.0.2.1"], "cannot listen on 192.0.2.1"),
    ],
)
def test_a_wrong_command_is_one_line_of_advice(arguments, advice, capsys, monkeypatch):
    monkeypatch.setattr(os, "environ", {})
    assert cli.main(["serve", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("laconic: ") and advice in line


def test_the_page_names_every_setting():
    page = (Path(__file__).parents[1] / "docs" / "serve.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", page, flags=re.DOTALL)))
    assert {setting.name for setting in fields(Config)} - {"upstreams"} <= named
