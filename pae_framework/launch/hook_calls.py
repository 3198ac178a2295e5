"""Calls the life-cycle hooks of a plugin, which can neither stop nor delay a run. No torch."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Mapping
from queue import SimpleQueue
from typing import Any

import pluggy

from pae_framework import hookspecs
from pae_framework.plugin_code import describe
from pae_framework.system.standard_streams import print_to_stderr

logger = logging.getLogger(__name__)

_NEW_STAGE = "new stage"
_Call = tuple[str, Mapping[str, Any]]


class HookCalls:
    """The hooks of one plugin, called in order, in a thread.

    A call that raises is logged, and its hook is not called again before the next stage.
    KeyboardInterrupt stops the run. The thread starts with the first call.

    Args:
        origin: the plugin and its distribution, for messages.
        plugin: a module or an object with implementations of hooks.

    Raises:
        Exception: of pluggy: an implementation takes an argument that its hook does not have.
    """

    def __init__(self, origin: str, plugin: object):
        self._origin = origin
        manager = pluggy.PluginManager(hookspecs.PROJECT)
        manager.add_hookspecs(hookspecs)
        manager.register(plugin)
        self._hooks = manager.hook
        found = {caller.name for caller in manager.get_hookcallers(plugin) or ()}
        self._implemented = found.intersection(hookspecs.LIFE_CYCLE)
        self._disabled: set[str] = set()
        self._calls: SimpleQueue[_Call | threading.Event] = SimpleQueue()
        self._running = ""
        self._returned = 0
        self._late_since: int | None = None
        self._has_ended = False
        self._worker: threading.Thread | None = None

    def implements(self, hook: str) -> bool:
        """Whether the plugin implements a hook."""
        return hook in self._implemented

    def call(self, hook: str, arguments: Mapping[str, Any]) -> None:
        """Call a hook, if the plugin implements it, after those that were called before."""
        if hook in self._implemented:
            self._put((hook, arguments))

    def start_stage(self) -> None:
        """Call again from now on what raised before."""
        if self._worker is not None:
            self._put((_NEW_STAGE, {}))

    def wait(self, seconds: float) -> None:
        """Wait for the calls; say if they take longer. Later waits then do not wait any more."""
        if self._late_since is None and not self._have_ended(seconds):
            self._late_since = self._returned
            logger.warning(
                "%s: %s has not returned after %g s; the run does not wait for it",
                *(self._origin, self._running, seconds),
            )

    def end(self, seconds: float) -> None:
        """Wait a last time, and end the thread; says if calls are left, which are dropped.

        A call that was waited for in vain and still runs is not waited for again.
        """
        hangs = self._late_since == self._returned
        if not self._have_ended(0 if hangs else seconds):
            logger.warning(
                "%s: %s has still not returned; it and later calls of its hooks are dropped",
                *(self._origin, self._running),
            )
        self._has_ended = True
        self._calls.put(threading.Event())

    def _have_ended(self, seconds: float) -> bool:
        if self._worker is None:
            return True
        ended = threading.Event()
        self._calls.put(ended)
        return ended.wait(seconds)

    def _put(self, call: _Call) -> None:
        if self._worker is None:
            self._worker = threading.Thread(target=self._work, name=self._origin, daemon=True)
            self._worker.start()
        self._calls.put(call)

    def _work(self) -> None:
        print_to_stderr()
        while not self._has_ended:
            call = self._calls.get()
            if isinstance(call, threading.Event):
                call.set()
            elif call[0] == _NEW_STAGE:
                self._disabled.clear()
            elif call[0] not in self._disabled:
                self._run(*call)

    def _run(self, hook: str, arguments: Mapping[str, Any]) -> None:
        self._running = hook
        try:
            getattr(self._hooks, hook)(**arguments)
        except KeyboardInterrupt:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        except BaseException as error:
            self._disabled.add(hook)
            logger.warning(
                "%s: %s failed and is not called again in this stage; the run goes on: %s",
                *(self._origin, hook, describe(error)),
            )
        self._returned += 1
