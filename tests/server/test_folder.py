"""The data folder: one server at a time, an identity that stays, nothing foreign taken over."""

import json
import os
import subprocess
import sys

import pytest

from model.errors import Corrupt, DiskFull, FolderInUse
from server.folder import DataFolder


def test_a_new_folder_gets_an_identity_that_stays(tmp_path):
    first = DataFolder(tmp_path / "data")
    assert first.is_new
    first.close()
    again = DataFolder(tmp_path / "data")
    assert not again.is_new
    assert again.identity == first.identity
    assert again.identity.server_id != again.identity.cluster_id
    again.close()


def test_only_the_owner_may_look_inside(tmp_path):
    folder = DataFolder(tmp_path / "data")
    assert folder.path.stat().st_mode & 0o077 == 0
    folder.close()


def test_a_second_holder_is_refused_and_told_who_has_it(tmp_path):
    folder = DataFolder(tmp_path)
    with pytest.raises(FolderInUse, match=f"in use by process {os.getpid()}") as caught:
        DataFolder(tmp_path)
    assert "--data-dir" in caught.value.hint
    folder.close()
    DataFolder(tmp_path).close()


def test_the_lock_goes_with_its_process(tmp_path):
    code = """if True:
        import os, pathlib, sys
        from server.folder import DataFolder
        DataFolder(pathlib.Path(sys.argv[1]))
        os._exit(9)
    """
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == 9
    DataFolder(tmp_path).close()


def test_a_folder_with_other_things_in_it_is_not_taken_over(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(Corrupt, match=r"holds thesis\.txt but no identity\.json"):
        DataFolder(tmp_path)
    assert not (tmp_path / "identity.json").exists()


def test_a_log_without_identity_is_not_begun_anew(tmp_path):
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "1").write_bytes(b"records")
    with pytest.raises(Corrupt, match=r"holds log but no identity\.json"):
        DataFolder(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "{}", '{"format": 1}', "[]"])
def test_a_damaged_identity_stops_the_start(tmp_path, text):
    (tmp_path / "identity.json").write_text(text)
    with pytest.raises(Corrupt, match=r"identity\.json cannot be read"):
        DataFolder(tmp_path)


def test_a_newer_format_is_refused(tmp_path):
    DataFolder(tmp_path).close()
    identity = json.loads((tmp_path / "identity.json").read_text())
    (tmp_path / "identity.json").write_text(json.dumps({**identity, "format": 2}))
    with pytest.raises(Corrupt, match="says format 2; this version reads 1"):
        DataFolder(tmp_path)


def test_a_place_that_cannot_be_used_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskFull, match="Cannot use the data folder"):
        DataFolder(tmp_path / "file" / "data")
