"""Log lines: fields stay fields, in both forms."""

import json
import logging

import pytest

from model.errors import BadSetting
from server.logs import JsonFormatter, TextFormatter, set_up


def record(**extra):
    fields = {"name": "rewinddb.wal", "levelname": "WARNING", "msg": "cut %d bytes", "args": (7,), "created": 1e9}
    return logging.makeLogRecord(fields | extra)


def test_text_has_time_level_room_message_and_fields():
    assert (
        TextFormatter().format(record(segment=3))
        == "2001-09-09T01:46:40.000Z warning rewinddb.wal: cut 7 bytes segment=3"
    )


def test_json_is_one_object_on_a_line():
    line = JsonFormatter().format(record(segment=3, note="a\nb"))
    assert "\n" not in line
    assert json.loads(line) == {
        "time": "2001-09-09T01:46:40.000Z",
        "level": "warning",
        "logger": "rewinddb.wal",
        "message": "cut 7 bytes",
        "segment": 3,
        "note": "a\nb",
    }


def test_a_traceback_is_kept():
    try:
        raise ValueError("broken")
    except ValueError as error:
        info = (type(error), error, error.__traceback__)
    assert "ValueError: broken" in TextFormatter().format(record(exc_info=info))
    assert "ValueError: broken" in json.loads(JsonFormatter().format(record(exc_info=info)))["traceback"]


def test_a_log_file_that_cannot_be_written_is_a_wrong_setting(tmp_path):
    with pytest.raises(BadSetting, match=r"logging\.file"):
        set_up("info", "text", str(tmp_path / "absent" / "log"), "")


@pytest.mark.parametrize("text", ["version: 7", "[]", "version: 1\nhandlers: {a: {class: no.such}}", ":"])
def test_a_wrong_config_file_is_a_wrong_setting(tmp_path, text):
    path = tmp_path / "logging.yaml"
    path.write_text(text)
    with pytest.raises(BadSetting, match=r"logging\.config_file"):
        set_up("info", "text", "", str(path))
