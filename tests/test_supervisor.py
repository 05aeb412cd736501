"""The supervisor with real children: tiny scripts that crash, hang, drain or refuse to end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from app.commands.supervisor import Policy, Supervisor
from app.exit_codes import EXIT_BAD_SETTINGS, EXIT_CARD_LOST, EXIT_HUNG
from app.process_names import SUPERVISOR_VARIABLE, own_process_name
from tests.harness import until

ROOT = Path(__file__).resolve().parents[1]
QUICK = Policy(restarts=3, window_seconds=600, first_wait_seconds=0.01, longest_wait_seconds=0.02)
# Writes a line at each start and then ends as the script says; `runs` is how often it was started, this run included.
_HEAD = """
import os, signal, sys, time
from pathlib import Path
log = Path(sys.argv[1])
with log.open("a") as file: file.write("start\\n")
runs = log.read_text().count("start")
"""


def supervise(script: str, tmp_path: Path, policy: Policy = QUICK) -> tuple[int, int, list[str]]:
    """Exit code, number of starts, and what was said."""
    log, said = tmp_path / "log", list[str]()
    command = [sys.executable, "-c", _HEAD + script, str(log)]
    code = Supervisor(command, dict(os.environ), said.append, policy).run()
    return code, log.read_text().count("start"), said


def test_a_clean_end_is_the_end(tmp_path: Path) -> None:
    assert supervise("sys.exit(0)", tmp_path) == (0, 1, [])


def test_a_hung_or_crashed_child_is_started_again(tmp_path: Path) -> None:
    script = f"sys.exit(0) if runs == 3 else sys.exit({EXIT_HUNG}) if runs == 1 else os.kill(os.getpid(), 9)"
    code, starts, said = supervise(script, tmp_path)
    assert (code, starts) == (0, 3)
    assert "did not answer any more" in said[0]
    assert "signal 9" in said[1]


def test_only_a_child_that_follows_a_dead_one_is_told_so(tmp_path: Path) -> None:
    """At its first start a supervisor knows nothing of the time before: the whole machine may have gone down."""
    script = "log.open('a').write(f'{sys.argv[2:]} '); sys.exit(0) if runs == 3 else os.kill(os.getpid(), 9)"
    for _ in range(2):
        log = tmp_path / "log"
        log.unlink(missing_ok=True)
        command = [sys.executable, "-c", _HEAD + script, str(log)]
        supervisor = Supervisor(
            command, dict(os.environ), list[str]().append, QUICK, words_after_death=["--after-death"]
        )
        assert supervisor.run() == 0
        assert log.read_text().split() == ["start", "[]", "start", "['--after-death']", "start", "['--after-death']"]


def test_the_children_of_a_supervisor_share_its_mark_and_no_other_has_it(tmp_path: Path) -> None:
    script = f"log.open('a').write(os.environ[{SUPERVISOR_VARIABLE!r}] + ' '); sys.exit(runs < 2)"
    marks = []
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        supervise(script, folder)
        marks += (folder / "log").read_text().replace("start", "").split()
    assert marks[0] == marks[1] != marks[2] == marks[3]


def test_a_name_tells_whose_child_a_process_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SUPERVISOR_VARIABLE, "mark")
    child = own_process_name()
    assert str(child) == f"{child.of_its_supervisor}{os.getpid()}"
    assert child.of_its_supervisor.endswith(":mark:")
    monkeypatch.delenv(SUPERVISOR_VARIABLE)
    assert own_process_name().of_its_supervisor == ""
    assert str(own_process_name()) == f"{child.host}:{os.getpid()}"


WORDS = {EXIT_HUNG: ["--hung"], EXIT_CARD_LOST: ["--lost"]}


@pytest.mark.parametrize(
    ("code", "word", "said_once"),
    [
        (EXIT_HUNG, "--hung", "The service hung twice"),
        (EXIT_CARD_LOST, "--lost", "The service lost its graphics card twice"),
    ],
)
def test_a_child_that_hung_or_lost_its_card_twice_is_told_to_do_without_it_and_why(
    code: int, word: str, said_once: str, tmp_path: Path
) -> None:
    log, said = tmp_path / "log", list[str]()
    script = f"log.write_text(log.read_text() + str(sys.argv[2:])); sys.exit(0 if sys.argv[2:] else {code})"
    command = [sys.executable, "-c", _HEAD + script, str(log)]
    assert Supervisor(command, dict(os.environ), said.append, QUICK, words_without_card=WORDS).run() == 0
    assert log.read_text().replace("start\n", "") == f"[][]['{word}']"
    assert sum("goes on with the CPU" in line for line in said) == 1
    assert any(line.startswith(said_once) for line in said)


def test_one_hang_or_crashes_leave_the_card_in_use() -> None:
    said: list[str] = []
    supervisor = Supervisor(["x"], {}, said.append, Policy(window_seconds=100), words_without_card=WORDS)
    supervisor.note_end(EXIT_CARD_LOST, 0.0)
    supervisor.note_end(EXIT_HUNG, 100.5)  # the first has left the window
    assert not said
    supervisor.note_end(EXIT_CARD_LOST, 150.0)
    assert said == ["The service hung or lost its graphics card twice in a short time; it goes on with the CPU."]
    supervisor.note_end(EXIT_HUNG, 151.0)
    assert len(said) == 1
    without = Supervisor(["x"], {}, said.append)
    without.note_end(EXIT_HUNG, 0.0)
    without.note_end(EXIT_HUNG, 1.0)
    assert len(said) == 1


def test_a_child_that_keeps_crashing_is_given_up(tmp_path: Path) -> None:
    code, starts, said = supervise("sys.exit(3)", tmp_path)
    assert (code, starts) == (3, 1 + QUICK.restarts)
    assert "giving up" in said[-1]


def test_bad_settings_are_not_tried_twice(tmp_path: Path) -> None:
    code, starts, _ = supervise(f"sys.exit({EXIT_BAD_SETTINGS})", tmp_path)
    assert (code, starts) == (EXIT_BAD_SETTINGS, 1)


def test_waits_grow_and_old_crashes_are_forgotten() -> None:
    supervisor = Supervisor(["x"], {}, print, Policy(restarts=3, window_seconds=100))
    assert [supervisor.wait_before_restart(now) for now in (0.0, 1.0, 2.0, 3.0)] == [1.0, 2.0, 4.0, None]
    assert supervisor.wait_before_restart(101.5) == 2.0  # of the three, two left the window


_HOST = """
import os, sys
from app.commands.supervisor import Supervisor
sys.exit(Supervisor([sys.executable, "-c", sys.argv[1], sys.argv[2]], dict(os.environ), print).run())
"""


def host(script: str, log: Path) -> subprocess.Popen[bytes]:
    """A supervisor in a process of its own, to be sent signals; returns once its child has started."""
    process = subprocess.Popen([sys.executable, "-c", _HOST, _HEAD + script, str(log)], cwd=ROOT)
    until(lambda: log.exists() and "ready" in log.read_text())
    return process


_READY = """
def say(word):
    with log.open("a") as file: file.write(word + "\\n")
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_child_finish_and_is_no_crash(number: signal.Signals, tmp_path: Path) -> None:
    script = _READY + "signal.signal(15, lambda *_: (say('drained'), sys.exit(0))); say('ready'); time.sleep(60)"
    process = host(script, tmp_path / "log")
    process.send_signal(number)
    assert process.wait(timeout=20) == 0
    assert (tmp_path / "log").read_text().split() == ["start", "ready", "drained"]


def test_a_second_signal_ends_the_child_at_once(tmp_path: Path) -> None:
    script = _READY + "signal.signal(15, lambda *_: say('busy')); say('ready')\nwhile True: time.sleep(60)"
    log = tmp_path / "log"
    process = host(script, log)
    process.terminate()
    until(lambda: "busy" in log.read_text())
    process.terminate()
    assert process.wait(timeout=20) == 128 + signal.SIGKILL


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the parent's death is told by Linux only")
def test_a_killed_supervisor_leaves_no_orphan(tmp_path: Path) -> None:
    script = (
        "from app.commands.supervisor import die_with\n"
        + _READY
        + "die_with(os.getppid()); say(f'pid {os.getpid()}'); say('ready'); time.sleep(60)"
    )
    log = tmp_path / "log"
    process = host(script, log)
    child = int(log.read_text().split("pid ")[1].split()[0])
    process.kill()
    process.wait(timeout=20)
    until(lambda: not Path(f"/proc/{child}").exists() or "Z (" in Path(f"/proc/{child}/status").read_text())
