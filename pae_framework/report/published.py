"""Values of PAE (arXiv 2605.07915, ablation) to show beside diagnostics. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_WITH, _WITHOUT = "paper, all three regularizers", "paper, no regularizer"
_VALUES = {"lpc": (0.170, 0.320), "gsq": (0.50, 0.19)}
"""DINOv2, 25 epochs. Not SSC: its sigma is not published, and its masks are COCO's."""
_RHOS = [0.1, 0.5, 1.0, 2.0]


def published_rows(
    key: str, protocol: Mapping[str, Any], classes: int | None
) -> Iterator[tuple[str, float]]:
    """Label and value of each published row of a diagnostic whose protocol is the paper's.

    The paper's images are those of ImageNet at 256 px, which here means: 1000 classes.

    Args:
        key: ``lpc`` or ``gsq``; others have none.
        protocol: of the diagnostic.
        classes: of the test images.
    """
    if key not in _VALUES or classes != 1000 or protocol.get("image_size") != "256 x 256":
        return
    same = {
        "lpc": str(protocol.get("perceptual", "")).startswith("LPIPS")
        and list(protocol.get("rhos", ())) == _RHOS,
        "gsq": protocol.get("classes") == 100,
    }
    if same[key]:
        yield from zip((_WITH, _WITHOUT), _VALUES[key], strict=True)
