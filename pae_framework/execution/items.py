"""Independent items of work of one stage, shared by its processes."""

from __future__ import annotations

from collections.abc import Callable

from pae_framework.errors import StoppedError
from pae_framework.execution.context import StageContext
from pae_framework.system.stopping import StopRequest


def do_items(
    context: StageContext,
    work: Callable[[int], None],
    items: int,
    what: str,
    show: Callable[[int], None],
) -> None:
    """Do the items 0 to ``items`` - 1; each process takes the next one when it is idle.

    When any process is asked to stop, the items under way are finished and no other is started.
    The main process returns when all items are done, the others when none is left for them.

    Args:
        context: of the stage.
        work: does the item with a number, unless it is done.
        items: number of items.
        what: the items in words, such as ``shards``.
        show: called with the number of items done by all processes.

    Raises:
        StoppedError: in the main process, if not all items were done.
    """
    world = context.world
    shared = world.share(items)
    with StopRequest() as stop:

        def look(done: int) -> None:
            show(done)
            if stop.asked:
                shared.stop()

        if stop.asked:
            shared.stop()
        for item in shared:
            work(item)
            look(shared.done + 1)
        shared.join(look)
    if not world.is_main:
        return
    if (done := shared.done) < items:
        raise StoppedError(f"stopped with {done} of {items} {what}; run the same command to resume")
    if world.size > 1:
        # A network file system may not show yet what another machine has written.
        for item in range(items):
            work(item)
