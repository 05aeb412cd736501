"""`python -m benchmarks.attacks CHECKOUT [NAME ...]`: attack a service started from a checkout, print what is seen.

Every attack gets a fresh service, so that none sees what another left behind. Without names all run. Those that measure
how long others wait take `--seconds` each (60) and want a quiet machine. It ends with one JSON line, and exits 1 where
a service was broken.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.attacks import asking, files, sharing, weight_files
from benchmarks.attacks.target import Seen, Target, started

# Each attack and its row in the review's table: on a service, on a checkout, and those that measure how others wait.
ON_SERVICE: dict[Callable[[Target], Seen], int] = {
    asking.odd_prompt: 7,
    asking.wide_avif: 10,
    sharing.queue_of_one: 15,
    sharing.wrong_keys: 16,
    sharing.forwarded_addresses: 16,
    asking.cookie_after_sign_out: 18,
    files.long_zip_names: 18,
}
ON_CHECKOUT: dict[Callable[[Path], Seen], int] = {
    weight_files.weight_file_with_code: 1,
    sharing.idle_connections: 2,
    files.hidden_places: 6,
    files.downloads_while_deleting: 8,
    files.part_of_a_slow_upload: 9,
    weight_files.unreadable_weights: 11,
    files.odd_exif_tags: 12,
    files.large_previews: 13,
    sharing.emptied_queue: 14,
    sharing.foreign_page: 16,
    asking.any_origin_without_key: 17,
    asking.proxies_in_settings: 18,
}
WHILE_OTHERS_ASK: dict[Callable[[Path, float], Seen], int] = {
    sharing.connections_while_others_ask: 2,
    sharing.warm_ups: 3,
    sharing.header_bombs: 4,
    sharing.previews: 5,
    sharing.lists: 5,
}


def attacks(seconds: float) -> list[tuple[int, str, Callable[[Path], Seen]]]:
    """All attacks in the order of the review: the row, the name, and what runs it on a checkout."""
    found = [(row, attack.__name__, functools.partial(_on_fresh, attack)) for attack, row in ON_SERVICE.items()]
    found += [(row, attack.__name__, functools.partial(attack)) for attack, row in ON_CHECKOUT.items()]
    timed = WHILE_OTHERS_ASK.items()
    found += [(row, attack.__name__, functools.partial(_for_seconds, attack, seconds)) for attack, row in timed]
    return sorted(found, key=lambda each: each[0])


def main(words: Sequence[str] | None = None) -> int:
    """Run the asked attacks one after another; 1 where one broke the service or could not be run."""
    names = [name for _, name, _ in attacks(0)]
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkout", type=lambda text: Path(text).resolve())
    parser.add_argument("names", nargs="*", choices=[*names, []], metavar="NAME", help=", ".join(names))
    parser.add_argument("--seconds", type=float, default=60.0, help="how long others' waits are measured (60)")
    parser.add_argument("--leave-out", nargs="*", default=(), choices=names, metavar="NAME")
    asked = parser.parse_args(words)
    rows = []
    for row, name, attack in attacks(asked.seconds):
        if (not asked.names or name in asked.names) and name not in asked.leave_out:
            rows.append(_run(row, name, functools.partial(attack, asked.checkout)))
    print(json.dumps(rows))
    return 1 if any(row["broken"] for row in rows) else 0


def _on_fresh(attack: Callable[[Target], Seen], checkout: Path) -> Seen:
    with started(checkout) as target:
        return attack(target)


def _for_seconds(attack: Callable[[Path, float], Seen], seconds: float, checkout: Path) -> Seen:
    return attack(checkout, seconds)


def _run(row: int, name: str, work: Callable[[], Seen]) -> dict[str, object]:
    began = time.monotonic()
    try:
        seen = work()
    except Exception as error:  # noqa: BLE001 - the others shall run all the same
        seen = Seen(f"not seen: {type(error).__name__}: {error}", broken=True)
    word = "BROKEN" if seen.broken else "holds"
    print(f"{row:2} {name:28} {word:6} {seen.text}   [{time.monotonic() - began:.0f} s]", flush=True)
    return {"row": row, "name": name, "broken": seen.broken, "seen": seen.text}


if __name__ == "__main__":
    sys.exit(main())
