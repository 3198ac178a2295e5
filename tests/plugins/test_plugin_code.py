"""Code of a plugin can neither print on stdout, nor keep a command waiting, nor end it."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from pae_framework.errors import PluginError
from pae_framework.plugin_code import guarded
from pae_framework.plugins import load_registry
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


@pytest.mark.parametrize(
    "start", ["hang()", "thread = threading.Thread(target=hang); thread.start(); thread.join()"]
)
def test_code_that_cannot_be_interrupted_ends_the_process_with_its_name(start: str) -> None:
    result = run_process("-c", STUBBORN + start, cwd=Path.cwd())
    assert result.code == PluginError.exit_code
    assert "plugin acme (acme-kit)" in result.err


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


# --- Ctrl-C ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("raised", [KeyboardInterrupt, SystemExit(0), GeneratorExit, StopIteration])
def test_what_a_plugin_raises_stops_nothing(raised: BaseException) -> None:
    with pytest.raises(PluginError), guarded("a plugin"):
        raise raised


def interrupt(convert: bool) -> None:
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)
    except KeyboardInterrupt as error:
        if convert:
            raise ValueError("converted") from error
        raise


@pytest.mark.parametrize("convert", [False, True])
def test_ctrl_c_still_stops_the_command(convert: bool) -> None:
    with pytest.raises(KeyboardInterrupt), guarded("a plugin"):
        interrupt(convert)


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
