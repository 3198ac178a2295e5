"""Code of a plugin can neither print on stdout, nor keep a command waiting, nor end it."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
from contextlib import nullcontext
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from pae_framework.errors import PluginError, UsageError
from pae_framework.plugin_code import guarded
from pae_framework.plugins import load_registry
from pae_framework.system.stopping import (
    STOP_SIGNALS,
    Interruption,
    StopRequest,
    interrupted_by,
)
from pae_framework.testing.pytest import run_process

SECONDS = 0.3

# --- output ---------------------------------------------------------------------------------------

PRINTS = {
    "print": "print('noise')",
    "sys": "import sys; sys.stdout.write('noise')",
    "original": "import sys; sys.__stdout__.write('noise'); sys.__stdout__.flush()",
    "descriptor": "import os; os.write(1, b'noise')",
    "process": "import subprocess; subprocess.run(['echo', 'noise'], check=True)",
    "C": "import ctypes; ctypes.CDLL(None).printf(b'noise')",
}


@pytest.mark.parametrize("code", PRINTS.values(), ids=PRINTS)
def test_output_goes_to_stderr(code: str, capfd: pytest.CaptureFixture[str]) -> None:
    with guarded("a plugin"):
        exec(code)
    print("answer")
    printed = capfd.readouterr()
    assert printed.out == "answer\n"
    assert "noise" in printed.err


def test_output_goes_to_stdout_again_after_a_failure(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(PluginError, match="ZeroDivisionError"), guarded("a plugin"):
        1 / 0  # noqa: B018
    os.write(1, b"answer")
    assert capfd.readouterr().out == "answer"


def test_a_closed_stdout_is_no_error() -> None:
    code = (
        "import os, sys; os.close(1)\n"
        "from pae_framework.plugin_code import guarded\n"
        "with guarded('a plugin'): print('noise')\n"
    )
    result = run_process("-c", code, cwd=Path.cwd())
    assert (result.code, result.err.strip()) == (0, "noise")


# --- time -----------------------------------------------------------------------------------------

HANGS = {
    "loop": "while True: pass",
    "sleep": "import time; time.sleep(60)",
    "lock": "import threading; threading.Event().wait()",
    "pipe": "import os; os.read(os.pipe()[0], 1)",
    "regex": "import re; re.match('(a+)+$', 40 * 'a' + 'b')",
    "catches exceptions": (
        "import time\nwhile True:\n    try: time.sleep(60)\n    except Exception: pass"
    ),
}


@pytest.mark.parametrize("code", HANGS.values(), ids=HANGS)
def test_code_that_hangs_is_stopped(code: str) -> None:
    start = time.monotonic()
    with pytest.raises(PluginError, match="did not finish"), guarded("a plugin", SECONDS):
        exec(code)
    assert time.monotonic() - start < 20 * SECONDS


STUBBORN = """
import threading, time
import pae_framework.plugin_code as plugin_code
plugin_code.GRACE_SECONDS = 0.3
def hang():
    with plugin_code.guarded("plugin acme (acme-kit)", 0.3):
        while True:
            try:
                time.sleep(60)
            except BaseException:
                pass
"""


def test_code_that_cannot_be_interrupted_ends_the_process_with_its_name() -> None:
    result = run_process("-c", STUBBORN + "hang()", cwd=Path.cwd())
    assert result.code == PluginError.exit_code
    assert "plugin acme (acme-kit)" in result.err


def test_slow_code_in_another_thread_is_logged_and_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    done: list[bool] = []

    def slow() -> None:
        with guarded("plugin acme (acme-kit)", 0.1):
            time.sleep(0.5)
        done.append(True)

    with caplog.at_level(logging.WARNING):
        thread = threading.Thread(target=slow)
        thread.start()
        thread.join()
    assert done == [True]
    assert "plugin acme (acme-kit)" in caplog.text


def test_the_limit_can_be_raised_not_lowered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAE_PLUGIN_SECONDS", "60")
    with guarded("a plugin", 0.1):
        time.sleep(0.3)
    monkeypatch.setenv("PAE_PLUGIN_SECONDS", "0.01")
    with guarded("a plugin", 60):
        time.sleep(0.1)


@pytest.mark.parametrize("value", ["long", "20 s", "1e"])
def test_a_limit_that_is_no_number_is_named(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAE_PLUGIN_SECONDS", value)
    with pytest.raises(UsageError, match=f"PAE_PLUGIN_SECONDS is '{value}'"), guarded("a plugin"):
        pass


@pytest.mark.parametrize("value", ["inf", "1e300", "nan"])
def test_a_limit_beyond_all_clocks(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAE_PLUGIN_SECONDS", value)
    with guarded("a plugin"):
        pass


def test_built_in_components_have_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[float | None] = []

    def noting(what: str, seconds: float | None) -> Any:
        limits.append(seconds)
        return nullcontext()

    monkeypatch.setattr("pae_framework.plugins.guarded", noting)
    registry = load_registry()
    assert limits
    assert all(plugin.built_in for plugin in registry.plugins)
    assert set(limits) == {None}


def test_an_alarm_that_was_set_before_still_rings() -> None:
    rung: list[int] = []
    handler = signal.signal(signal.SIGALRM, lambda number, frame: rung.append(number))
    left, interval = signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with guarded("a plugin"):
            pass
        time.sleep(0.4)
    finally:
        signal.setitimer(signal.ITIMER_REAL, left, interval)
        signal.signal(signal.SIGALRM, handler)
    assert rung == [signal.SIGALRM]


def test_nothing_is_left_behind() -> None:
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGALRM)
    stdout, threads = sys.stdout, threading.active_count()
    with guarded("a plugin"):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        sys.stdout = None
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGALRM)) == handlers
    assert sys.stdout is stdout
    deadline = time.monotonic() + 5
    while threading.active_count() > threads and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == threads


# --- what it does to the process ------------------------------------------------------------------

FAULTS = {
    "closes stdout": ("import os; os.close(1)", "standard output or error"),
    "closes stderr": ("import os; os.close(2)", "standard output or error"),
    "closes both": ("import os; os.close(1); os.close(2)", "standard output or error"),
    "closes sys.stdout": ("import sys; sys.stdout.close()", "standard output or error"),
    "closes sys.stderr": ("import sys; sys.stderr.close()", "standard output or error"),
    "closes the original": ("import sys; sys.__stdout__.close()", "standard output or error"),
    "closes its buffer": ("import sys; sys.stdout.buffer.close()", "standard output or error"),
    "closes its descriptor": (
        "import os, sys; os.close(sys.stdout.fileno()); sys.stdout.close()",
        "standard output or error",
    ),
    "redirects": (
        "import os; os.dup2(os.open(os.devnull, os.O_WRONLY), 2)",
        "standard output or error",
    ),
    "thread": (
        "import threading, time\n"
        "threading.Thread(target=time.sleep, args=(1e4,), name='ticker').start()",
        "the thread 'ticker'",
    ),
    "fork": ("import os; os.fork()", "forks"),
    "fork that hangs": ("import os\nif not os.fork():\n    while True: pass", "forks"),
    "process of multiprocessing": (
        "import multiprocessing as m, time\n"
        "m.get_context('fork').Process(target=time.sleep, args=(1e4,)).start()",
        "forks",
    ),
    "working directory": ("import os; os.chdir('/')", "working directory"),
    "recursion limit": ("import sys; sys.setrecursionlimit(200)", "recursion limit to 200"),
}
PROGRAM = """
import os, sys
from pae_framework.errors import PluginError
from pae_framework.plugin_code import guarded
from pae_framework.system.contained import end_process
folder = os.getcwd()
try:
    with guarded("a plugin"):
        exec(sys.argv[1])
except PluginError as error:
    print("named:", error, file=sys.stderr)
else:
    print("not named", file=sys.stderr)
assert os.getcwd() == folder
assert sys.getrecursionlimit() == 1000
print("answer")
os.write(2, b"end")
end_process(5)
"""


@pytest.mark.parametrize(("code", "fact"), FAULTS.values(), ids=FAULTS)
def test_what_a_plugin_must_not_do_is_named_and_undone(
    code: str, fact: str, tmp_path: Path
) -> None:
    result = run_process("-c", PROGRAM, code, cwd=tmp_path, timeout=20)
    assert (result.code, result.out) == (5, "answer\n")
    assert result.err.count("named:") == 1
    assert fact in result.err
    assert "Error" not in result.err
    assert result.err.endswith("end")


HARMLESS = {
    "rewrapped": "import io, sys; sys.stdout = io.TextIOWrapper(sys.stdout.buffer, 'utf-8')",
    "rebound": "import os, sys; sys.stdout = open(os.devnull, 'w')",
    "logging": "import logging; logging.basicConfig()",
    "reconfigured": "import sys; sys.stdout.reconfigure(encoding='utf-8', errors='replace')",
    "daemon": (
        "import threading, time\n"
        "threading.Thread(target=time.sleep, args=(1e4,), daemon=True).start()"
    ),
    "short thread": (
        "import threading, time\nthreading.Thread(target=time.sleep, args=(.1,)).start()"
    ),
    "program": "import subprocess; subprocess.run(['true'], check=True)",
    "recursion limit raised": "import sys; sys.setrecursionlimit(1000)",
    "there and back": "import os; here = os.getcwd(); os.chdir('/'); os.chdir(here)",
}


@pytest.mark.parametrize("code", HARMLESS.values(), ids=HARMLESS)
def test_what_a_plugin_may_do(code: str, tmp_path: Path) -> None:
    result = run_process("-c", PROGRAM, code, cwd=tmp_path, timeout=20)
    assert (result.code, result.out, result.err) == (5, "answer\n", "not named\nend")


@pytest.mark.parametrize("fault", ["closes both", "thread", "fork"])
def test_commands_end_with_their_output_once(fault: str, tmp_path: Path) -> None:
    code, fact = FAULTS[fault]
    hook = MODULES["registration"].replace("NAME", "acme")
    (tmp_path / "acme.py").write_text(f"{code}\n{hook}")
    metadata = tmp_path / "acme-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[pae_framework]\nacme = acme\n")
    paths = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
    result = run_process(
        *("-m", "pae_framework", "list-plugins", "--json"),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert result.code == 0, result.err
    plugins = json.loads(result.out)["plugins"]
    errors = [plugin["error"] for plugin in plugins if plugin["name"] == "acme"]
    assert len(errors) == 1
    assert fact in errors[0]


# --- signals --------------------------------------------------------------------------------------


@pytest.mark.parametrize("raised", [KeyboardInterrupt, SystemExit(0), GeneratorExit, StopIteration])
def test_what_a_plugin_raises_stops_nothing(raised: BaseException) -> None:
    with pytest.raises(PluginError), guarded("a plugin"):
        raise raised


SIGNALED = """
import os, signal, time
try:
    os.kill(os.getpid(), SIGNAL)
    time.sleep(60)
except BaseException as error:
    REACTION
"""
REACTIONS = {
    "none": "raise",
    "converts": "raise ValueError('converted') from error",
    "exits": "raise SystemExit(0)",
    "catches": "pass",
    "changes the handler": "signal.signal(SIGNAL, signal.SIG_IGN)",
}
"""What code does when a signal interrupts it."""


@pytest.mark.parametrize("reaction", REACTIONS.values(), ids=REACTIONS)
@pytest.mark.parametrize("sent", STOP_SIGNALS, ids=lambda sent: sent.name)
def test_a_signal_that_stops_the_command_leaves_the_code(
    sent: signal.Signals, reaction: str, capfd: pytest.CaptureFixture[str]
) -> None:
    code = SIGNALED.replace("REACTION", reaction).replace("SIGNAL", str(int(sent)))
    before = signal.getsignal(sent)
    with (
        pytest.raises(Interruption) as stop,
        interrupted_by([sent]),
        guarded("plugin of registration"),
        guarded("plugin acme"),
    ):
        exec(code)
    assert stop.value.number == sent
    assert "stopped in plugin acme" in capfd.readouterr().err
    assert signal.getsignal(sent) == before


def signal_itself(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)
    time.sleep(1)


def test_ctrl_c_still_stops_the_command() -> None:
    with pytest.raises(KeyboardInterrupt), guarded("a plugin"):
        signal_itself(signal.SIGINT)


def test_a_signal_that_comes_twice_stops_once() -> None:
    with interrupted_by(STOP_SIGNALS):
        with pytest.raises(Interruption) as stop, guarded("a plugin"):
            signal_itself(signal.SIGTERM)
        for later in STOP_SIGNALS:
            os.kill(os.getpid(), later)
    assert stop.value.number == signal.SIGTERM


def test_a_signal_that_only_asks_to_stop_interrupts_nothing() -> None:
    with StopRequest() as stop:
        with guarded("a plugin"):
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.number == signal.SIGTERM


@pytest.mark.parametrize(("sent", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGUSR1", 75)])
def test_code_that_catches_the_signal_and_goes_on_ends_with_its_code(sent: str, code: int) -> None:
    stubborn = STUBBORN.replace("0.3):", "60):")
    program = (
        f"{stubborn}import os, signal\n"
        "from pae_framework.system.stopping import interrupted_by\n"
        f"number = signal.{sent}\n"
        "threading.Timer(0.2, os.kill, (os.getpid(), number)).start()\n"
        "with interrupted_by([number]): hang()\n"
    )
    result = run_process("-c", program, cwd=Path.cwd())
    assert (result.code, result.err.strip()) == (code, "stopped in plugin acme (acme-kit)")


# --- every import of a plugin is guarded ----------------------------------------------------------

MODULES = {
    "registration": """
from pae_framework import hookimpl
pae_api = 1
@hookimpl
def pae_register_encoders(register):
    register("x", target="NAME_target:X", config="NAME_config:X", summary="good")
""",
    "config": """
from pae_framework.config import EncoderConfig
class X(EncoderConfig):
    def token_grid(self, image_size): return 2
    def token_width(self): return 4
""",
    "target": """
from pae_framework.contracts import Encoder
class X(Encoder):
    def forward(self, pixels): ...
""",
}
"""The modules of a plugin."""


def load(folder: Path, bad: str, code: str) -> str | None:
    """Load everything of a plugin with more code in one module; returns the error."""
    name = f"acme_{folder.name}"
    for module, source in MODULES.items():
        extra = code if module == bad else ""
        path = folder / f"{name}_{module}.py"
        path.write_text(extra + "\n" + source.replace("NAME", name))
    registry = load_registry([EntryPoint("acme", f"{name}_registration", "pae_framework")])
    if registry.broken:
        return f"plugin acme: {registry.broken[0].error}"
    spec = registry.find("encoder", "x")
    try:
        spec.config_class()
        spec.component_class()
    except PluginError as error:
        return str(error)
    return None


@pytest.mark.parametrize("module", MODULES)
def test_no_module_of_a_plugin_prints_on_stdout(
    module: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    assert load(tmp_path, module, "import os; print('noise'); os.write(1, b'noise')") is None
    printed = capfd.readouterr()
    assert (printed.out, printed.err.count("noise")) == ("", 2)


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize(
    ("code", "fact"),
    [
        ("while True: pass", "did not finish within"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("import sys; sys.exit(0)", "SystemExit: 0"),
    ],
)
def test_every_module_of_a_plugin_is_guarded(
    module: str, code: str, fact: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    for user in ("plugins", "registry"):
        short = lambda what, seconds=SECONDS: guarded(what, SECONDS)  # noqa: E731
        monkeypatch.setattr(f"pae_framework.{user}.guarded", short)
    error = load(tmp_path, module, code)
    assert error is not None
    assert error.startswith("plugin acme")
    assert fact in error
