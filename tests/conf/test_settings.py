"""Settings: what is written is what the server gets, and what is wrong is named with its place."""

from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from conf.settings import Settings, load
from model.errors import BadSetting

SINGLE = Path(__file__).parents[2] / "conf" / "single.yaml"


def names(cls, at=""):
    for field in fields(cls):
        value = getattr(cls, field.name, None) if not is_dataclass(field.default) else field.default
        if is_dataclass(value):
            yield from names(type(value), f"{at}{field.name}.")
        else:
            yield at + field.name


def keys(section, at=""):
    for key, value in section.items():
        if isinstance(value, dict):
            yield from keys(value, f"{at}{key}.")
        else:
            yield at + key


def write(tmp_path, text):
    path = tmp_path / "settings.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_single_yaml_holds_every_setting_with_its_default():
    assert load(SINGLE) == Settings()
    assert sorted(keys(yaml.safe_load(SINGLE.read_text(encoding="utf-8")))) == sorted(names(Settings))


def test_single_yaml_says_something_about_every_section():
    for section in fields(Settings):
        assert f"\n{section.name}:" in SINGLE.read_text(encoding="utf-8")


def test_an_empty_file_gives_the_defaults(tmp_path):
    assert load(write(tmp_path, "")) == Settings()
    assert load(write(tmp_path, "driver:\n")) == Settings()


def test_flags_are_put_over_the_file(tmp_path):
    path = write(tmp_path, "driver: {port: 1, address: 0.0.0.0}\n")
    settings = load(path, {"driver.port": 0, "server.data_dir": "elsewhere", "http.port": None})
    assert (settings.driver.port, settings.driver.address) == (0, "0.0.0.0")
    assert settings.server.data_dir == "elsewhere"
    assert settings.http.port == 8080


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("driver: {prot: 1}", "driver.prot: no such setting; known here: address, port, tls"),
        ("drivers: {port: 1}", "drivers: no such setting; known here: admin, backup, cluster, driver"),
        ("driver: {port: 70000}", "driver.port: found 70000; allowed: a whole number from 0 to 65535"),
        ("driver: {port: '1'}", "driver.port: found the text '1'; allowed: a whole number from 0 to 65535"),
        ("driver: {port: true}", "driver.port: found true; allowed: a whole number"),
        ("driver: {port: [1]}", "driver.port: found a list; allowed: a whole number"),
        ("driver: 7", "driver: found 7; allowed: a section of settings"),
        ("http: {enabled: 'on'}", "http.enabled: found the text 'on'; allowed: true or false"),
        ("logging: {level: loud}", "logging.level: found the text 'loud'; allowed: debug, info, warning or error"),
        ("writes: {durability: none}", "writes.durability: found the text 'none'; allowed: hard or soft"),
        (
            "storage: {cache_bytes: big}",
            "storage.cache_bytes: found the text 'big'; allowed: a whole number from 8388608",
        ),
        ("storage: {cache_bytes: 1000}", "found 1000; allowed: a whole number from 8388608 to 70368744177664 or auto"),
        ("storage: {cache_bytes: [auto]}", "storage.cache_bytes: found a list; allowed: a whole number from"),
        ("storage: {compression: auto}", "storage.compression: found the text 'auto'; allowed: lz4 or zstd"),
        ("server: {data_dir: ''}", "server.data_dir: found the text ''; allowed: text that is not empty"),
        ("server: {name: 5}", "server.name: found 5; allowed: text"),
        ("driver: {tls: {certificate_file: a}}", "driver.tls.key_file: found nothing; allowed: a file"),
        ("driver: {tls: {ca_file: a}}", "driver.tls.ca_file: found 'a'; allowed: only beside a certificate_file"),
        (
            "driver: {tls: {certificate_file: /no/a, key_file: /no/b}}",
            "driver.tls.certificate_file: found '/no/a'; allowed: a file that exists",
        ),
        ("admin: {initial_password: a, initial_password_file: b}", "are both set; allowed: one of them"),
        ("- 1", "it holds a list"),
        ("driver: {port: 1, port: 2}", "the key `port` stands twice in one section"),
        ("driver: {port: 1", "is not valid YAML"),
        ("!!python/object:os.system {}", "is not valid YAML"),
    ],
)
def test_a_mistake_is_named_with_its_place_and_what_is_allowed(tmp_path, text, said):
    with pytest.raises(BadSetting) as caught:
        load(write(tmp_path, text))
    assert said in str(caught.value)


@pytest.mark.parametrize("value", ["auto", 8 << 20])
def test_a_setting_may_be_a_number_or_a_word(tmp_path, value):
    assert load(write(tmp_path, f"storage: {{cache_bytes: {value}}}\n")).storage.cache_bytes == value


def test_all_mistakes_are_told_at_once():
    with pytest.raises(BadSetting) as caught:
        load(None, {"driver.port": -1, "log.colour": 1, "limits.connections": 0})
    assert len(str(caught.value).splitlines()) == 3


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(BadSetting, match="No such file"):
        load(tmp_path / "absent.yaml")
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(BadSetting, match="not UTF-8"):
        load(binary)


def test_a_password_is_never_shown():
    with pytest.raises(BadSetting) as caught:
        load(None, {"admin.initial_password": 90210})
    assert "90210" not in str(caught.value)
    assert "secret" not in repr(load(None, {"admin.initial_password": "secret"}))


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text() | st.floats(), lambda inner: st.lists(inner)))
def test_any_value_is_taken_or_refused_by_name(value):
    try:
        settings = load(None, {"limits.array_limit": value})
    except BadSetting as error:
        assert str(error).startswith("limits.array_limit: found")
    else:
        assert value is None or settings.limits.array_limit == value
