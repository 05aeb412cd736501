"""The shelf of models: what is installed, what is refused, what loads."""

from __future__ import annotations

import dataclasses
import errno
import io
import math
import os
import pickle
import shutil
import warnings
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from app.errors import Conflict, OutOfMemory, Unavailable, Unprocessable
from app.options import RestoreOptions
from app.restoration.models import networks, spandrel_loading, weights
from app.restoration.models import registry as registry_module
from app.restoration.models.registry import ModelRegistry
from app.restoration.models.table import EMBEDDED_MODEL
from app.restoration.models.tensor_files import convert
from app.restoration.setup import Setup
from benchmarks.random_weights import random_state
from tests.weights_mirror import let_official


def shelf_of(folder: Path) -> ModelRegistry:
    return ModelRegistry(folder, allow_unverified=True)


@pytest.mark.parametrize(
    ("name", "scale", "context", "multiple"),
    [
        ("RealESRGAN_x4plus", 4, 16, 1),
        ("RealESRGAN_x2plus", 2, 32, 2),
        ("RealESRGAN_x4plus_anime_6B", 4, 16, 1),
        ("realesr-general-x4v3", 4, 34, 1),
        ("realesr-animevideov3", 4, 18, 1),
    ],
)
def test_facts_are_read_from_the_file(name: str, scale: int, context: int, multiple: int, random_weights: Path) -> None:
    registry = shelf_of(random_weights)
    network = registry.load(registry.find(name), None, "cpu", "fp32")
    facts = network.facts
    assert (facts.scale, facts.context, facts.multiple) == (scale, context, multiple)
    assert network(torch.rand(1, 3, 24, 20)).shape == (1, 3, 24 * scale, 20 * scale)


def test_the_work_of_x4plus_is_the_published_18_million_multiply_adds(random_weights: Path) -> None:
    registry = shelf_of(random_weights)
    work = registry.load(registry.find("RealESRGAN_x4plus"), None, "cpu", "fp32").facts.work
    assert 17.5 < work < 19.0


@pytest.mark.parametrize("words", ["CUDA out of memory", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"])
def test_out_of_memory_at_load_makes_room_then_is_named_and_no_file_is_blamed(
    words: str, random_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, released = shelf_of(random_weights), list[str]()
    registry.on_release(lambda: released.append("faces"))
    row = registry.find("realesr-animevideov3")
    other = registry.load(registry.find("realesr-general-x4v3"), None, "cpu", "fp32")
    errors = [RuntimeError(words)]
    build = networks.build

    def tight(*arguments: Any) -> Any:
        if errors:
            raise errors.pop()
        return build(*arguments)

    assert registry.installed(row.name)  # it was opened and ran before
    monkeypatch.setattr(registry_module, "build", tight)
    assert registry.load(row, None, "cpu", "fp32").name == row.name
    assert released == ["faces"]
    assert registry.load(registry.find("realesr-general-x4v3"), None, "cpu", "fp32") is not other
    registry.release()
    errors += [RuntimeError(words)] * 2
    with pytest.raises(OutOfMemory) as refused:
        registry.load(row, None, "cpu", "fp32")
    assert refused.value.code == "out_of_memory"


def test_out_of_memory_while_a_file_is_read_does_not_call_it_unreadable(
    random_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> Any:
        raise MemoryError

    registry = shelf_of(random_weights)
    row = registry.find("realesr-animevideov3")
    monkeypatch.setattr(registry_module, "read_tensors", full)
    with pytest.raises(OutOfMemory):
        registry.load(row, None, "cpu", "fp32")
    monkeypatch.undo()
    monkeypatch.setattr(spandrel_loading.import_spandrel().ModelLoader, "load_from_state_dict", full)
    with pytest.raises(OutOfMemory):
        registry.load(row, None, "cpu", "fp32")


def test_a_file_dropped_into_the_folder_is_a_model(tmp_path: Path) -> None:
    torch.save({"params": random_state("realesr-animevideov3", 5)}, tmp_path / "my-own_x4.pth")
    (tmp_path / "notes.txt").write_text("no model")
    registry = ModelRegistry(tmp_path, allow_unverified=False)
    assert registry.rows()[-1].name == "my-own_x4"
    assert registry.installed("my-own_x4")
    assert registry.load(registry.find("my-own_x4"), None, "cpu", "fp32").facts.architecture == "compact"


def test_a_safetensors_file_is_a_model(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file(random_state("realesr-animevideov3", 5), tmp_path / "safe.safetensors")
    registry = ModelRegistry(tmp_path, allow_unverified=False)
    assert registry.load(registry.find("safe"), None, "cpu", "bf16").facts.scale == 4


@pytest.mark.parametrize("ending", [".pt", ".safetensors", ".pth"])
def test_a_file_with_an_official_name_and_another_ending_is_no_second_model(ending: str, tmp_path: Path) -> None:
    for file in ("realesr-general-x4v3.pth", "GFPGANv1.3.pth", EMBEDDED_MODEL, weights.REPAIR_FILES[0]):
        (tmp_path / file).with_suffix(ending).write_bytes(b"x")
    names = [row.name for row in shelf_of(tmp_path).rows()]
    assert len(names) == len(set(names))
    assert not {"GFPGANv1.3", Path(weights.REPAIR_FILES[0]).stem} & set(names)


def test_of_two_files_of_one_name_the_one_that_loads_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for ending in (".pt", ".pth", ".safetensors"):
        (tmp_path / f"own{ending}").write_bytes(b"x")
    registry = shelf_of(tmp_path)
    assert registry.find("own").file == "own.pt"  # none loads, and the first says why
    monkeypatch.setattr(ModelRegistry, "load_error", lambda _, file: None if file == "own.pth" else "No network.")
    assert registry.installed("own")
    assert registry.find("own").file == "own.pth"


def test_face_files_are_no_upscaling_models(tmp_path: Path) -> None:
    (tmp_path / "GFPGANv1.3.pth").write_bytes(b"x")
    assert "GFPGANv1.3" not in [row.name for row in shelf_of(tmp_path).rows()]


def test_an_unknown_name_lists_the_known_ones(random_weights: Path) -> None:
    with pytest.raises(Unprocessable, match="realesr-general-x4v3"):
        shelf_of(random_weights).find("nonsense")


def test_a_missing_file_says_how_to_get_it(tmp_path: Path) -> None:
    registry = shelf_of(tmp_path)
    with pytest.raises(Conflict, match=r"run\.py models download"):
        registry.load(registry.find("RealESRGAN_x4plus"), None, "cpu", "fp32")


def test_an_official_name_with_foreign_bytes_is_not_loaded(random_weights: Path) -> None:
    registry = ModelRegistry(random_weights, allow_unverified=False)
    assert not registry.installed("RealESRGAN_x4plus")
    with pytest.raises(Conflict, match="is not whole"):
        registry.load(registry.find("RealESRGAN_x4plus"), None, "cpu", "fp32")


class Bomb:
    """Pickles to a call of os.mkdir."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        import os

        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("suffix", [".pth", ".pt"])
def test_a_pickle_that_runs_code_is_refused_and_runs_nothing(suffix: str, tmp_path: Path) -> None:
    target = tmp_path / "made_by_the_pickle"
    torch.save({"params": Bomb(target)}, tmp_path / f"evil{suffix}")
    (tmp_path / f"raw{suffix}").write_bytes(pickle.dumps(Bomb(target)))
    registry = shelf_of(tmp_path)
    for name in ("evil", "raw"):
        with pytest.raises(Unavailable) as caught:
            registry.load(registry.find(name), None, "cpu", "fp32")
        assert caught.value.code == "weights_unreadable"
    assert not target.exists()


class Program(torch.nn.Module):
    """TorchScript that says so when it runs, which it does while it is loaded."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x

    @torch.jit.export
    def __getstate__(self) -> bool:
        return self.training

    @torch.jit.export
    def __setstate__(self, state: bool) -> None:
        self.training = state
        raise RuntimeError("the program ran")


def torchscript(path: Path, rename: Callable[[str], str] = str, beside: Sequence[str] = ()) -> Path:
    """A TorchScript archive of `Program` whose members are renamed, with more members beside them."""
    plain = path.with_name("plain")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch would rather have nobody make them
        jit: Any = torch.jit
        jit.script(Program()).save(plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(path, "w") as target:
        for member in source.infolist():
            target.writestr(rename(member.filename), source.read(member))
        for name in beside:
            target.writestr(name, b"")
    plain.unlink()
    return path


DISGUISES: dict[str, Callable[[Path], Path]] = {
    "as it is written": torchscript,
    "names in capitals": lambda path: torchscript(
        path, lambda name: name.replace("constants.pkl", "CONSTANTS.PKL").replace("/code/", "/CODE/")
    ),
    "a member outside of its folder": lambda path: torchscript(path, beside=["stray"]),
}


@pytest.mark.parametrize("disguise", DISGUISES)
@pytest.mark.parametrize("suffix", [".pth", ".pt"])
def test_a_torchscript_archive_is_refused_by_name_before_it_is_loaded(
    suffix: str, disguise: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = DISGUISES[disguise](tmp_path / f"evil{suffix}")
    jit: Any = torch.jit
    monkeypatch.setattr(warnings, "warn", lambda *_, **__: None)  # torch would rather have nobody load them
    with pytest.raises(jit.Error, match="the program ran"):
        jit.load(path)
    loaded: list[object] = []
    monkeypatch.setattr(torch.jit, "load", loaded.append)
    registry = shelf_of(tmp_path)
    with pytest.raises(Unavailable, match="TorchScript") as caught:
        registry.load(registry.find("evil"), None, "cpu", "fp32")
    assert caught.value.code == "weights_unreadable"
    assert not loaded


def test_a_file_of_tensors_may_be_called_code(random_weights: Path, tmp_path: Path) -> None:
    shutil.copy(random_weights / "realesr-animevideov3.pth", tmp_path / "original.pth")
    torch.save(torch.load(tmp_path / "original.pth", weights_only=True), tmp_path / "code.pth")
    registry = shelf_of(tmp_path)
    assert registry.load(registry.find("code"), None, "cpu", "fp32").facts.architecture == "compact"


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04broken"])
def test_a_broken_file_is_a_named_error(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "broken.pth").write_bytes(content)
    registry = shelf_of(tmp_path)
    with pytest.raises(Unavailable) as caught:
        registry.load(registry.find("broken"), None, "cpu", "fp32")
    assert caught.value.code == "weights_unreadable"


def test_a_network_of_another_family_is_refused(tmp_path: Path) -> None:
    state = {"weird.weight": torch.zeros(3, 3)}
    torch.save(state, tmp_path / "weird.pth")
    registry = shelf_of(tmp_path)
    with pytest.raises(Unavailable) as caught:
        registry.load(registry.find("weird"), None, "cpu", "fp32")
    assert caught.value.code == "weights_unreadable"


def test_a_replaced_file_is_looked_at_again(tmp_path: Path, random_weights: Path) -> None:
    registry = ModelRegistry(tmp_path, allow_unverified=True)
    name = "realesr-animevideov3"
    assert not registry.installed(name)
    shutil.copy(random_weights / f"{name}.pth", tmp_path)
    assert registry.installed(name)


def broken_states() -> dict[str, bytes]:
    """Files that no network of ours can be made of, or that compute nothing."""
    state = random_state("realesr-animevideov3", 5)
    poisoned = {name: torch.full_like(tensor, math.nan) for name, tensor in state.items()}
    short = dict(list(state.items())[:-1])
    found = {"garbage": b"no weights", "empty": b""}
    for name, content in {"nan": poisoned, "short": short, "number": {"a": 5}}.items():
        buffer = io.BytesIO()
        torch.save(content, buffer)
        found[name] = buffer.getvalue()
    return found


@pytest.mark.parametrize("kind", broken_states())
def test_a_file_that_cannot_run_is_not_installed_and_never_outranks_a_good_one(kind: str, tmp_path: Path) -> None:
    (tmp_path / "aaa.pth").write_bytes(broken_states()[kind])
    setup = Setup(tmp_path, device="cpu", precision="fp32")
    assert not setup.registry.installed("aaa")
    row, notices = setup.choose(RestoreOptions())
    assert row.name == EMBEDDED_MODEL
    assert [notice.code for notice in notices] == ["embedded_model"]
    setup.registry.load(row, None, "cpu", "fp32")
    with pytest.raises(Unavailable) as caught:
        setup.registry.load(setup.registry.find("aaa"), None, "cpu", "fp32")
    assert caught.value.code == "weights_unreadable"
    assert "aaa.pth" in str(setup.registry.describe_file("aaa.pth")["note"])


def test_a_file_is_opened_once_and_remembered_by_its_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    probed = list[str]()
    probe = registry_module.probe

    def counted(path: Path) -> Any:
        probed.append(path.name)
        return probe(path)

    monkeypatch.setattr(registry_module, "probe", counted)
    torch.save({"params": random_state("realesr-animevideov3", 5)}, tmp_path / "own.pth")
    registry = ModelRegistry(tmp_path, allow_unverified=False)
    for moment in (1e9, 2e9):
        os.utime(tmp_path / "own.pth", (moment, moment))
        assert registry.installed("own")
    assert probed == ["own.pth"]


def test_a_file_replaced_by_another_of_its_size_and_age_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "own.pth"
    torch.save({"params": random_state("realesr-animevideov3", 5)}, path)
    registry = ModelRegistry(tmp_path, allow_unverified=False)
    assert registry.installed("own")
    before = path.stat()
    path.write_bytes(bytes(before.st_size))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert not registry.installed("own")


def test_a_lack_of_memory_says_nothing_about_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"params": random_state("realesr-animevideov3", 5)}, tmp_path / "own.pth")
    registry = ModelRegistry(tmp_path, allow_unverified=False)

    def lacking(_: Path) -> Any:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(registry_module, "read_tensors", lacking)
        assert not registry.installed("own")
    assert registry.installed("own")


@pytest.fixture
def official(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an "official" file, whose hash the manifest knows."""
    path = tmp_path / "realesr-animevideov3.pth"
    torch.save({"params": random_state("realesr-animevideov3", 5)}, path)
    row = dataclasses.replace(weights.official(path.name), bytes=path.stat().st_size, sha256=weights.sha256(path))  # type: ignore[type-var]
    let_official(monkeypatch, row)  # type: ignore[arg-type]
    return path


def test_a_conversion_takes_the_place_of_the_official_file(official: Path) -> None:
    name = official.stem
    plain = ModelRegistry(official.parent, allow_unverified=False).read(official.name)
    converted = convert(official)
    official.unlink()
    registry = ModelRegistry(official.parent, allow_unverified=False)
    assert registry.path(official.name) == converted
    assert [row.name for row in registry.rows()].count(name) == 1
    assert registry.installed(name)
    read = registry.read(official.name)
    assert read.keys() == plain.keys()
    assert all(torch.equal(read[key], plain[key]) for key in plain)
    assert registry.load(registry.find(name), None, "cpu", "fp32").facts.scale == 4


@pytest.mark.parametrize("harm", ["one bit", "cut", "another source", "nothing in it"])
def test_a_conversion_that_is_not_whole_is_passed_over(official: Path, harm: str) -> None:
    converted = convert(official)
    content = bytearray(converted.read_bytes())
    if harm == "one bit":
        content[-1] ^= 1
    elif harm == "another source":
        content = content.replace(weights.sha256(official).encode(), b"0" * 64)
    converted.write_bytes({"cut": bytes(content[:-100]), "nothing in it": b""}.get(harm, bytes(content)))
    registry = ModelRegistry(official.parent, allow_unverified=False)
    assert registry.path(official.name) == official
    assert registry.installed(official.stem)


@pytest.mark.parametrize("name", ["TorchScript", "pickle"])
def test_a_file_that_would_run_code_is_not_converted(name: str, tmp_path: Path) -> None:
    target = tmp_path / "made_by_the_pickle"
    if name == "pickle":
        (tmp_path / "evil.pt").write_bytes(pickle.dumps(Bomb(target)))
    else:
        torchscript(tmp_path / "evil.pt")
    with pytest.raises(Exception):  # noqa: B017, PT011 - torch's own, whatever it is
        convert(tmp_path / "evil.pt")
    assert not target.exists()
    assert not (tmp_path / "evil.safetensors").exists()


def test_networks_are_loaded_once_and_only_the_last_few_are_kept(random_weights: Path) -> None:
    registry = shelf_of(random_weights)
    row = registry.find("realesr-general-x4v3")
    first = registry.load(row, 0.5, "cpu", "fp32")
    assert registry.load(row, 0.5, "cpu", "fp32") is first
    for share in (0.1, 0.2, 0.3, 0.4):
        registry.load(row, share, "cpu", "fp32")
    assert registry.load(row, 0.5, "cpu", "fp32") is not first


def test_a_network_whose_file_was_replaced_is_loaded_anew(tmp_path: Path) -> None:
    path, x = tmp_path / "own.pth", torch.rand(1, 3, 8, 8)
    registry = shelf_of(tmp_path)
    torch.save({"params": random_state("realesr-animevideov3", 5)}, path)
    row = registry.find("own")
    first = registry.load(row, None, "cpu", "fp32")
    assert registry.load(row, None, "cpu", "fp32") is first
    torch.save({"params": random_state("realesr-animevideov3", 6)}, path)
    second = registry.load(row, None, "cpu", "fp32")
    assert not torch.equal(first(x), second(x))
    assert len(registry.loaded()) == 1, "the network of the file before is kept"
