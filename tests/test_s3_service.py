"""The whole service on an S3 server: files go in and out as from the folders, and an outage is told as one.

SeaweedFS is the server; the provider of the cloud backend is the stand-in on loopback.
"""

from __future__ import annotations

import io
import json
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from PIL import Image
from starlette.testclient import TestClient

from app.api.dashboard import PAGE_POLICY, page_policy
from app.commands.doctor_machine import BAD, FINE, check_storage
from app.images import Decoder
from app.main import create_app, create_dashboard
from app.outbound.addresses import is_public_origin
from app.settings import Settings
from tests.face_backend import FaceBackend
from tests.harness import until
from tests.http_service import BASE_URL, Service, assert_problem, photo, running, settings_for
from tests.provider_stand_in import StandIn, Wire
from tests.s3_servers import BUCKET, S3Server, SeaweedFS, open_storage
from tests.s3_servers import running as started

PUBLIC = "https://photos.archive-of-smith.com"


def s3_settings(server: S3Server, folder: Path, **changes: Any) -> dict[str, Any]:
    """Settings for a bucket of the server, below a prefix that only this folder has."""
    prefix = "".join(character for character in str(folder) if character.isalnum())
    named = {"storage_url": f"s3://{BUCKET}/{prefix}", "s3_endpoint_url": server.url, "s3_addressing_style": "path"}
    return {**named, **changes}


@pytest.fixture
def service(seaweedfs: S3Server, tmp_path: Path) -> Iterator[Service]:
    with running(tmp_path, backend=FaceBackend(), **s3_settings(seaweedfs, tmp_path)) as found:
        yield found


def test_a_kept_job_stays_in_the_bucket_until_it_is_let_go(
    service: Service, seaweedfs: S3Server, tmp_path: Path
) -> None:
    job_id = service.submit()
    finished = service.finish(job_id)
    keep, after = f"/api/v1/jobs/{job_id}/keep", finished["expires_at"] + 1_000_000
    assert service.client.post(keep).json()["kept"]
    before = keys(seaweedfs, tmp_path)
    assert len(before) == 3, "the upload, the result and the layers of its faces"
    assert service.context.janitor.sweep(after).jobs == 0
    assert keys(seaweedfs, tmp_path) == before
    assert service.client.get(finished["results"][0]["url"]).status_code == 200
    service.client.delete(keep)
    janitor, later = service.context.janitor, after + service.context.storage.grace_seconds()
    assert janitor.sweep(after).jobs == 1
    assert keys(seaweedfs, tmp_path) == sorted([*before, "janitor/unnamed.json"]), "somebody may be reading"
    assert service.client.get(finished["results"][0]["url"]).status_code == 404
    assert [janitor.sweep(later).orphans for _ in range(2)] == [3, 0]
    assert keys(seaweedfs, tmp_path) == []


def keys(server: S3Server, folder: Path) -> list[str]:
    """What stands in the bucket below the folder's prefix."""
    prefix = s3_settings(server, folder)["storage_url"].rpartition("/")[2]
    found = server.client().list_objects_v2(Bucket=BUCKET, Prefix=f"{prefix}/").get("Contents", ())
    return sorted(row["Key"].removeprefix(f"{prefix}/") for row in found)


def local_files(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file() and "jobs.sqlite3" not in path.name]


def test_a_result_comes_with_ranges_validators_and_its_name_as_from_a_folder(service: Service, tmp_path: Path) -> None:
    with running(tmp_path / "disk", backend=FaceBackend()) as disk:
        answers = []
        for one in (service, disk):
            job_id = one.submit(name="Oma Käthe.png", output_format="png")
            one.finish(job_id)
            url = one.client.get(f"/status/{job_id}").json()["results"][0]["url"]
            client = one.client
            whole = client.get(url)
            assert whole.status_code == 200, whole.text
            etag = whole.headers["etag"]
            parts = [
                client.get(url, headers={"Range": "bytes=10-19"}),
                client.get(url, headers={"Range": "bytes=-7"}),
                client.get(url, headers={"Range": "bytes=5-", "If-Range": etag}),
                client.get(url, headers={"Range": "bytes=999999999-"}),
                client.get(url, headers={"If-None-Match": etag}),
                client.head(url),
                client.get(f"/api/v1/jobs/{job_id}/result"),
                client.get(f"/api/v1/jobs/{job_id}/original"),
                client.get(f"/api/v1/jobs/{job_id}/preview"),
                client.get(f"/api/v1/jobs/{job_id}/original?preview=true"),
                client.get(f"/api/v1/batch/{job_id}/results"),
            ]
            own = "content-length content-type content-range content-disposition accept-ranges content-security-policy"
            told = [{name: answer.headers.get(name) for name in own.split()} for answer in (whole, *parts)]
            answers.append(([answer.status_code for answer in (whole, *parts)], told))
            bodies = [answer.content for answer in (whole, *parts[:3])]
            assert bodies[1:] == [bodies[0][10:20], bodies[0][-7:], bodies[0][5:]]
            assert parts[6].content == bodies[0]
    (statuses, headers), (disk_statuses, disk_headers) = answers
    assert statuses == disk_statuses == [200, 206, 206, 206, 416, 304, 200, 200, 200, 200, 200, 200]
    job_ids = [row["content-disposition"] for row in (headers[-1], disk_headers[-1])]
    assert all("restored_" in str(name) for name in job_ids)
    headers[-1].pop("content-disposition"), disk_headers[-1].pop("content-disposition")
    assert headers == disk_headers


def test_a_batch_becomes_a_zip_and_everything_goes_with_its_job(
    service: Service, seaweedfs: S3Server, tmp_path: Path
) -> None:
    files = [("files", (f"{number}.png", photo(40 + number), "image/png")) for number in range(3)]
    job_id = service.client.post("/api/v1/enhance/batch", files=files).json()["batch_id"]
    service.finish(job_id)
    archive = service.client.get(f"/api/v1/batch/{job_id}/results")
    with zipfile.ZipFile(io.BytesIO(archive.content)) as opened:
        assert opened.testzip() is None
        assert len(opened.namelist()) == 3
        for name in opened.namelist():
            Image.open(opened.open(name), formats=("PNG", "JPEG")).load()
    kept = keys(seaweedfs, tmp_path)
    assert sorted({key.partition("/")[0] for key in kept}) == ["results", "uploads"]
    assert local_files(tmp_path) == []
    assert service.client.delete(f"/api/v1/jobs/{job_id}").status_code in (200, 204)
    until(lambda: keys(seaweedfs, tmp_path) == [])


def test_faces_are_blended_again_from_the_bucket_and_older_versions_go(
    service: Service, seaweedfs: S3Server, tmp_path: Path
) -> None:
    job_id = service.submit(output_format="png")
    service.finish(job_id)
    faces = f"/api/v1/jobs/{job_id}/faces"
    shown = [service.client.get(f"/api/v1/jobs/{job_id}/result").content]
    for strength in (0.0, 0.5, 0.0):
        answer = service.client.post(faces, json={"0": strength})
        assert answer.status_code == 200, answer.text
        shown.append(service.client.get(answer.json()["url"]).content)
    assert shown[1] == shown[3] != shown[2]
    (row,) = service.client.get(faces).json()["attempts"]
    assert (row["version"], row["url"]) == (4, f"/processed/{row['attempt_id']}-v4.png")
    assert service.client.get(row["faces"][0]["before_url"]).status_code == 200
    names = [key for key in keys(seaweedfs, tmp_path) if key.startswith("results/")]
    versions = sorted(name.partition("-v")[2].partition(".")[0] for name in names if name.endswith(".png"))
    assert versions == ["", "3", "4"]


def test_a_photo_of_the_library_heals_and_equal_bytes_are_one_object(
    service: Service, seaweedfs: S3Server, tmp_path: Path
) -> None:
    data = photo()
    ids = [service.client.post("/api/v1/photos", files={"file": ("a.png", data)}).json()["id"] for _ in range(2)]
    assert ids[0] == ids[1]
    assert keys(seaweedfs, tmp_path) == [f"uploads/{ids[0]}"]
    assert service.context.storage.remove_upload(ids[0])
    service.client.post("/api/v1/photos", files={"file": ("c.png", data)})
    assert keys(seaweedfs, tmp_path) == [f"uploads/{ids[0]}"]


def fetch(address: str, server: S3Server) -> bytes:
    """GET a signed address at the real server: only the connection is bent to loopback, as a proxy would do."""
    parts = urlsplit(address)
    asked = urllib.request.Request(f"{server.url}{parts.path}?{parts.query}", headers={"Host": parts.netloc})
    with urllib.request.urlopen(asked, timeout=10) as answer:
        body: bytes = answer.read()
        return body


def test_a_redirect_leads_to_the_file_and_only_a_get_is_redirected(seaweedfs: S3Server, tmp_path: Path) -> None:
    wanted = s3_settings(seaweedfs, tmp_path, result_delivery="redirect", s3_public_endpoint_url=PUBLIC)
    with running(tmp_path, **wanted) as service:
        job_id = service.submit(output_format="png")
        service.finish(job_id)
        url = service.client.get(f"/status/{job_id}").json()["results"][0]["url"]
        for address in (url, f"/api/v1/jobs/{job_id}/result"):
            answer = service.client.get(address, follow_redirects=False)
            assert answer.status_code == 302
            assert answer.headers["cache-control"] == "no-store"
            assert answer.headers["location"].startswith(f"{PUBLIC}/{BUCKET}/")
            body = fetch(answer.headers["location"], seaweedfs)
            assert Image.open(io.BytesIO(body), formats=("PNG",)).size == (160, 120)
            head = service.client.head(address, follow_redirects=False)
            assert (head.status_code, head.headers["content-length"]) == (200, str(len(body)))
            seen = service.client.get(address, headers={"If-None-Match": head.headers["etag"]}, follow_redirects=False)
            assert seen.status_code == 304
        original = service.client.get(f"/api/v1/jobs/{job_id}/original", follow_redirects=False)
        assert original.status_code == 200
        preview = service.client.get(f"/api/v1/jobs/{job_id}/preview", follow_redirects=False)
        assert preview.status_code == 200
        page = TestClient(create_dashboard(service.app), base_url=BASE_URL).get("/")
        assert page.headers["content-security-policy"] == page_policy(PUBLIC)
        for file in list(service.context.storage.iter_results()):
            service.context.storage.remove_found(file)
        assert_problem(service.client.get(url, follow_redirects=False), 404, "result_not_found")


def test_only_a_page_whose_results_come_from_elsewhere_may_show_them() -> None:
    assert page_policy(None) == PAGE_POLICY
    assert f"img-src 'self' blob: {PUBLIC};" in page_policy(PUBLIC)
    assert page_policy(PUBLIC).replace(f" {PUBLIC}", "") == PAGE_POLICY


def test_an_outage_is_told_as_one_and_nothing_is_left_or_lost(s3_credentials: None, tmp_path: Path) -> None:
    own = tmp_path / "server"
    own.mkdir()
    with started(SeaweedFS, own) as server:
        folder = tmp_path / "service"
        with running(folder, **s3_settings(server, folder)) as service:
            client, done = service.client, service.submit()
            service.finish(done)
            server.kill()
            refused = client.post("/api/v1/enhance", files={"file": ("cat.png", photo())})
            assert_problem(refused, 503, "storage_unavailable")
            assert int(refused.headers["retry-after"]) > 0
            assert_problem(client.get(f"/api/v1/jobs/{done}/result"), 503, "storage_unavailable")
            assert_problem(client.get(f"/api/v1/jobs/{done}/preview"), 503, "storage_unavailable")
            health = client.get("/api/v1/health").json()
            assert health["status"] == "degraded"
            assert any("keeps the photos" in reason for reason in health["reasons"])
            assert [job["job_id"] for job in client.get("/api/v1/jobs").json()["jobs"]] == [done]
            assert local_files(folder) == []
            server.start()
            server.wait_until_it_takes()
            assert client.get(f"/api/v1/jobs/{done}/result").status_code == 200
            assert client.get("/api/v1/health").json()["status"] == "ready"
            service.finish(service.submit())


# What a provider is given.


@pytest.mark.parametrize(
    "origin", ["https://s3.example.org", PUBLIC, "https://a.b.cloud:9000", "https://93.184.215.14"]
)
def test_public_origins(origin: str) -> None:
    assert is_public_origin(origin)


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "http://s3.example.org",
        "https://localhost",
        "https://seaweedfs",
        "https://seaweedfs:8333",
        "https://minio.internal",
        "https://nas.local",
        "https://10.0.0.7",
        "https://127.0.0.1:9000",
        "https://169.254.169.254",
        "https://192.168.1.4",
        "https://[::1]",
        "https://[fd00::1]:9000",
        "https://2130706433",
        "https://0x7f.1",
        "https://user@s3.example.org@10.0.0.7",
    ],
)
def test_origins_that_no_provider_should_be_sent_to(origin: str) -> None:
    assert not is_public_origin(origin)


def test_a_provider_is_given_an_address_that_works_while_it_is_asked_and_not_after(
    provider: StandIn, decoder: Decoder, seaweedfs: S3Server, tmp_path: Path
) -> None:
    storage = open_storage(seaweedfs, tmp_path, reachable_by_all=True, public_endpoint_url=PUBLIC)
    given: list[str] = []

    def paint(wire: Wire) -> None:
        given.append(wire.heard.fields["image"])
        picture = Image.open(io.BytesIO(fetch(given[-1], seaweedfs)), formats=("JPEG",))
        assert "exif" not in picture.info
        wire.json(200, provider.made(picture))

    provider.api = paint
    cloud = provider.backend(decoder.decode, share=storage.share)
    with running(tmp_path, others={"siliconflow": cloud}, **s3_settings(seaweedfs, tmp_path)) as service:
        job_id = service.submit(backend="siliconflow", scale="1")
        assert service.finish(job_id)["status"] == "completed"
    assert given[0].startswith(f"{PUBLIC}/{BUCKET}/")
    with pytest.raises(urllib.error.HTTPError, match="404"):
        fetch(given[0], seaweedfs)
    (asked,) = provider.asked("api")
    assert len(asked.body) < 3000  # no photo in it


def test_a_bucket_that_is_not_public_or_not_there_means_that_the_photo_itself_is_sent(
    provider: StandIn, decoder: Decoder, seaweedfs: S3Server, tmp_path: Path
) -> None:
    private = open_storage(seaweedfs, tmp_path, reachable_by_all=False, public_endpoint_url="https://nas.local")
    nowhere = {"endpoint_url": "http://127.0.0.1:1", "attempts": 1, "public_endpoint_url": PUBLIC}
    gone = open_storage(seaweedfs, tmp_path, reachable_by_all=True, **nowhere)
    for number, storage in enumerate((private, gone)):
        cloud = provider.backend(decoder.decode, share=storage.share)
        with running(tmp_path / str(number), others={"siliconflow": cloud}) as service:
            assert service.finish(service.submit(backend="siliconflow", scale="1"))["status"] == "completed"
    sent = [json.loads(heard.body)["image"] for heard in provider.asked("api")]
    assert all(image.startswith("data:image/jpeg;base64,") for image in sent)
    assert len(sent) == 2


# Settings.


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("storage_url", "https://photos"),
        ("storage_url", "s3://key:secret@photos"),
        ("storage_url", "s3://Photos"),
        ("storage_url", "s3://photos?region=x"),
        ("storage_url", "s3://photos/../other"),
        ("storage_url", "s3://ab/../../x"),
        ("s3_endpoint_url", "s3.example.com"),
        ("s3_endpoint_url", "https://user:word@s3.example.com"),
        ("s3_endpoint_url", "https://s3.example.com/path"),
        ("s3_public_endpoint_url", "javascript:alert(1)"),
        ("s3_public_endpoint_url", "https://a.example.com; script-src *"),
        ("s3_region", "eu west"),
        ("s3_addressing_style", "host"),
        ("s3_checksums", "never"),
        ("result_delivery", "email"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(ValueError, match=name.split("_")[0]):
        settings_for(tmp_path, **{name: value})


def test_a_redirect_without_a_bucket_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="STORAGE_URL"):
        settings_for(tmp_path, result_delivery="redirect")


def test_a_service_on_a_bucket_starts_without_the_server(s3_credentials: None, tmp_path: Path) -> None:
    settings: Settings = settings_for(tmp_path, storage_url="s3://photos", s3_endpoint_url="http://127.0.0.1:1")
    assert create_app(settings, backends={}).state.context.storage.problem() is None


def test_the_doctor_puts_gets_and_removes_a_probe(
    seaweedfs: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_for(tmp_path, **s3_settings(seaweedfs, tmp_path))
    (good,) = check_storage(settings)
    assert (good.word, good.what) == (FINE, "storage")
    assert keys(seaweedfs, tmp_path) == []
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a wrong one")
    (bad,) = check_storage(settings)
    assert bad.word == BAD
    assert "storage_unavailable" in bad.text
    assert list(check_storage(settings_for(tmp_path))) == []
