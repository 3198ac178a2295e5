"""Pictures of latents: rotated and decoded, and their tokens in clusters.

Legend: M images, C latent channels, h = w grid side, N = h * w tokens, D width, S image side.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from sklearn.cluster import KMeans
from torch import Tensor

from pae_framework.data.pixels import to_uint8
from pae_framework.seeding import derive_seed, generator
from pae_framework.tokenizer.rotation import random_tangent, rotate


def rotated_images(
    latents: Tensor, decode: Callable[[Tensor], Tensor], degrees: Sequence[float], seed: int
) -> Tensor:
    """Images (A, M, 3, S, S) uint8 decoded from latents (M, C, h, w) rotated by A angles.

    Every token is rotated by the angle towards a random direction, the same for all angles.
    """
    tangent = random_tangent(latents, generator(seed, "rotated latents"))
    decoded = [decode(rotate(latents, tangent, math.radians(angle))) for angle in degrees]
    return torch.stack([to_uint8(images).cpu() for images in decoded])


def cluster_maps(tokens: Tensor, clusters: int, seed: int) -> Tensor:
    """The cluster (M, h, w) of each token of (M, N, D), by k-means over the tokens of all images.

    Clusters are numbered by size, the largest is 0. Values that are not finite count as 0. There
    are fewer clusters if there are fewer different tokens.
    """
    M, N, D = tokens.shape
    rows = tokens.detach().cpu().double().nan_to_num(0.0, 0.0, 0.0).reshape(M * N, D)
    count = min(clusters, len(rows.unique(dim=0)))
    means = KMeans(count, n_init=4, random_state=derive_seed(seed, "cluster maps") % 2**32)
    found = torch.from_numpy(means.fit_predict(rows.numpy())).long()
    by_size = found.bincount(minlength=count).argsort(descending=True, stable=True)
    side = math.isqrt(N)
    return by_size.argsort()[found].view(M, side, side)
