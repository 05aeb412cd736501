"""The campaign of mutated files: thousands of damaged photos through the header check and the decoder's child.

Run from the repository's root: `python -m benchmarks.mutated_files --files 20000`. A file may be restored or refused by
an error of our own; whatever else happens is a fault: another exception, the death of the process that checks headers,
a failure of the service, a header check that takes too long. It prints the slowest checks and one JSON line, and exits
1 on any fault. `--make NUMBER FILE` writes one of them again. `--bare` is for the mass: the decode layer itself in one
process with the child's memory limit, without the way to the child and back, so that its every exception is seen.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import resource
import select
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from app.errors import RestoreError
from app.images import Decoder, ImageLimits, read_header
from app.images.decode import DecodeOptions, decode_file
from benchmarks.mutations import mutant

MOST_HEADER_SECONDS = 0.2
SLOWEST_TOLD = 10
_PREVIEWED_SHARE = 10  # one of so many has its preview made too
_SILENCE_SECONDS = 3 * ImageLimits().decode_timeout_seconds  # wall time, so it allows for a busy machine
_TRIES = 3  # of a slow check: seconds of this thread's own processor time vary too
# Codes that say that we failed, and not the photo.
_OUR_FAULT = ("decoder_unavailable", "internal_error", "no_space", "file_missing", "shutting_down")


@dataclasses.dataclass(frozen=True)
class Checked:
    """What the header check said of one mutant: its code (None: it passed), its seconds, or a fault.

    `decoded` is what the decode layer then said, in a bare run: `restored` or a code.
    """

    code: str | None
    seconds: float
    fault: str | None = None
    decoded: str | None = None


class HeaderChecker:
    """The header check in a process of its own, since it is the service's own process that it runs in."""

    def __init__(self, seed: int, file: Path, *, bare: bool = False) -> None:
        self._words = [sys.executable, "-m", "benchmarks.mutated_files", "--seed", str(seed), "--check", str(file)]
        self._words += ["--bare"] if bare else []
        self._process: subprocess.Popen[str] | None = None

    def check(self, number: int) -> Checked:
        """Make one mutant at the file's place and check it; a death of the process is a fault."""
        if self._process is None:
            self._process = subprocess.Popen(self._words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{number}\n")
        process.stdin.flush()
        if not select.select([process.stdout], [], [], _SILENCE_SECONDS)[0]:
            process.kill()  # where the decoder's child would be ended
            process.wait()
            self._process = None
            return Checked(None, 0.0, decoded="decode_timeout")
        answer = process.stdout.readline()
        if answer:
            return Checked(**json.loads(answer))
        code, self._process = self._process.wait(), None
        return Checked(None, 0.0, f"the process that checks headers died with {code}")

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.communicate()


class Campaign:
    """Counts what became of the mutants of one seed."""

    def __init__(self, seed: int, folder: Path, *, bare: bool = False) -> None:
        self._seed, self._file = seed, folder / "mutant"
        self._checker = HeaderChecker(seed, self._file, bare=bare)
        self._decoder = Decoder(ImageLimits())
        self.ends: Counter[str] = Counter()
        self.faults: list[str] = []
        self.slowest: list[tuple[float, int]] = []
        self.slowest_decodes: list[tuple[float, int]] = []
        self.child_deaths: list[int] = []

    def one(self, number: int) -> None:
        """One mutant through both."""
        checked = self._checker.check(number)
        self.slowest = _longest(self.slowest, (checked.seconds, number))
        if checked.fault:
            self._blame(number, checked.fault)
        elif checked.seconds > MOST_HEADER_SECONDS:
            self._blame(number, f"its header check took {checked.seconds:.2f} s")
        if checked.code:
            self.ends[f"header: {checked.code}"] += 1
        elif checked.decoded:
            self.ends[f"decode layer: {checked.decoded}"] += 1
        elif not checked.fault:
            self._decode(number)

    def _decode(self, number: int) -> None:
        before, began = self._decoder.child_pid, time.monotonic()
        try:
            self._decoder.decode(self._file)
            if number % _PREVIEWED_SHARE == 0:
                self._decoder.preview(self._file)
            end = "restored"
        except RestoreError as error:
            end = error.code
            if error.code in _OUR_FAULT:
                self._blame(number, f"the decoder said {error.code}")
        except Exception as error:  # noqa: BLE001 - that is what is looked for
            end = "fault"
            self._blame(number, f"the decoder raised {error!r}")
        self.ends[f"decoder: {end}"] += 1
        self.slowest_decodes = _longest(self.slowest_decodes, (time.monotonic() - began, number))
        if before is not None and self._decoder.child_pid != before:
            self.child_deaths.append(number)

    def _blame(self, number: int, what: str) -> None:
        self.faults.append(f"{number} ({mutant(self._seed, number)[0]}): {what}")
        print(self.faults[-1], flush=True)

    def close(self) -> None:
        """End both processes."""
        self._checker.close()
        self._decoder.close()


def main(words: Sequence[str] | None = None) -> int:
    """Run the campaign; 1 on any fault."""
    asked = make_parser().parse_args(words)
    if asked.check:
        return check_headers(asked.seed, asked.check, bare=asked.bare)
    if asked.make:
        what, data = mutant(asked.seed, int(asked.make[0]))
        Path(asked.make[1]).write_bytes(data)
        print(what)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        campaign = Campaign(asked.seed, Path(folder), bare=asked.bare)
        try:
            for number in range(asked.first, asked.first + asked.files):
                campaign.one(number)
        finally:
            campaign.close()
    return _report(campaign, asked)


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    about = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mutated_files", description=about)
    parser.add_argument("--files", type=int, default=1000, help="how many (1000)")
    parser.add_argument("--first", type=int, default=0, help="number of the first (0)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--make", nargs=2, metavar=("NUMBER", "FILE"), help="only write one of them")
    parser.add_argument("--bare", action="store_true", help="only the decode layer, in one process")
    parser.add_argument("--check", type=Path, help=argparse.SUPPRESS)
    return parser


def check_headers(seed: int, file: Path, *, bare: bool = False) -> int:
    """The process of `HeaderChecker`: for each number on its input a mutant, checked; one line of JSON each."""
    limits = ImageLimits()
    if bare:
        _limit_memory(limits)
    for line in sys.stdin:
        file.write_bytes(mutant(seed, int(line))[1])
        checked = _check(file, limits)
        for _ in range(_TRIES - 1):
            if checked.seconds > MOST_HEADER_SECONDS:
                checked = min(checked, _check(file, limits), key=lambda each: each.seconds)
        if bare and checked.code is None and checked.fault is None:
            checked = _decode_here(file, limits, checked)
        print(json.dumps(dataclasses.asdict(checked)), flush=True)
    return 0


def _check(file: Path, limits: ImageLimits) -> Checked:
    began = time.thread_time()  # what a busy machine adds is not the file's
    code = fault = None
    try:
        read_header(file, limits)
    except RestoreError as error:
        code = error.code
    except Exception as error:  # noqa: BLE001 - that is what is looked for
        fault = f"the header check raised {error!r}"
    return Checked(code, time.thread_time() - began, fault)


def _limit_memory(limits: ImageLimits) -> None:
    """What the decoder's child may have (Linux)."""
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    room = mapped + limits.decode_memory_mb * 1024 * 1024
    resource.setrlimit(resource.RLIMIT_AS, (room, room))


def _decode_here(file: Path, limits: ImageLimits, checked: Checked) -> Checked:
    try:
        decode_file(file, limits, DecodeOptions())
    except RestoreError as error:
        return dataclasses.replace(checked, decoded=error.code)
    except Exception as error:  # noqa: BLE001 - that is what is looked for
        return dataclasses.replace(checked, fault=f"the decode layer raised {error!r}")
    return dataclasses.replace(checked, decoded="restored")


def _longest(kept: list[tuple[float, int]], new: tuple[float, int]) -> list[tuple[float, int]]:
    return sorted([*kept, new], reverse=True)[:SLOWEST_TOLD]


def _report(campaign: Campaign, asked: argparse.Namespace) -> int:
    for what, count in campaign.ends.most_common():
        print(f"{count:7}  {what}")
    for title, rows in (("header checks", campaign.slowest), ("decodings", campaign.slowest_decodes)):
        print(f"slowest {title}:")
        for seconds, number in rows:
            print(f"  {seconds * 1000:7.1f} ms  {number}  {mutant(asked.seed, number)[0]}")
    answer = {
        "files": asked.files,
        "first": asked.first,
        "seed": asked.seed,
        "bare": asked.bare,
        "ends": campaign.ends,
        "slowest_header_seconds": campaign.slowest[0][0] if campaign.slowest else 0.0,
        "child_deaths": campaign.child_deaths,
        "faults": campaign.faults,
    }
    print(json.dumps(answer))
    return 1 if campaign.faults else 0


if __name__ == "__main__":
    sys.exit(main())
