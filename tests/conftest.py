"""Fixtures that several test files share: the folders of real weights and photos, and seeded stand-ins.

`NIR_TEST_WEIGHTS` and `NIR_TEST_PHOTOS` name folders with real files; without them those tests skip with a notice.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from app.images import Decoder
    from tests.browser import Service
    from tests.provider_stand_in import StandIn
    from tests.s3_servers import S3Server


@pytest.fixture(scope="module", autouse=True)
def no_workers_left() -> Iterator[None]:
    """A worker that outlives its tests would be counted by those of the next module."""
    before = set(threading.enumerate())
    yield
    left = [one for one in threading.enumerate() if one not in before and one.name.startswith("worker-")]
    for thread in left:
        thread.join(10.0)
    left = [thread for thread in left if thread.is_alive()]
    assert not left, f"threads of a worker that nobody stopped: {left}"


@pytest.fixture(autouse=True)
def same_folder_afterwards() -> Iterator[None]:
    """A command that is run within a test changes to its project's folder, where later tests would find no module."""
    before = Path.cwd()
    yield
    os.chdir(before)


def _folder(variable: str, holds: str) -> Path:
    value = os.environ.get(variable, "")
    if not value or not Path(value).is_dir():
        pytest.skip(f"{variable} names no folder with {holds}; this test needs real files")
    return Path(value)


@pytest.fixture(scope="session")
def real_weights() -> Path:
    """Folder with realesr-general-x4v3.pth and realesr-animevideov3.pth."""
    return _folder("NIR_TEST_WEIGHTS", "weight files")


@pytest.fixture(scope="session")
def real_photos() -> Path:
    """Folder with the sample photos of the Real-ESRGAN and GFPGAN repositories."""
    return _folder("NIR_TEST_PHOTOS", "photos")


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    """A decoding child process with the usual limits."""
    from app.images import Decoder, ImageLimits

    shared = Decoder(ImageLimits())
    shared.start()
    yield shared
    shared.close()


@pytest.fixture(scope="module")
def fast_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a seeded random file of the fast model."""
    from benchmarks.random_weights import put_weights
    from tests.command_line import MODEL

    folder = tmp_path_factory.mktemp("fast_weights")
    put_weights(folder, None, (MODEL,))
    return folder


@pytest.fixture
def project(tmp_path: Path, fast_weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder of its own: no `.env` of the developer, weights that restore quickly."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WEIGHTS_FOLDER", str(fast_weights))
    monkeypatch.setenv("ALLOW_UNVERIFIED_WEIGHTS", "true")
    monkeypatch.setenv("DEVICE", "cpu")
    monkeypatch.setenv("PRECISION", "fp32")
    return tmp_path


@pytest.fixture
def provider() -> Iterator[StandIn]:
    """A provider's API and store of pictures, played on loopback."""
    from tests.provider_stand_in import stand_in

    with stand_in() as playing:
        yield playing


@pytest.fixture(scope="session")
def s3_credentials() -> Iterator[None]:
    """The key of the S3 servers of the tests, where the AWS chain finds it."""
    from tests.s3_servers import CREDENTIALS

    with pytest.MonkeyPatch.context() as patch:
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="session")
def seaweedfs(s3_credentials: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """SeaweedFS with the bucket of the tests, shared by all of them; each works below a prefix of its own."""
    from tests.s3_servers import SeaweedFS, running

    with running(SeaweedFS, tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


@pytest.fixture(scope="session")
def swift(s3_credentials: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """The same with OpenStack Swift."""
    from tests.s3_servers import Swift, running

    with running(Swift, tmp_path_factory.mktemp("swift")) as server:
        yield server


@pytest.fixture(scope="session")
def restoring(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One real service with a real network for all browser tests; see `tests.browser`."""
    from tests.browser import chromium, restoring_service

    chromium()
    with restoring_service(tmp_path_factory.mktemp("restoring") / "service") as running:
        yield running


@pytest.fixture
def service(restoring: Service) -> Service:
    """The same service with no jobs of an earlier test."""
    from tests.browser import forget_jobs

    forget_jobs(restoring)
    return restoring


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium without a window."""
    from tests.browser import browser as started

    with started() as running:
        yield running


@pytest.fixture(scope="session")
def random_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with seeded random files in the shape of every upscaling model, under the official names."""
    from benchmarks.random_weights import MODELS, put_weights

    folder = tmp_path_factory.mktemp("random_weights")
    put_weights(folder, None, MODELS)
    return folder
