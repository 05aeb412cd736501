"""`python -m benchmarks.attacks CHECKOUT [NAME ...]`: attack a service started from a checkout, print what is seen.

Every attack gets a fresh service, so that none sees what another left behind. Without names all run.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.attacks import asking, sharing
from benchmarks.attacks.target import Target, started

ON_SERVICE: tuple[Callable[[Target], str], ...] = (
    sharing.idle_connections,
    sharing.warm_ups,
    sharing.header_bombs,
    asking.odd_prompt,
    asking.wide_avif,
    sharing.queue_of_one,
    sharing.wrong_keys,
    asking.cookie_after_sign_out,
)
ON_CHECKOUT: tuple[Callable[[Path], str], ...] = (
    asking.weight_file_with_code,
    asking.any_origin_without_key,
    asking.proxies_in_settings,
)


def main() -> None:
    """Run the asked attacks one after another."""
    names = [attack.__name__ for attack in (*ON_CHECKOUT, *ON_SERVICE)]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkout", type=lambda text: Path(text).resolve())
    parser.add_argument("names", nargs="*", choices=[*names, []], metavar="NAME", help=", ".join(names))
    asked = parser.parse_args()
    for on_checkout in ON_CHECKOUT:
        if not asked.names or on_checkout.__name__ in asked.names:
            _show(on_checkout.__name__, lambda attack=on_checkout: attack(asked.checkout))  # type: ignore[misc]
    for on_service in ON_SERVICE:
        if not asked.names or on_service.__name__ in asked.names:
            _show(on_service.__name__, lambda attack=on_service: _on_fresh(asked.checkout, attack))  # type: ignore[misc]


def _on_fresh(checkout: Path, attack: Callable[[Target], str]) -> str:
    with started(checkout) as target:
        return attack(target)


def _show(name: str, work: Callable[[], str]) -> None:
    began = time.monotonic()
    try:
        seen = work()
    except Exception as error:  # noqa: BLE001 - the others shall run all the same
        seen = f"not seen: {type(error).__name__}: {error}"
    print(f"{name:24} {seen}   [{time.monotonic() - began:.0f} s]", flush=True)


if __name__ == "__main__":
    main()
