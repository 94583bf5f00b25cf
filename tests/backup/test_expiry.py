"""What leaves a vault: never what is promised, and never half."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backup.capture import Order, capture
from backup.expire import delete_images, expire
from backup.holds import hold, release
from backup.manifest import ImageManifest, SliceName
from backup.plan import EndsEarly, LogGap, NoBaseImage, Stop, plan_restore
from backup.plan_expiry import DAY_MS, Policy, Promised, check_deletion, plan_expiry, policy_from
from backup.sealing import Keyring, UnknownKey, new_key
from backup.shelf import look
from backup.vault import Vault, VaultUnavailable
from backup.verify import verify
from model.errors import BadSetting, UnfitArchive
from storage.image import Image
from tests.backup.faults import WRITES, Killed, at_operation, make_faulty
from tests.backup.past_ledger import CLUSTER, History

NOW_MS = 100 * DAY_MS


def image(index, days_ago, selection=()):
    time_ms = int(NOW_MS - days_ago * DAY_MS)
    return ImageManifest(f"i{index}", "c", index, 1, time_ms, time_ms, time_ms, "t", selection, (), ())


def left(images, policy, held=()):
    gone = plan_expiry(images, [], held, policy, NOW_MS).images
    return [image.log_index for image in images if image.image not in gone]


DAILY = [image(10 * (20 - days), days) for days in range(20, 0, -1)]


def test_each_promise_keeps_what_it_says():
    assert left(DAILY, Policy()) == [image.log_index for image in DAILY]
    assert left(DAILY, Policy(keep_images=3)) == [170, 180, 190]
    assert left(DAILY, Policy(keep_days=2.5)) == [180, 190]
    assert left(DAILY, Policy(window_days=2.5)) == [170, 180, 190]
    assert left(DAILY, Policy(keep_days=0.001, minimum_images=2)) == [180, 190]
    assert left(DAILY, Policy(keep_images=1), held=["i20"]) == [20, 190]
    assert left(DAILY, Policy(keep_images=1, window_days=3)) == [170, 180, 190]


def test_an_image_of_one_database_does_not_count_for_the_whole():
    images = [image(1, 9), image(2, 8, ("shop",)), image(3, 7, ("shop",)), image(4, 6, ("other",))]
    assert left(images, Policy(keep_images=1)) == [1, 3, 4]


images = st.lists(st.tuples(st.integers(1, 400), st.floats(0, 60)), min_size=1, max_size=12)
policies = st.builds(
    Policy,
    keep_images=st.none() | st.integers(1, 5),
    keep_days=st.none() | st.floats(1, 50),
    window_days=st.none() | st.floats(1, 50),
    minimum_images=st.integers(1, 4),
)


@settings(max_examples=200, deadline=None)
@given(images, policies, st.integers(0, 3))
def test_the_window_can_be_restored_at_every_moment(drawn, policy, first_slice):
    """After expiry, every index and time of the window can still be planned, if it could before."""
    indexes = sorted({index for index, _ in drawn})
    ages = sorted((age for _, age in drawn), reverse=True)
    taken = [image(index, age) for index, age in zip(indexes, ages, strict=False)]
    slices = [SliceName(i, i, i, int(NOW_MS)) for i in range(1 + 100 * first_slice, 401)]
    gone = plan_expiry(taken, slices, (), policy, int(NOW_MS))
    stay = [image for image in taken if image.image not in gone.images]
    log = [piece for piece in slices if piece not in gone.slices]
    assert len(stay) >= min(policy.minimum_images, len(taken))
    begin = min((image.log_index for image in stay), default=0)
    if policy.window_days is not None:
        start_ms = NOW_MS - policy.window_days * DAY_MS
        before = [image for image in taken if image.time_ms <= start_ms]
        begin = max(before, key=lambda image: image.log_index).log_index if before else taken[0].log_index
    for index in range(begin, 401, 7):
        try:
            plan_restore(taken, slices, Stop(index=index))
        except (LogGap, EndsEarly, NoBaseImage):
            continue
        plan_restore(stay, log, Stop(index=index))


def test_what_is_promised_is_not_deleted_by_request():
    with pytest.raises(Promised, match="newest 2"):
        check_deletion(["i180"], DAILY, (), Policy(minimum_images=2), NOW_MS)
    with pytest.raises(Promised, match="window"):
        check_deletion(["i150"], DAILY, (), Policy(window_days=6), NOW_MS)
    with pytest.raises(Promised, match="held"):
        check_deletion(["i20"], DAILY, ["i20"], Policy(), NOW_MS)
    with pytest.raises(Promised, match="no image"):
        check_deletion(["i21"], DAILY, (), Policy(), NOW_MS)
    check_deletion(["i10", "i20"], DAILY, (), Policy(window_days=6), NOW_MS)


@pytest.mark.parametrize(
    "plain", [{"keep": 1}, {"keep_images": 0}, {"keep_images": 1.5}, {"keep_days": "3"}, {"window_days": True}]
)
def test_a_policy_is_checked(plain):
    with pytest.raises(BadSetting):
        policy_from(plain)


@pytest.fixture
def history(tmp_path):
    return History(tmp_path / "server", random.Random(3))


def filled(url, history):
    """A vault with four images, and the log between them."""
    vault = Vault(url)
    vault.claim(CLUSTER, 1)
    for number in range(4):
        history.steps(6)
        history.ship(vault)
        place = history.folder / f"checkpoint{number}"
        index = history.machine.checkpoint(place)
        order = Order(f"20260101T00000{number}Z-x", CLUSTER, 1, history.time_ms(index), "test")
        with Image(place) as checkpoint:
            capture(checkpoint, vault, order, nothing)
    return vault


def nothing(*_):
    """Nobody wants to know how far it is."""


@pytest.mark.parametrize("kind", ["kill", "killed", "before"])
def test_a_deletion_that_ends_anywhere_leaves_whole_images_and_is_finished_later(tmp_path, history, kind):
    url = f"file://{tmp_path}/vault"
    filled(url, history)
    for number in range(1, 400):
        vault = make_faulty(Vault(url), at_operation(1 + number % 3, kind, WRITES))
        late_ms = 1 << 60
        try:
            expire(vault, Policy(keep_images=2), late_ms)
        except (Killed, VaultUnavailable):
            assert verify(Vault(url), "files", nothing).problems == []
            continue
        break
    else:
        pytest.fail("the deletion was never finished")
    assert number > 1
    shelf = look(Vault(url))
    assert len(shelf.images) == 2
    assert all(piece.last_index > shelf.images[0].log_index for piece in shelf.slices)
    assert len({name.split("/")[1] for name, _ in Vault(url).names("images")}) == 2


def test_a_damaged_image_can_be_deleted_by_name(tmp_path, history):
    vault = filled(f"file://{tmp_path}/vault", history)
    names = [image.image for image in look(vault).images]
    policy = Policy(keep_images=4)
    (tmp_path / "vault" / "images" / names[1] / "manifest").write_bytes(b"nothing of the kind")
    with pytest.raises(Promised, match="cannot be deleted"):
        delete_images(vault, [names[0]], policy, 1)
    hold(vault, names[1])
    with pytest.raises(Promised, match="is held"):
        delete_images(vault, [names[1]], policy, 1)
    release(vault, names[1])
    delete_images(vault, [names[1]], policy, 1, dry_run=True)
    assert len(look(vault).damaged) == 1
    delete_images(vault, [names[1]], policy, 1)
    assert [image.image for image in look(vault).images] == [names[0], *names[2:]]
    assert look(vault).damaged == ()
    assert vault.names(f"images/{names[1]}") == []


def test_an_image_that_there_is_no_key_for_is_not_taken_for_a_damaged_one(tmp_path, history):
    vault = Vault(f"file://{tmp_path}/vault", keyring=Keyring([new_key()]))
    vault.claim(CLUSTER, 1)
    history.steps(6)
    name = history.image(vault)
    other = Vault(vault.url, keyring=Keyring([new_key()]))
    with pytest.raises(UnknownKey):
        look(other)
    history.steps(1)
    rotated = history.image(other)
    assert [image.image for image in look(other).images] == [rotated]
    assert [damaged for damaged, _ in look(other).damaged] == [f"images/{name}/manifest"]
    with pytest.raises(UnknownKey):
        delete_images(other, [name], Policy(), 1)
    assert [image.image for image in look(vault).images] == [name]


def test_holds_and_damage_stop_a_deletion(tmp_path, history):
    vault = filled(f"file://{tmp_path}/vault", history)
    names = [image.image for image in look(vault).images]
    hold(vault, names[0])
    hold(vault, names[0])
    assert expire(vault, Policy(keep_images=1), 1, dry_run=True).expiry.images == tuple(names[1:3])
    assert len(look(vault).images) == 4
    release(vault, names[0])
    with pytest.raises(UnfitArchive):
        hold(vault, "nothing")
    manifest = tmp_path / "vault" / "images" / names[1] / "manifest"
    manifest.write_bytes(b"RWND" + bytes(40))
    with pytest.raises(UnfitArchive, match="Nothing is deleted"):
        expire(vault, Policy(keep_images=1), 1)
    assert len(look(vault).images) == 3
