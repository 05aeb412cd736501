"""What every `Storage` promises, whoever keeps the files: each test runs on each implementation."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from app.errors import NotFound
from app.storage import Beside, DiskStorage, FoundFile, Storage, new_id, next_version, public_name
from tests.s3_servers import open_storage

IMPLEMENTATIONS: dict[str, Callable[[Path, pytest.FixtureRequest], Storage]] = {
    "disk": lambda folder, _: DiskStorage(folder / "uploads", folder / "results"),
    "shared folders": lambda folder, _: DiskStorage(folder / "uploads", folder / "results", marks_runs=True),
    "seaweedfs": lambda folder, request: open_storage(request.getfixturevalue("seaweedfs"), folder),
    "swift": lambda folder, request: open_storage(request.getfixturevalue("swift"), folder),
    "old server": lambda folder, request: open_storage(
        request.getfixturevalue("seaweedfs"), folder, checksums="when_required"
    ),
}
BAD_IDS = ["", "..", "a" * 31, "a" * 33, "A" * 32, "a" * 32 + "\n", "../" + "a" * 29, "a" * 31 + "/", "\x00" * 32]
BAD_RESULTS = ["", "a" * 32, "a" * 32 + ".exe", "a" * 32 + ".PNG", "../" + "a" * 32 + ".png", ".scratch", "a.png\n"]


@pytest.fixture(params=sorted(IMPLEMENTATIONS))
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    return IMPLEMENTATIONS[request.param](tmp_path, request)


def put_upload(storage: Storage, content: bytes = b"photo") -> str:
    with storage.open_upload(new_id()) as writer:
        writer.write(content)
        return writer.commit().id


def put_result(storage: Storage, content: bytes = b"result", name: str = "") -> str:
    name = name or f"{new_id()}.png"
    with storage.scratch(name[:32]) as temporary:
        temporary.write_bytes(content)
        storage.publish(temporary, name)
    return name


def put_beside(storage: Storage, name: str, *kinds: Beside) -> None:
    for kind in kinds or Beside:
        with storage.scratch(name[:32]) as temporary:
            temporary.write_bytes(kind.encode())
            storage.publish_beside(temporary, name, kind)


def put_mask(storage: Storage, content: bytes = b"mask") -> str:
    attempt_id = new_id()
    with storage.scratch(attempt_id) as temporary:
        temporary.write_bytes(content)
        storage.keep_mask(temporary, attempt_id)
    return attempt_id


def has_beside(storage: Storage, name: str) -> set[Beside]:
    return {kind for kind in Beside if storage.has_beside(name, kind)}


def listed(storage: Storage) -> tuple[set[str], set[str], set[str]]:
    found = storage.iter_uploads(), storage.iter_results(), storage.iter_parts()
    uploads, results, parts = ({file.name for file in files} for files in found)
    return uploads, results, parts


def test_an_upload_is_hashed_counted_and_kept_from_its_commit_on(storage: Storage) -> None:
    photo_id = new_id()
    with storage.open_upload(photo_id) as writer:
        for chunk in (b"abc", bytearray(b"def"), memoryview(b"ghi"), b""):
            writer.write(chunk)
        assert writer.bytes_written == 9
        assert writer.path.read_bytes() == b"abcdefghi"  # the header check looks before the commit
        assert not storage.has_upload(photo_id)
        stored = writer.commit()
        writer.abort()  # harmless now
    assert (stored.id, stored.bytes, stored.sha256) == (photo_id, 9, hashlib.sha256(b"abcdefghi").hexdigest())
    assert storage.has_upload(photo_id)
    with storage.upload(photo_id) as path:
        assert path.read_bytes() == b"abcdefghi"
    assert listed(storage) == ({photo_id}, set(), set())


def test_an_upload_that_is_left_or_aborted_leaves_nothing_and_takes_no_more(storage: Storage) -> None:
    writer = storage.open_upload(new_id())
    writer.write(b"x")
    writer.abort()
    writer.abort()
    for call in (lambda: writer.write(b"y"), writer.commit):
        with pytest.raises(ValueError, match="ended"):
            call()
    with contextlib.suppress(KeyboardInterrupt), storage.open_upload(new_id()) as left:
        left.write(b"x")
        raise KeyboardInterrupt
    assert listed(storage) == (set(), set(), set())


def test_a_result_is_kept_under_its_name_and_replaced_whole(storage: Storage) -> None:
    name = put_result(storage, b"first")
    put_result(storage, b"second", name)
    with storage.result(name) as path:
        assert path.read_bytes() == b"second"
    assert listed(storage) == (set(), {name}, set())


def test_a_copy_has_the_same_bytes_and_outlives_what_it_was_copied_from_with_all_beside_it(storage: Storage) -> None:
    plain, layered = put_result(storage, b"plain"), put_result(storage, b"layered")
    put_beside(storage, layered)
    for name in (plain, layered):
        copy = f"{new_id()}.png"
        storage.copy_result(name, copy)
        storage.remove_result(name)
        assert has_beside(storage, copy) == (set(Beside) if name == layered else set())
        for kind in has_beside(storage, copy):
            with storage.beside(copy, kind) as path:
                assert path.read_bytes() == kind.encode()
        with storage.result(copy) as path:
            assert path.read_bytes() == (b"plain" if name == plain else b"layered")
    for bad in (plain, *BAD_RESULTS):
        with pytest.raises(NotFound):
            storage.copy_result(bad, f"{new_id()}.png")


def test_scratch_that_was_not_published_is_gone_after_its_block(storage: Storage) -> None:
    attempt_id = new_id()
    with storage.scratch(attempt_id) as one, storage.scratch(attempt_id) as two:
        assert one != two
        one.write_bytes(b"half")
        assert len(listed(storage)[2]) == 2
    assert listed(storage) == (set(), set(), set())
    with contextlib.suppress(RuntimeError), storage.scratch(attempt_id) as three:
        three.write_bytes(b"half")
        raise RuntimeError
    assert listed(storage) == (set(), set(), set())


def test_what_is_not_kept_is_not_found(storage: Storage) -> None:
    photo_id, name = new_id(), f"{new_id()}.png"
    assert not storage.has_upload(photo_id)
    assert not storage.has_result(name)
    assert not has_beside(storage, name)
    assert not storage.remove_mask(photo_id)
    assert not storage.remove_upload(photo_id)
    assert not storage.remove_result(name)
    assert not storage.remove_version(name)
    for lend, missing, code in (
        (storage.upload, photo_id, "photo_not_found"),
        (storage.result, name, "result_not_found"),
        (lambda name: storage.beside(name, Beside.FACES), name, "result_not_found"),
        (lambda name: storage.beside(name, Beside.DAMAGE), name, "result_not_found"),
        (storage.mask, photo_id, "mask_missing"),
    ):
        with pytest.raises(NotFound) as refused, lend(missing):
            pass
        assert refused.value.code == code
    for open_it, missing, code in (
        (storage.open_original, photo_id, "photo_not_found"),
        (storage.open_result, name, "result_not_found"),
    ):
        with pytest.raises(NotFound) as refused:
            open_it(missing)
        assert refused.value.code == code


@pytest.mark.parametrize("bad", BAD_IDS)
def test_only_our_own_ids_name_an_upload(storage: Storage, bad: str) -> None:
    for call in (storage.has_upload, storage.open_upload, storage.remove_upload, storage.open_original):
        with pytest.raises(NotFound):
            call(bad)
    for lend in (storage.upload, storage.scratch, storage.mask):
        with pytest.raises(NotFound), lend(bad):
            pass
    with storage.scratch(new_id()) as temporary:
        temporary.write_bytes(b"x")
        for write in (storage.remove_mask, lambda name: storage.keep_mask(temporary, name)):
            with pytest.raises(NotFound):
                write(bad)


@pytest.mark.parametrize("bad", BAD_RESULTS)
def test_only_our_own_names_name_a_result(storage: Storage, bad: str) -> None:
    with storage.scratch(new_id()) as temporary:
        temporary.write_bytes(b"x")
        for call in (
            storage.has_result,
            lambda name: storage.has_beside(name, Beside.FACES),
            lambda name: storage.publish_beside(temporary, name, Beside.DAMAGE),
            storage.remove_result,
            storage.open_result,
            lambda name: storage.publish(temporary, name),
        ):
            with pytest.raises(NotFound) as refused:
                call(bad)
            assert refused.value.code == "result_not_found"
    with pytest.raises(NotFound), storage.result(bad):
        pass


@pytest.mark.parametrize("bad", ["", "..", "a" * 31, "../" + "a" * 32, "holiday.jpg", "a" * 32 + ".exe"])
def test_only_what_the_lists_name_can_be_removed(storage: Storage, bad: str) -> None:
    with pytest.raises(NotFound):
        storage.remove_found(FoundFile(bad, 0.0))


def test_removing_a_result_takes_its_versions_and_all_beside_it_along(storage: Storage) -> None:
    attempt_id, other = new_id(), put_result(storage)
    for name in (f"{attempt_id}.jpg", f"{attempt_id}-v2.jpg", f"{attempt_id}-v3.jpg"):
        put_result(storage, name=name)
    put_beside(storage, f"{attempt_id}.jpg")
    assert has_beside(storage, f"{attempt_id}-v3.jpg") == set(Beside)
    assert storage.remove_version(f"{attempt_id}-v2.jpg")
    assert storage.has_result(f"{attempt_id}.jpg")
    assert storage.remove_result(f"{attempt_id}-v3.jpg")
    assert listed(storage)[1] == {other}


def test_an_opened_file_can_be_read_to_its_end_after_it_was_removed(storage: Storage) -> None:
    name, photo_id = put_result(storage, b"r" * 100_000), put_upload(storage, b"u" * 100_000)
    for opened, remove, kept, content in (
        (storage.open_result(name), storage.remove_result, name, b"r" * 100_000),
        (storage.open_original(photo_id), storage.remove_upload, photo_id, b"u" * 100_000),
    ):
        with opened.file as file:
            assert (opened.size, file.tell()) == (100_000, 0)
            assert opened.modified_at > 1.6e9
            assert remove(kept)
            file.seek(99_990)
            assert file.read() == content[-10:]


def test_a_run_publishes_under_a_name_of_its_own_address_and_takes_only_its_own_away(storage: Storage) -> None:
    attempt_id, first, late = new_id(), "1" * 32, "2" * 32
    names = [storage.name_of_run(f"{attempt_id}.png", run) for run in (first, late)]
    assert names == [storage.name_of_run(f"{attempt_id}.png", run) for run in (first, late)]
    assert {public_name(name) for name in names} == {f"{attempt_id}.png"}
    put_result(storage, b"first", names[0])
    put_beside(storage, names[0])
    if names[1] != names[0]:
        put_result(storage, b"late", names[1])
        put_beside(storage, names[1])
        assert storage.remove_result(names[1])
    with storage.result(names[0]) as path:
        assert path.read_bytes() == b"first"
    assert has_beside(storage, names[0]) == set(Beside)
    with pytest.raises(NotFound):
        storage.name_of_run("x.png", first)


def test_versions_between_the_first_and_the_shown_one_go(storage: Storage) -> None:
    shown = storage.name_of_run(f"{new_id()}.jpg", new_id())
    put_result(storage, name=shown)
    put_beside(storage, shown)
    names = [shown]
    for _ in range(4):
        names.append(put_result(storage, name=storage.name_of_run(next_version(names[-1]), new_id())))
        storage.remove_versions_before(names[-2])  # as is done when the next one is shown
        kept = {names[0], *names[-2:]}
        assert {name for name in names if storage.has_result(name)} == kept
    assert has_beside(storage, names[-1]) == set(Beside)
    assert storage.remove_result(names[-1])
    assert listed(storage)[1] == set()


def test_a_large_file_is_read_from_any_place_to_its_end(storage: Storage) -> None:
    content = hashlib.shake_256(b"large").digest(5_000_000)
    opened = storage.open_result(put_result(storage, content))
    with opened.file as file:
        assert opened.size == len(content)
        for place in (0, 4_999_999, 1_000_000, 3, 2_500_000):
            file.seek(place)
            assert file.read(3000) == content[place : place + 3000]
        file.seek(0)
        assert b"".join(iter(lambda: file.read(300_000), b"")) == content
        assert file.read() == b""


def test_what_is_opened_among_many_is_the_same_file(storage: Storage) -> None:
    content = hashlib.shake_256(b"many").digest(1_500_000)
    for kept in (content, content[:3000], b""):
        opened = storage.open_result(put_result(storage, kept), prefetch=False)
        with opened.file as file:
            assert (opened.size, file.tell()) == (len(kept), 0)
            assert opened.modified_at > 1.6e9
            assert b"".join(iter(lambda: file.read(262_144), b"")) == kept
    with pytest.raises(NotFound) as refused:
        storage.open_result(f"{new_id()}.png", prefetch=False)
    assert refused.value.code == "result_not_found"


def test_what_waits_for_its_readers_is_noted_where_it_has_to_wait(storage: Storage) -> None:
    assert storage.unnamed_since() == {}
    name = put_result(storage)
    for noted in ({name: 1_000_000.5, new_id(): 3.0}, {name: 7.0}, {}):
        storage.note_unnamed(noted)
        assert storage.unnamed_since() == (noted if storage.grace_seconds() > 0 else {})
    assert listed(storage) == (set(), {name}, set())


def test_an_empty_file_is_no_error(storage: Storage) -> None:
    with storage.open_original(put_upload(storage, b"")).file as file:
        assert file.read() == b""


def test_nothing_is_handed_to_others_unless_it_was_set(storage: Storage) -> None:
    name = put_result(storage)
    assert storage.address(name, "image/png", "inline") is None
    assert storage.address_origin() is None
    with storage.share(b"jpeg") as address:
        assert address is None
    assert storage.problem() is None
    assert listed(storage) == (set(), {name}, set())


def test_an_upload_heals_one_of_the_same_bytes_whose_file_is_gone(storage: Storage) -> None:
    lost, again = put_upload(storage), put_upload(storage)
    storage.remove_upload(lost)
    storage.replace_upload(lost, by=again)
    assert storage.has_upload(lost)
    assert not storage.has_upload(again)


def test_what_is_listed_can_be_removed(storage: Storage) -> None:
    name = put_result(storage)
    put_upload(storage)
    put_beside(storage, name)
    put_mask(storage)
    writer = storage.open_upload(new_id())
    writer.write(b"part")
    with storage.scratch(new_id()) as temporary:
        temporary.write_bytes(b"part")
        kept = (storage.iter_uploads(), storage.iter_masks(), storage.iter_results(), storage.iter_parts())
        found = [file for files in kept for file in files]
        assert len(found) == 7
        assert all(file.modified_at > 1.6e9 for file in found)
        parts = {file.name for file in storage.iter_parts()}
        assert len(parts) == 2
        removed = {file.name for file in found if storage.remove_found(file)}
        assert removed == {file.name for file in found} - parts  # those have writers
        assert not any(storage.remove_found(file) for file in found)
    writer.abort()
    assert listed(storage) == (set(), set(), set())


def test_many_threads_may_use_it_at_once(storage: Storage) -> None:
    def work() -> None:
        for _ in range(10):
            photo_id, name = put_upload(storage), put_result(storage)
            with storage.upload(photo_id) as path:
                assert path.read_bytes() == b"photo"
            assert storage.remove_result(name)
            done.append(photo_id)

    done: list[str] = []
    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert listed(storage)[0] == set(done)
    assert len(done) == 80


def test_a_mask_is_kept_under_its_attempt_and_apart_from_uploads_and_results(storage: Storage) -> None:
    attempt_id = put_mask(storage, b"bits")
    put_upload(storage)
    with storage.mask(attempt_id) as path:
        assert path.read_bytes() == b"bits"
    assert [file.name for file in storage.iter_masks()] == [f"{attempt_id}.mask"]
    assert attempt_id not in " ".join(listed(storage)[0] | listed(storage)[1])
    assert storage.remove_mask(attempt_id)
    assert not storage.remove_mask(attempt_id)
    assert not list(storage.iter_masks())


def test_free_disk_is_a_plain_answer(storage: Storage) -> None:
    assert storage.free_disk_ok()
