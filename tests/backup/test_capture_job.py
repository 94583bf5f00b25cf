"""The child that takes an image: it enters the vault first, and writes nothing into a place that is not the vault."""

import msgspec
import pytest

from backup import jobs
from backup.vault import Vault, VaultUnavailable
from model.errors import UnfitArchive
from tests.backup.test_image import server  # noqa: F401  (a fixture)


class Line:
    """What the server would hear, and what it says once the vault was entered."""

    def __init__(self, wanted=None):
        self.said = []
        self._wanted = wanted

    def tell(self, event, **fields):
        self.said.append((event, fields))

    def progress(self, what, rows, size):
        pass

    def newest_order(self, timeout_s):
        assert self.said, "an order is awaited before the vault was entered"
        return self._wanted


def job_on(folder, label=None, is_known=True):
    access = {"name": "main", "url": f"file://{folder}"}
    return {"vault": access, "cluster_id": "c1", "is_known": is_known, "label": label}


def files(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def label(tmp_path):
    vault = Vault(f"file://{tmp_path}/vault")
    vault.claim("c1", 1)
    return vault.label()


def test_it_tells_that_it_has_entered_and_takes_what_it_is_told(server, tmp_path, label):  # noqa: F811
    checkpoint = tmp_path / "checkpoint"
    index = server.machine.checkpoint(checkpoint)
    order = {"image": "one", "cluster_id": "c1", "raft_term": 1, "time_ms": 5, "server_version": "1", "selection": []}
    line = Line({"checkpoint": str(checkpoint), "order": order, "hold": True})
    done = jobs.capture(job_on(tmp_path / "vault", label), line)
    assert line.said == [("entered", {"label": label})]
    assert (done["image"], done["log_index"]) == ("one", index)
    assert done["rows"] == sum(server.machine.store.count(table_id) for table_id in (1, 2))
    assert (tmp_path / "vault" / "holds" / "one").exists()


def test_a_folder_that_another_server_has_claimed_is_not_the_vault(tmp_path, label):
    own = Vault(f"file://{tmp_path}/own")
    own.claim("c1", 1)  # at the same time, for the same cluster
    line = Line()
    with pytest.raises(UnfitArchive, match="another place"):
        jobs.capture(job_on(tmp_path / "own", label), line)
    assert line.said == [] and files(tmp_path / "own") == ["vault.json"]


def test_an_empty_folder_is_not_the_vault(tmp_path, label):
    with pytest.raises(VaultUnavailable, match=r"lost its vault\.json"):
        jobs.capture(job_on(tmp_path / "empty", label), Line())
    assert not (tmp_path / "empty").exists()


def test_a_vault_of_an_earlier_version_has_no_id_and_is_told_by_its_time(tmp_path, label):
    old = {name: value for name, value in label.items() if name != "id"}
    (tmp_path / "vault" / "vault.json").write_bytes(msgspec.json.encode(old))
    line = Line({"checkpoint": "/nothing", "order": {"selection": []}, "hold": False})
    with pytest.raises(TypeError):  # it had entered, and got to the order
        jobs.capture(job_on(tmp_path / "vault", old), line)
    assert line.said == [("entered", {"label": old})]
    with pytest.raises(UnfitArchive, match="another place"):
        jobs.capture(job_on(tmp_path / "vault", {**old, "created_ms": 2}), Line())
