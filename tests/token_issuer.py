"""An issuer of tokens as Keycloak is one: RSA and EC keys made here, tokens signed with them, a real key-set server.

The server is HTTP on loopback; a test can take it away, slow it down, or have it answer anything.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

ISSUER = "https://id.example.org/realms/photos"
AUDIENCE = "neural-image-restore"
SECRET = "a secret that the issuer shares, 32 bytes and more"
ADMIN_CLAIM = "realm_access.roles=restore-admin"

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


def claims(subject: str = "user-1", **changes: Any) -> dict[str, Any]:
    """The claims of an access token as Keycloak gives it; a change to None leaves a claim out."""
    now = int(time.time())
    whole = {
        "iss": ISSUER,
        "aud": [AUDIENCE, "account"],
        "sub": subject,
        "exp": now + 300,
        "iat": now,
        "jti": "5a1f",
        "typ": "Bearer",
        "azp": "web-page",
        "preferred_username": subject,
        "realm_access": {"roles": ["offline_access"]},
        "scope": "openid email",
        **changes,
    }
    return {name: value for name, value in whole.items() if value is not None}


class Issuer:
    """Keys by id and algorithm, and what its server answers."""

    def __init__(self) -> None:
        self.keys: dict[str, tuple[str, PrivateKey]] = {}
        self.answer: tuple[int, bytes] | None = None  # None: the key set
        self.location = ""
        self.fetches = 0
        self.held = threading.Event()
        self.held.set()
        self.add_key("rsa-1", "RS256")
        self.add_key("ec-1", "ES256")

    def add_key(self, key_id: str, algorithm: str) -> None:
        """Make a key; a rotation is a new one and one less."""
        if algorithm == "RS256":
            self.keys[key_id] = algorithm, rsa.generate_private_key(65537, 2048)
        else:
            self.keys[key_id] = algorithm, ec.generate_private_key(ec.SECP256R1())

    def token(self, key_id: str = "rsa-1", *, subject: str = "user-1", **changes: Any) -> str:
        """A token signed with a key of ours."""
        algorithm, key = self.keys[key_id]
        return jwt.encode(claims(subject, **changes), key, algorithm, headers={"kid": key_id})

    def public_pem(self, key_id: str = "rsa-1") -> bytes:
        """The public key as everybody can have it."""
        public = self.keys[key_id][1].public_key()
        return public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)

    def key_set(self) -> bytes:
        """The set as Keycloak publishes it, with a key for encryption among them."""
        rows: list[dict[str, Any]] = [{"kid": "enc-1", "kty": "oct", "alg": "RSA-OAEP", "use": "enc", "k": "AAAA"}]
        for key_id, (algorithm, key) in self.keys.items():
            public: Any = key.public_key()
            kind: Any = RSAAlgorithm if algorithm == "RS256" else ECAlgorithm
            rows.append({**kind.to_jwk(public, as_dict=True), "kid": key_id, "alg": algorithm, "use": "sig"})
        return json.dumps({"keys": rows}).encode()


@contextlib.contextmanager
def serving(issuer: Issuer, port: int = 0) -> Iterator[str]:
    """Serve the key set; gives its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            issuer.fetches += 1
            issuer.held.wait(20)
            status, body = issuer.answer or (200, issuer.key_set())
            self.send_response(status)
            if issuer.location:
                self.send_header("Location", issuer.location)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/realms/photos/protocol/openid-connect/certs"
    finally:
        issuer.held.set()
        server.shutdown()
        server.server_close()
