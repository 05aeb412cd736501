"""Webhooks end to end: told once at the end of a job, signed, tried again later and later, never to a wrong place."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.api import schemas
from app.errors import Unprocessable
from app.metrics import Metrics
from app.outbound.ssrf_safe_transport import GuardedNetwork
from app.settings import Settings
from app.store import JobOrigin, SqlStore
from app.webhooks.addresses import WebhookAddresses
from app.webhooks.delivery import RETRY_SECONDS, WebhookDelivery
from app.webhooks.sender import WebhookSender
from app.webhooks.signing import read_secret, signed_headers
from tests.databases import Clock
from tests.documentation import PAGES
from tests.harness import OWNER, Harness, until
from tests.http_service import Service, assert_problem, photo, running
from tests.webhook_receiver import SECRET, Receiver, receiving


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


def told(service: Service, receiver: Receiver, number: int = 1) -> None:
    until(lambda: len(receiver.received) >= number)


def test_the_end_of_a_job_is_told_once_and_signed(tmp_path: Path, receiver: Receiver) -> None:
    url = f"{receiver.origin}/hook?token=mine"
    with running(tmp_path, WEBHOOK_SECRET=SECRET, webhook_hosts=receiver.origin) as service:
        assert service.client.get("/api/v1/config").json()["webhooks"] is True
        job_id = service.submit(webhook_url=url)
        told(service, receiver)
        until(lambda: service.finish(job_id)["webhook"]["status"] == "delivered")
        shown = service.finish(job_id)
        metrics = service.client.get("/metrics").text
    (one,) = receiver.received
    assert one.path == "/hook?token=mine"
    assert one.is_signed_with(SECRET)
    assert not one.is_signed_with(SECRET[:-2] + "g=")
    schemas.JobShape.model_validate(one.job)
    assert one.job["webhook"]["status"] == "pending"
    assert {**one.job, "webhook": None} == {**shown, "webhook": None}
    expected = {"status": "delivered", "tries": 1, "next_try_at": None, "response_status": 204, "error": None}
    assert shown["webhook"] == expected
    assert "token" not in json.dumps(shown)
    assert 'restore_webhook_tries_total{outcome="delivered"} 1.0' in metrics


def test_all_ways_to_submit_take_the_address(tmp_path: Path, receiver: Receiver) -> None:
    url = f"{receiver.origin}/all"
    with running(tmp_path, WEBHOOK_SECRET=SECRET, webhook_hosts=receiver.origin) as service:
        for path in ("/enhance", "/api/v1/enhance/batch"):
            answer = service.client.post(path, data={"webhook_url": url}, files={"files": ("a.png", photo())})
            assert answer.status_code == 202, answer.text
        photo_id = service.client.post("/api/v1/photos", files={"file": photo()}).json()["id"]
        again = service.client.post(f"/api/v1/photos/{photo_id}/restore", json={"webhook_url": url, "scale": 2})
        assert again.status_code == 202, again.text
        told(service, receiver, 3)
    assert {one.job["status"] for one in receiver.received} == {"completed"}
    assert len({one.job["job_id"] for one in receiver.received}) == 3


def test_a_job_that_ended_while_nothing_was_sent_is_told_after_the_next_start(
    tmp_path: Path, receiver: Receiver
) -> None:
    receiver.gate.clear()
    with running(tmp_path, WEBHOOK_SECRET=SECRET, webhook_hosts=receiver.origin) as service:
        job_id = service.submit(webhook_url=receiver.origin)
        told(service, receiver)  # the receiver has it in hand, and the service stops
    receiver.gate.set()
    with running(tmp_path, WEBHOOK_SECRET=SECRET, webhook_hosts=receiver.origin) as service:
        told(service, receiver, 2)
        until(lambda: service.finish(job_id)["webhook"]["status"] == "delivered")
    assert len({one.headers["webhook-id"] for one in receiver.received}) == 1


def test_without_a_secret_there_are_none_and_nothing_of_them_is_loaded(tmp_path: Path) -> None:
    with running(tmp_path) as service:
        answer = service.client.post(
            "/api/v1/enhance", files={"file": photo()}, data={"webhook_url": "https://hooks.example.com"}
        )
        assert_problem(answer, 409, "webhooks_off")
        assert service.uploads() == []
        assert service.client.get("/api/v1/config").json()["webhooks"] is False
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("webhooks")]
        plain = service.submit(webhook_url="")
        assert service.finish(plain)["webhook"] is None
    script = (
        "import sys, app.main.application; from app.main import create_app; from app.settings import Settings;"
        f"create_app(Settings(database_url='sqlite:///{tmp_path}/x.sqlite3'), backends={{}});"
        "print([n for n in sys.modules if n.startswith(('app.webhooks.d', 'app.webhooks.s', 'httpcore2'))])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.com/x",
        "https://127.0.0.1/x",
        "https://[::1]/x",
        "https://hooks.example.com:8443/x",
        "https://me@hooks.example.com/x",
        "https://hooks.example.com/x#part",
        "https://hooks.example.com\\@localhost/",
        "https://localhost/x",
        "ftp://hooks.example.com/",
        "https://hooks.example.com/a b",
        "https://" + "a" * 5000 + ".com/",
        "//hooks.example.com",
    ],
)
def test_an_address_that_may_not_be_told_is_refused_at_submit(url: str) -> None:
    with pytest.raises(Unprocessable) as refused:
        WebhookAddresses(()).check(url)
    assert refused.value.code == "webhook_refused"


def test_a_list_narrows_the_hosts_and_opens_origins_of_the_own_network() -> None:
    free = WebhookAddresses(())
    assert free.check("https://Hooks.Example.com").target == "/"
    narrow = WebhookAddresses(("hooks.example.com", "*.example.org", "http://10.0.0.5:8080"))
    assert not narrow.check("https://a.example.org/x?y=1").trusted
    own = narrow.check("http://10.0.0.5:8080/x")
    assert (own.scheme, own.host, own.port, own.target, own.trusted) == ("http", "10.0.0.5", 8080, "/x", True)
    assert WebhookAddresses(("http://10.0.0.5:80", "http://10.0.0.5:8080")).check("http://10.0.0.5:8080/x").port == 8080
    for url in (
        "https://example.org/x",
        "https://other.example.com/",
        "http://10.0.0.5:8080.evil.com/",
        "http://10.0.0.5:80/",
        "http://10.0.0.5:8080@evil.com/",
        "https://10.0.0.5:8080/",
    ):
        with pytest.raises(Unprocessable):
            narrow.check(url)


def test_a_bad_address_is_refused_before_anything_is_stored(tmp_path: Path) -> None:
    with running(tmp_path, WEBHOOK_SECRET=SECRET) as service:
        for url in ("http://127.0.0.1:9/x", "https://169.254.169.254/latest"):
            answer = service.client.post("/api/v1/enhance", files={"file": photo()}, data={"webhook_url": url})
            assert_problem(answer, 422, "webhook_refused")
        assert service.uploads() == []


class Bench:
    """A store with one job that ended, and deliveries by hand on a clock of the test."""

    def __init__(self, folder: Path, addresses: WebhookAddresses, network: GuardedNetwork) -> None:
        self.clock = Clock()
        self.harness = Harness(folder)
        self.store = SqlStore(f"sqlite:///{folder}/jobs.sqlite3", clock=self.clock)
        self.store.open()
        self.metrics = Metrics()
        self.delivery = WebhookDelivery(
            self.store,
            self.metrics,
            addresses=addresses,
            keys=[read_secret(SECRET)],
            render=lambda job: json.dumps({"job_id": job.id}).encode(),
            send=WebhookSender(network, seconds=5.0).send,
            wall=self.clock,
            jitter=lambda: 1.0,
        )

    def ended_job(self, url: str, owner: str = OWNER) -> str:
        new = self.harness.upload(b"bytes")
        job, _ = self.store.submit(owner, [new], "{}", "local", 9, 1.0, origin=JobOrigin(webhook_url=url))
        self.store.cancel_or_remove(owner, job.id, 2.0)
        return job.id

    def state(self, job_id: str) -> tuple[str, int, int | None, str | None]:
        found = self.store.job(OWNER, job_id).webhook
        assert found is not None
        return found.status.value, found.tries, found.response_status, found.error

    def close(self) -> None:
        self.store.close()
        self.harness.decoder.close()


@pytest.fixture
def bench(tmp_path: Path, receiver: Receiver) -> Iterator[Bench]:
    found = Bench(tmp_path, WebhookAddresses((receiver.origin,)), GuardedNetwork())
    yield found
    found.close()


def test_a_failing_receiver_is_tried_again_for_longer_and_longer_and_given_up(bench: Bench, receiver: Receiver) -> None:
    receiver.statuses = [500] * 99
    job_id = bench.ended_job(receiver.origin)
    for number, seconds in enumerate((*RETRY_SECONDS, 0.0), start=1):
        assert bench.delivery.tick()
        assert bench.state(job_id)[1:] == (number, 500, "refused")
        assert not bench.delivery.tick()
        bench.clock.now += seconds
    assert bench.state(job_id)[0] == "failed"
    assert not bench.delivery.tick()
    assert len({one.headers["webhook-id"] for one in receiver.received}) == 1
    assert len({one.headers["webhook-timestamp"] for one in receiver.received}) == len(receiver.received)
    assert all(one.is_signed_with(SECRET) for one in receiver.received)


@pytest.mark.parametrize(("status", "end"), [(200, "delivered"), (204, "delivered"), (410, "failed"), (302, "pending")])
def test_the_answer_decides_and_no_redirect_is_followed(
    bench: Bench, receiver: Receiver, status: int, end: str
) -> None:
    receiver.statuses = [status]
    job_id = bench.ended_job(f"{receiver.origin}/here")
    assert bench.delivery.tick()
    assert bench.state(job_id)[:3] == (end, 1, status)
    assert [one.path for one in receiver.received] == ["/here"]


def test_a_receiver_that_is_not_there_is_told_later(bench: Bench, receiver: Receiver) -> None:
    receiver.statuses = [503]
    job_id = bench.ended_job(receiver.origin)
    bench.delivery.tick()
    assert not bench.delivery.tick()
    bench.clock.now += RETRY_SECONDS[0]
    assert bench.delivery.tick()
    assert bench.state(job_id) == ("delivered", 2, 204, None)


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["93.184.216.34", "10.0.0.1"], ["::ffff:127.0.0.1"]])
def test_a_public_name_that_leads_inside_is_never_contacted(tmp_path: Path, addresses: list[str]) -> None:
    def dial(*_: object) -> None:
        raise AssertionError("nothing may be dialled")

    network = GuardedNetwork(resolve=lambda host, port: addresses, dial=dial)  # type: ignore[arg-type]
    found = Bench(tmp_path, WebhookAddresses(()), network)
    job_id = found.ended_job("https://hooks.example.com/x")
    assert found.delivery.tick()
    assert found.state(job_id) == ("pending", 1, None, "refused_address")
    found.close()


def test_receivers_that_hang_do_not_hold_up_those_of_another_owner(bench: Bench, receiver: Receiver) -> None:
    receiver.gate.clear()
    for _ in range(4):
        bench.ended_job(f"{receiver.origin}/greedy", "greedy")
    bench.delivery.start()
    until(lambda: len(receiver.received) == 2)  # and no third
    other = bench.ended_job(f"{receiver.origin}/modest", "modest")
    until(lambda: len(receiver.received) == 3)
    assert [one.path for one in receiver.received] == ["/greedy", "/greedy", "/modest"]
    receiver.gate.set()
    until(lambda: bench.store.job("modest", other).webhook.status == "delivered")  # type: ignore[union-attr]
    until(lambda: len(receiver.received) == 5)
    bench.delivery.stop()


def test_a_host_that_left_the_list_is_told_no_more(tmp_path: Path, receiver: Receiver) -> None:
    found = Bench(tmp_path, WebhookAddresses(("hooks.example.com",)), GuardedNetwork())
    job_id = found.ended_job(receiver.origin)
    assert found.delivery.tick()
    assert found.state(job_id) == ("failed", 1, None, "webhook_refused")
    assert receiver.received == []
    found.close()


def test_two_secrets_sign_twice_while_one_replaces_the_other() -> None:
    headers = signed_headers([b"a" * 24, b"b" * 24], "id", 1, b"{}")
    assert len(set(headers["webhook-signature"].split(" "))) == 2


def test_the_specifications_own_example_has_its_signature() -> None:
    """The test vector of the reference libraries of Standard Webhooks."""
    key = read_secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = signed_headers([key], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("count", range(16, 72))
def test_settings_and_signing_agree_on_what_a_secret_is(count: int) -> None:
    secret = "whsec_" + base64.b64encode(bytes(count)).decode()
    if 24 <= count <= 64:
        (kept,) = Settings.model_validate({"WEBHOOK_SECRET": secret}).webhook_secrets
        assert len(read_secret(kept.get_secret_value())) == count
    else:
        with pytest.raises(ValueError, match=r"whsec_"):
            Settings.model_validate({"WEBHOOK_SECRET": secret})


@pytest.mark.parametrize("secret", ["secret", "whsec_", "whsec_c2hvcnQ=", "whsec_" + "A" * 200, "whsec_*" + "A" * 40])
def test_a_secret_that_cannot_sign_is_refused_at_start(secret: str) -> None:
    with pytest.raises(ValueError, match=r"whsec_"):
        Settings.model_validate({"WEBHOOK_SECRET": secret})
    with pytest.raises(ValueError, match=r"whsec_"):
        read_secret(secret)


def test_the_settings_are_bounded_and_secret() -> None:
    settings = Settings.model_validate({"WEBHOOK_SECRET": f"{SECRET},{SECRET}", "webhook_hosts": "A.example.com"})
    assert settings.webhook_hosts == ("a.example.com",)
    assert SECRET in settings.secrets
    assert SECRET not in repr(settings)
    for hosts in ("localhost", "http://", "a b", "https://x/path"):
        with pytest.raises(ValueError, match="WEBHOOK_HOSTS"):
            Settings.model_validate({"webhook_hosts": hosts})


def test_the_example_of_the_documentation_verifies_what_is_sent(bench: Bench, receiver: Receiver) -> None:
    example = PAGES["webhooks.md"].split("```python\n", 1)[1].split("```", 1)[0]
    verify: dict[str, object] = {}
    exec(example, verify)
    bench.clock.now = 1000.0
    bench.ended_job(receiver.origin)
    bench.delivery.tick()
    (one,) = receiver.received
    check = verify["is_genuine"]
    assert callable(check)
    assert check(SECRET, one.headers, one.body, 1000.0)
    assert not check(SECRET, one.headers, one.body + b" ", 1000.0)
    assert not check(SECRET, one.headers, one.body, 1000.0 + 301)
