"""Run one stage in this process, and explain what goes wrong in it."""

from __future__ import annotations

from traceback import walk_tb
from typing import TYPE_CHECKING

from pae_framework.errors import PaeError, PluginError, RunError
from pae_framework.preflight.machine import memory_advice
from pae_framework.recipe.nodes import dotted
from pae_framework.recipe.stage_table import STAGES
from pae_framework.system.file_errors import describe_system_error

if TYPE_CHECKING:
    from pae_framework.execution.context import StageContext
    from pae_framework.registry import Registry


def run_stage(context: StageContext) -> None:
    """Run the stage of a context.

    The main process also records the stage's images and checks that they do not change.

    Raises:
        PaeError: the stage failed; any other error becomes one that says where.
    """
    from pae_framework.execution.context import configure_torch
    from pae_framework.execution.stage_data import recorded_images

    name = context.planned.name
    configure_torch(context.recipe.runtime, context.world.local_size)
    context.update_record(machine=context.machine)
    try:
        with recorded_images(context):
            STAGES[name].function()(context)
    except PaeError:
        raise
    except (Exception, SystemExit) as error:
        if (place := _place_in_plugin(error, context.registry)) is not None:
            reason = _described(error, context)
            raise PluginError(f"stage {name} failed in {place}: {reason}") from error
        raise RunError(f"stage {name} failed: {_explanation(error, context)}") from error


def _explanation(error: BaseException, context: StageContext) -> str:
    from pae_framework.data.read_ahead import worker_death

    if isinstance(error, OSError):
        return f"{describe_system_error(error)} (folder {context.directory})"
    if (death := worker_death(error)) is not None:
        name = context.planned.name
        settings = dotted(STAGES[name].train_path or (name,))
        advice = memory_advice(f"{settings}.workers or {settings}.batch_size")
        return f"{death}, {advice}, then run it again to resume"
    return _described(error, context)


def _described(error: BaseException, context: StageContext) -> str:
    return (
        f"{type(error).__name__}: {error} "
        f"(folder {context.directory}; `--debug` shows the traceback)"
    )


def _place_in_plugin(error: BaseException, registry: Registry) -> str | None:
    """The plugin, file and line that raised the error or called the library that raised it.

    None if the framework's own code did.
    """
    for frame, line in reversed(list(walk_tb(error.__traceback__))):
        module = str(frame.f_globals.get("__name__", ""))
        spec = registry.owner(module)
        if spec is not None and not spec.built_in:
            return f"{spec.origin}, {frame.f_code.co_filename}:{line}"
        if spec is not None or module.partition(".")[0] == "pae_framework":
            return None
    return None
