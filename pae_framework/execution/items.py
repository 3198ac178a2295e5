"""Independent items of work of one stage, shared by its processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from pae_framework.errors import StoppedError
from pae_framework.execution.context import SharedWork
from pae_framework.system.stopping import StopRequest

Pipeline = Callable[[Iterable[int], Callable[[], bool]], Iterable[int]]
"""``pipeline(items, stopping)`` does the items, several at a time, and yields each that is done.

It takes an item from ``items`` when it has use for it. It drops those that it has not begun when
``stopping()`` is true, and finishes the others."""


def do_items(
    context: SharedWork,
    work: Callable[[int], None],
    items: int,
    what: str,
    show: Callable[[int], None],
) -> None:
    """Do the items 0 to ``items`` - 1, one after the other; else as :func:`pass_items`.

    Args:
        context: of the stage, or of other work that processes share.
        work: does the item with a number, unless it is done.
        items: number of items.
        what: the items in words, such as ``shards``.
        show: called with the number of items done by all processes.

    Raises:
        StoppedError: in the main process, if not all items were done.
    """

    def one_by_one(numbers: Iterable[int], stopping: Callable[[], bool]) -> Iterator[int]:
        for number in numbers:
            work(number)
            yield number

    pass_items(context, one_by_one, items, what, show)


def pass_items(
    context: SharedWork,
    pipeline: Pipeline,
    items: int,
    what: str,
    show: Callable[[int], None],
) -> None:
    """Pass the items 0 to ``items`` - 1 through pipelines; each process takes the next one.

    When any process is asked to stop, the items under way are finished and no other is started.
    The main process returns when all items are done, the others when none is left for them.

    Args:
        context: of the stage, or of other work that processes share.
        pipeline: that of this process; an item that is done already, it only yields.
        items: number of items.
        what: the items in words, such as ``shards``.
        show: called with the number of items done by all processes.

    Raises:
        StoppedError: in the main process, if not all items were done.
    """
    world = context.world
    shared = world.share(items)
    with StopRequest(f"the {what} in progress" if world.is_main else "") as stop:

        def stopping() -> bool:
            if stop.asked:
                shared.stop()
            return shared.stopped

        def look(done: int) -> None:
            show(done)
            stopping()

        stopping()
        for _ in pipeline(shared, stopping):
            shared.finish()
            look(shared.done)
        shared.join(look)
    if not world.is_main:
        return
    if (done := shared.done) < items:
        raise StoppedError(f"stopped with {done} of {items} {what} saved", stop.number)
    if world.size > 1:
        # A network file system may not show yet what another machine has written.
        for _ in pipeline(range(items), lambda: False):
            pass
