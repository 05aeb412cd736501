"""A database as the first version of the service left it: its tables word for word, with rows in every state."""

from __future__ import annotations

import sqlite3
from pathlib import Path

PHOTOS = {word: word[0] * 32 for word in ("completed", "failed", "queued", "processing")}
ATTEMPTS = {word: f"{word[0]}a" * 16 for word in PHOTOS}
JOBS = {word: f"{word[0]}b" * 16 for word in PHOTOS}

_TABLES = """
CREATE TABLE photos (
    id VARCHAR(32) NOT NULL, owner VARCHAR(64) NOT NULL, sha256 VARCHAR(64) NOT NULL, name TEXT NOT NULL,
    mime VARCHAR(40) NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL, bytes INTEGER NOT NULL,
    status VARCHAR(12) NOT NULL, status_before VARCHAR(12), created_at FLOAT NOT NULL,
    PRIMARY KEY (id), CHECK (status IN ('uploaded', 'processing', 'ready', 'archived', 'deleted'))
);
CREATE TABLE jobs (
    number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, id VARCHAR(32) NOT NULL, owner VARCHAR(64) NOT NULL,
    created_at FLOAT NOT NULL, options_json TEXT NOT NULL, UNIQUE (id)
);
CREATE INDEX jobs_by_owner ON jobs (owner, number);
CREATE TABLE attempts (
    number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, id VARCHAR(32) NOT NULL, job_id VARCHAR(32) NOT NULL,
    photo_id VARCHAR(32) NOT NULL, position INTEGER NOT NULL, status VARCHAR(12) NOT NULL,
    backend VARCHAR(20) NOT NULL, options_json TEXT NOT NULL, progress FLOAT NOT NULL, stage VARCHAR(20) NOT NULL,
    tries INTEGER NOT NULL, claim VARCHAR(32), created_at FLOAT NOT NULL, started_at FLOAT, ended_at FLOAT,
    result_name VARCHAR(40), result_mime VARCHAR(40), result_width INTEGER, result_height INTEGER,
    result_bytes INTEGER, model VARCHAR(100), seconds FLOAT, faces_json TEXT NOT NULL,
    warnings_json TEXT NOT NULL, params_json TEXT NOT NULL, error_code VARCHAR(60), error_message TEXT,
    CHECK (status IN ('queued', 'processing', 'completed', 'failed', 'cancelled')), UNIQUE (id),
    FOREIGN KEY(job_id) REFERENCES jobs (id), FOREIGN KEY(photo_id) REFERENCES photos (id)
);
CREATE INDEX attempts_by_photo ON attempts (photo_id);
CREATE UNIQUE INDEX one_active_attempt_per_photo ON attempts (photo_id) WHERE status IN ('queued', 'processing');
CREATE INDEX attempts_by_job ON attempts (job_id, position);
CREATE INDEX attempts_by_status ON attempts (status, number);
PRAGMA user_version=1;
"""


def write(path: Path) -> None:
    """Four jobs of `owner`: one completed, one failed, one waiting, and one whose run was killed."""
    connection = sqlite3.connect(path)
    connection.executescript(_TABLES)
    for number, word in enumerate(PHOTOS, 1):
        status, before = {"completed": ("ready", None), "processing": ("processing", "uploaded")}.get(
            word, ("uploaded", None)
        )
        photo = (PHOTOS[word], "owner", "0" * 64, f"{word}.jpg", "image/jpeg", 4, 3, 99, status, before, float(number))
        connection.execute(f"INSERT INTO photos VALUES ({','.join('?' * len(photo))})", photo)
        connection.execute("INSERT INTO jobs VALUES (?,?,?,?,?)", (number, JOBS[word], "owner", float(number), "{}"))
        connection.execute(
            "INSERT INTO attempts (id, job_id, photo_id, position, status, backend, options_json, progress, stage,"
            " tries, claim, created_at, ended_at, faces_json, warnings_json, params_json)"
            " VALUES (?,?,?,0,?,'local','{}',0,'waiting',1,?,?,?,'[]','[]','{}')",
            (
                *(ATTEMPTS[word], JOBS[word], PHOTOS[word], word),
                *("t" if word == "processing" else None, float(number)),
                float(number + 9) if word in ("completed", "failed") else None,
            ),
        )
    connection.execute(
        "UPDATE attempts SET result_name = id || '.jpg', result_mime = 'image/jpeg', result_width = 16,"
        " result_height = 12, result_bytes = 7, model = 'm', seconds = 1.5 WHERE status = 'completed'"
    )
    connection.commit()
    connection.close()
