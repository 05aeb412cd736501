"""`python -m benchmarks.cuda_check`: what must hold on a graphics card, step by step, each line with pass or fail.

It needs torch, NumPy, Pillow and spandrel; parts whose packages are missing are left out with a note. Each step is a
process of its own: one that loses the card takes no other with it. Steps 1 to 7 prove, 8 to 10 measure.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from app.restoration.device_errors import first_line
from benchmarks import cuda_figures, cuda_steps
from benchmarks.cuda_steps import Finding, Setting, Step
from benchmarks.request import SHAPES
from benchmarks.variants import describe_in_child

PASSED, FAILED, NO_CARD = 0, 1, 3  # exit codes; 2 is a wrong call
STEPS: dict[int, tuple[str, Step]] = {
    1: ("is it there", cuda_steps.presence),
    2: ("parity with the CPU", cuda_steps.parity),
    3: ("tiles", cuda_steps.tiles),
    4: ("equal bytes", cuda_steps.repeatable),
    5: ("out of memory", cuda_steps.memory_caps),
    6: ("faces", cuda_steps.faces),
    7: ("lost context, and other cards", cuda_steps.poison),
    8: ("how busy the card is", cuda_figures.busy),
    9: ("layers", cuda_figures.layers),
    10: ("graphs", cuda_figures.graphs),
}
STEP_SECONDS = 900.0  # a step that takes longer hangs


def main(words: Sequence[str] | None = None) -> int:
    """Run the steps asked for; 1 when one failed, 3 when there is no card to check."""
    asked = make_parser().parse_args(words)
    setting = Setting(asked.device, asked.weights, tuple(asked.models), asked.shrink)
    if asked.digest:
        print(cuda_steps.digest(setting, asked.digest))
        return PASSED
    if asked.step:
        return run_here(STEPS[asked.step][1], setting)
    if asked.device != "cpu":
        device, machine = describe_in_child(asked.device)
        if device == "cpu":
            is_there = machine["device_is_fallback"]
            print(f"{'The card fails' if is_there else 'There is no card to check'}: {machine['device_reason']}.")
            return FAILED if is_there else NO_CARD
        setting = dataclasses.replace(setting, device=device)
        print(f"{machine['card']}, torch {machine['torch']}, CUDA {machine['cuda']}", flush=True)
    return report({number: run_apart(number, setting) for number in asked.steps})


def make_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    about = "; ".join(f"{number}: {title}" for number, (title, _) in STEPS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cuda_check", description=f"Checks a graphics card. Steps: {about}."
    )
    parser.add_argument("--steps", type=int, nargs="+", choices=tuple(STEPS), default=list(STEPS), metavar="N")
    parser.add_argument("--device", default="auto", help="auto, cuda:N, or cpu to try the steps themselves")
    parser.add_argument("--weights", type=Path, default=Path("weights"), help="random ones stand in for missing files")
    parser.add_argument("--models", nargs="+", default=list(SHAPES), metavar="NAME")
    parser.add_argument("--shrink", type=int, default=1, help="divide the sides of the photos by this")
    parser.add_argument("--step", type=int, choices=tuple(STEPS), help=argparse.SUPPRESS)
    parser.add_argument("--digest", help=argparse.SUPPRESS)
    return parser


def run_here(step: Step, setting: Setting) -> int:
    """One step in this process: a line of JSON for each finding. What it raises is a finding too."""
    try:
        for finding in step(setting):
            print(json.dumps(dataclasses.asdict(finding)), flush=True)
    except Exception as error:  # noqa: BLE001 - whatever it is, the step has failed, and the others go on
        failed = Finding("the step", False, f"{type(error).__name__}: {first_line(error)}")
        print(json.dumps(dataclasses.asdict(failed)), flush=True)
    return PASSED


def run_apart(number: int, setting: Setting) -> list[Finding]:
    """One step in a process of its own; its findings are shown as they come."""
    title, _ = STEPS[number]
    print(f"\n{number}. {title}", flush=True)
    words = ["--step", str(number), "--device", setting.device, "--weights", str(setting.weights)]
    words += ["--shrink", str(setting.shrink), "--models", *setting.models]
    command = [sys.executable, "-m", "benchmarks.cuda_check", *words]
    found = []
    for finding in _findings(command, STEP_SECONDS):
        print(f"   {word_for(finding)}  {finding.what}: {finding.text}", flush=True)
        found.append(finding)
    return found


def _findings(command: Sequence[str], seconds: float) -> Iterator[Finding]:
    """What a step's process says, line by line; its death is a finding, and so is its silence."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        too_long = threading.Timer(seconds, process.kill)
        too_long.start()
        count = 0
        for line in process.stdout:
            if line.startswith("{"):
                count += 1
                yield Finding(**json.loads(line))
        code = process.wait()
        too_long.cancel()
    if code != PASSED:
        yield Finding("the step's process", False, f"ended with code {code}")
    elif not count:
        yield Finding("the step's process", False, "said nothing")


def word_for(finding: Finding) -> str:
    """`pass`, `fail`, or nothing for a figure; four letters wide."""
    return {True: "pass", False: "FAIL", None: "    "}[finding.passed]


def report(found: dict[int, list[Finding]]) -> int:
    """A line for each step and one for all; the exit code."""
    verdicts = {number: verdict_of(findings) for number, findings in found.items()}
    print()
    for number, passed in verdicts.items():
        print(f"{word_for(Finding('', passed, ''))}  {number}. {STEPS[number][0]}")
    failed = [number for number, passed in verdicts.items() if passed is False]
    print(f"failed: {', '.join(map(str, failed))}" if failed else "no step failed")
    return FAILED if failed else PASSED


def verdict_of(findings: Sequence[Finding]) -> bool | None:
    """False when one finding failed, True when one passed and none failed, None for figures alone."""
    verdicts = [finding.passed for finding in findings if finding.passed is not None]
    return all(verdicts) if verdicts else None


if __name__ == "__main__":
    sys.exit(main())
