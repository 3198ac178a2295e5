"""Which errors are the reason of a failure, and which follow from that of another process."""

from __future__ import annotations

import pytest
import torch.distributed as dist

from pae_framework.distributed.failure import (
    Failure,
    LostContactError,
    RankError,
    is_consequence,
)
from pae_framework.errors import PaeError, RunError, UsageError

GLOO = "[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer"


def raised_in(module: str, error: Exception) -> Exception:
    """As raised by code of a module."""
    scope = {"__name__": module, "error": error}
    try:
        exec("raise error", scope)
    except Exception as raised:
        return raised
    raise AssertionError


TORCH = "torch.distributed.distributed_c10d"


def caused(error: Exception, cause: Exception) -> Exception:
    """As a stage names the error of a library."""
    try:
        raise error from cause
    except Exception as raised:
        return raised


@pytest.mark.parametrize(
    "error",
    [
        RankError(Failure(1, "node1", "out of memory")),
        LostContactError("rank 0 cannot be reached"),
        raised_in(TORCH, RuntimeError(GLOO)),
        raised_in("torch.autograd.graph", RuntimeError(GLOO)),
        raised_in(TORCH, RuntimeError("NCCL communicator was aborted on rank 1.")),
        dist.DistBackendError("remote process exited"),
        dist.DistNetworkError("failed to recv, got 0 bytes"),
        caused(
            RunError("stage tokenizer failed: RuntimeError: it broke"),
            raised_in(TORCH, RuntimeError(GLOO)),
        ),
        caused(RunError("outer"), caused(RunError("inner"), raised_in(TORCH, RuntimeError(GLOO)))),
    ],
)
def test_errors_of_communication_follow_from_another_failure(error: Exception) -> None:
    assert is_consequence(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        ValueError("gloo"),
        raised_in("plugin", RuntimeError("download failed: connection refused")),
        raised_in("torch.cuda", RuntimeError("NCCL error: out of memory")),
        FileNotFoundError("weights.safetensors"),
        RunError("at step 7 the term 'fit' is nan"),
        caused(RunError("stage tokenizer failed"), ZeroDivisionError("division by zero")),
        MemoryError(),
    ],
)
def test_other_errors_are_reasons(error: Exception) -> None:
    assert not is_consequence(error)


class OddError(PaeError):
    exit_code = 7


@pytest.mark.parametrize(
    ("error", "message", "code"),
    [
        (RunError("no space left"), "no space left", 1),
        (UsageError("no such option"), "no such option", 2),
        (OddError("odd"), "odd", 7),
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero", 1),
    ],
)
def test_a_failure_has_the_message_and_exit_code_of_its_error(
    error: Exception, message: str, code: int
) -> None:
    failure = Failure.of(error, 3)
    assert (failure.rank, failure.message, failure.exit_code) == (3, message, code)
    told = RankError(failure)
    assert told.exit_code == code
    assert "rank 3" in str(told)
    assert failure.host in str(told)
    assert message in str(told)
