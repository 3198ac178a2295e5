"""Pretrained vision transformers by family: their names, sizes and tags. No torch, no timm.

The names are timm's (1.0.31). SigLIP2 models also have open-clip's names (3.3). A test compares the
whole table with the networks that both libraries build.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches


@dataclass(frozen=True)
class Form:
    """Size and features of a network.

    ``mlp`` is the hidden width of the MLP. ``grid`` is the number of tokens per side of its learned
    positions; 0 means rotary positions, for any grid. ``biases`` is the number of biases among
    query, key and value; 2 means that the key has none.
    """

    patch: int
    width: int
    depth: int
    heads: int
    mlp: int
    grid: int
    registers: int = 0
    biases: int = 3
    gated: bool = False
    class_token: bool = True
    layer_scale: bool = False
    mask_token: bool = False
    attention_pool: bool = False

    @property
    def prefix(self) -> int:
        """Number of class and register tokens, which come before the patch tokens."""
        return self.class_token + self.registers

    @property
    def class_position(self) -> bool:
        """Whether the class token has a learned position."""
        return self.class_token and self.grid > 0

    def parameters(self) -> int:
        """Number of parameters, without the affine part of the last norm."""
        width, hidden = self.width, self.mlp
        plain = 2 * width * hidden + hidden + width
        mlp = plain + self.gated * (width * hidden + hidden)
        attention = 4 * width**2 + (self.biases + 1) * width
        block = 4 * width + attention + mlp + 2 * self.layer_scale * width
        tokens = self.grid**2 + self.prefix + self.class_position + self.mask_token
        pool = self.attention_pool * (4 * width**2 + 7 * width + plain)
        embedding = (3 * self.patch**2 + 1) * width
        return embedding + tokens * width + self.depth * block + pool


@dataclass(frozen=True)
class Variant:
    """A model: timm's name, its form, and the tags of its weights."""

    name: str
    form: Form
    tags: tuple[str, ...]

    def hub_name(self, tag: str | None) -> str:
        """``name.tag``, as timm and the hub write it; ``name`` without a tag."""
        return self.name if tag is None else f"{self.name}.{tag}"


@dataclass(frozen=True)
class Family:
    """The models of one encoder. ``aliases`` maps other names to timm's."""

    use: str
    variants: Mapping[str, Variant]
    aliases: Mapping[str, str]

    def find(self, model: str) -> tuple[Variant, str | None]:
        """The variant a recipe's ``model`` names, and the tag after a dot, if there is one.

        Raises:
            ValueError: there is no such model or tag; lists the known ones.
        """
        name, _, tag = model.partition(".")
        variant = self.variants.get(self.aliases.get(name, name))
        if variant is None:
            raise ValueError(self._unknown(name))
        if tag and tag not in variant.tags:
            raise ValueError(
                f"{name!r} has no weights {tag!r}; its tags: {', '.join(variant.tags)}"
            )
        return variant, tag or None

    @property
    def model_names(self) -> tuple[str, ...]:
        """Every name a recipe may use."""
        return (*self.aliases, *self.variants)

    def _unknown(self, name: str) -> str:
        for other in FAMILIES:
            if other is not self and name in other.model_names:
                return f"{name!r} is a {other.use} model, not {self.use}; set use: {other.use}"
        lower = {known.lower(): known for known in self.model_names}
        near = get_close_matches(name.lower(), lower, n=1, cutoff=0.5)
        hint = f"; did you mean {lower[near[0]]!r}?" if near else "."
        return f"unknown {self.use} model {name!r}{hint} Models: {', '.join(self.model_names)}"


def _variants(*variants: Variant) -> dict[str, Variant]:
    return {variant.name: variant for variant in variants}


# --- DINOv2: Oquab et al. 2304.07193; registers: Darcet et al. 2309.16588 -------------------------

_DINOV2 = Form(14, 384, 12, 6, 1536, grid=37, layer_scale=True, mask_token=True)
_DINOV2_SIZES = {
    "small": _DINOV2,
    "base": replace(_DINOV2, width=768, heads=12, mlp=3072),
    "large": replace(_DINOV2, width=1024, depth=24, heads=16, mlp=4096),
    "giant": replace(_DINOV2, width=1536, depth=40, heads=24, mlp=4096, gated=True),
}

DINOV2 = Family(
    "dinov2",
    _variants(
        *(
            Variant(f"vit_{size}_patch14{mark}_dinov2", replace(form, registers=r), ("lvd142m",))
            for mark, r in (("_reg4", 4), ("", 0))
            for size, form in _DINOV2_SIZES.items()
        )
    ),
    aliases={},
)

# --- DINOv3: Simeoni et al. 2508.10104 ------------------------------------------------------------
# timm has each size twice: without biases, because the published ones are zero, and with biases
# (`_qkvb`). Here both have biases, which stay zero if a file has none. The 7B model has none.

_DINOV3 = Form(
    16, 384, 12, 6, 1536, grid=0, registers=4, biases=2, layer_scale=True, mask_token=True
)
_DINOV3_SIZES = {
    "small": _DINOV3,
    "small_plus": replace(_DINOV3, gated=True),
    "base": replace(_DINOV3, width=768, heads=12, mlp=3072),
    "large": replace(_DINOV3, width=1024, depth=24, heads=16, mlp=4096),
    "huge_plus": replace(_DINOV3, width=1280, depth=32, heads=20, mlp=5120, gated=True),
}
_DINOV3_TINY = replace(_DINOV3, width=192, heads=3, mlp=768)
_DINOV3_7B = replace(_DINOV3, width=4096, depth=40, heads=32, mlp=8192, gated=True, biases=0)


def _dinov3_tags(size: str, mark: str) -> tuple[str, ...]:
    satellite = ("sat493m",) if size == "large" else ()
    distilled = ("eupe_lvd1689m",) if mark and size in ("small", "base") else ()
    return ("lvd1689m", *satellite, *distilled)


DINOV3 = Family(
    "dinov3",
    _variants(
        *(
            Variant(f"vit_{size}_patch16_dinov3{mark}", form, _dinov3_tags(size, mark))
            for mark in ("", "_qkvb")
            for size, form in _DINOV3_SIZES.items()
        ),
        Variant("vit_tiny_patch16_dinov3_qkvb", _DINOV3_TINY, ("eupe_lvd1689m",)),
        Variant("vit_7b_patch16_dinov3", _DINOV3_7B, ("lvd1689m", "sat493m")),
    ),
    aliases={},
)

# --- MAE: He et al. 2111.06377 --------------------------------------------------------------------

MAE = Family(
    "mae",
    _variants(
        Variant("vit_base_patch16_224", Form(16, 768, 12, 12, 3072, grid=14), ("mae",)),
        Variant("vit_large_patch16_224", Form(16, 1024, 24, 16, 4096, grid=14), ("mae",)),
        Variant("vit_huge_patch14_224", Form(14, 1280, 32, 16, 5120, grid=16), ("mae",)),
    ),
    aliases={},
)

# --- SigLIP2: Tschannen et al. 2502.14786 ---------------------------------------------------------

_SIGLIP_BASE = Form(16, 768, 12, 12, 3072, grid=0, class_token=False, attention_pool=True)
_SIGLIP_LARGE = replace(_SIGLIP_BASE, width=1024, depth=24, heads=16, mlp=4096)
_SIGLIP_SO400M = replace(_SIGLIP_BASE, width=1152, depth=27, heads=16, mlp=4304)
_SIGLIP_GIANT = replace(_SIGLIP_BASE, width=1536, depth=40, heads=16, mlp=6144)

_SIGLIP2_SIZES = (
    # open-clip's name, timm's, form, patch, side of its images in px
    ("SO400M", "so400m", _SIGLIP_SO400M, 16, (256, 384, 512)),
    ("SO400M", "so400m", _SIGLIP_SO400M, 14, (224, 378)),
    ("gopt", "giantopt", _SIGLIP_GIANT, 16, (256, 384)),
    ("L", "large", _SIGLIP_LARGE, 16, (256, 384, 512)),
    ("B", "base", _SIGLIP_BASE, 16, (224, 256, 384, 512)),
    ("B", "base", _SIGLIP_BASE, 32, (256,)),
)
_SIGLIP2 = tuple(
    (
        # open-clip leaves the size out of its name where it is 224.
        f"ViT-{short}-{patch}-SigLIP2" + (f"-{side}" if side != 224 else ""),
        Variant(
            f"vit_{size}_patch{patch}_siglip_{side}",
            replace(form, patch=patch, grid=side // patch),
            ("v2_webli",),
        ),
    )
    for short, size, form, patch, sides in _SIGLIP2_SIZES
    for side in sides
)

SIGLIP2 = Family(
    "siglip2",
    _variants(*(variant for _, variant in _SIGLIP2)),
    aliases={alias: variant.name for alias, variant in _SIGLIP2},
)

FAMILIES = (DINOV2, DINOV3, MAE, SIGLIP2)
