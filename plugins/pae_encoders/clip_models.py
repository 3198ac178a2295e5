"""CLIP's image towers by open-clip's names (3.3): sizes, and tags of weights. No torch.

Towers of timm's are in :mod:`pae_encoders.clip_timm_models`.

A test compares the tables with the networks and the tags of open-clip.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from pae_encoders.clip_timm_models import TIMM_FORMS, TIMM_WEIGHTS
from pae_encoders.families import Family, Form, Variant

Statistics = tuple[tuple[float, float, float], tuple[float, float, float]]

_QUERIES = 256
"""Tokens of CoCa's attention pooling."""


@dataclass(frozen=True)
class ClipForm(Form):
    """Size of a CLIP image tower. The class token is among the positions.

    ``embedding`` is the width of the features that are compared with text. ``quick_gelu`` is
    OpenAI's activation. ``pool`` says how the features are pooled: the class token (``tok``), the
    mean of the tokens before the last norm (``avg``), or CoCa's attention (``attention``).
    ``first_norm`` is a norm before the first block.
    """

    embedding: int = 512
    quick_gelu: bool = False
    pool: str = "tok"
    first_norm: bool = True

    def parameters(self) -> int:
        """Number of parameters."""
        width, out = self.width, self.embedding
        block = 4 * width**2 + 2 * width * self.mlp + self.mlp + 9 * width
        block += 2 * self.layer_scale * width
        embedding = 3 * self.patch**2 * width + (self.grid**2 + 2) * width
        attention = self.pool == "attention"
        pooled = out if attention else width
        pool = attention * ((_QUERIES + 2 * out + 2 * width + 6) * out + 2 * width)
        norms = 2 * self.first_norm * width + 2 * pooled
        return embedding + self.depth * block + norms + pooled * out + pool


@dataclass(frozen=True)
class ResNetForm(Form):
    """Size of a CLIP ResNet. ``width`` is that of stage 4, ``blocks`` counts by stage.

    ``grid`` is that of the attention pooling's positions, ``embedding`` the width of its output.
    """

    blocks: tuple[int, ...] = ()
    embedding: int = 1024

    @property
    def stem(self) -> int:
        """Channels of the stem."""
        return self.width // 32

    def parameters(self) -> int:
        """Number of parameters."""
        width, stem, half = self.width, self.stem, self.stem // 2
        total = 29 * half + 9 * half**2 + 2 * half + 9 * half * stem + 2 * stem
        before = stem
        for stage, blocks in enumerate(self.blocks):
            inner = stem << stage
            total += 4 * inner * before + 8 * inner  # the shortcut of the first block
            for _ in range(blocks):
                total += inner * before + 13 * inner**2 + 12 * inner
                before = 4 * inner
        positions = (self.grid**2 + 1) * width
        return total + positions + 3 * (width + 1) * width + (width + 1) * self.embedding

    def activations(self, side: int) -> int:
        """For images of ``side`` px, 12 numbers for each inner channel and place of each block."""
        stages = enumerate(self.blocks)
        return sum(12 * n * (self.stem << i) * (side // (4 << i)) ** 2 for i, n in stages)


@dataclass(frozen=True)
class ClipWeights:
    """A tag: its repository on the hub, and what the network needs to know of its training.

    ``file`` is the name of its file; None: one of open-clip's names.
    """

    repository: str
    file: str | None
    quick_gelu: bool
    statistics: str


@dataclass(frozen=True)
class ClipVariant(Variant):
    """A model and its weights by tag."""

    weights: tuple[ClipWeights, ...] = ()

    def of(self, tag: str) -> ClipWeights:
        """The weights with a tag, which is one of the model's."""
        return self.weights[self.tags.index(tag)]


STATISTICS: dict[str, Statistics] = {
    "openai": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "unit": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}
"""Channel means and deviations of the images that weights were trained with."""

_B = ClipForm(32, 768, 12, 12, 3072, grid=7)
_B16 = replace(_B, patch=16, grid=14)
_PLUS = replace(_B16, width=896, heads=14, mlp=3584, embedding=640)
_S = replace(_B16, width=384, heads=6, mlp=1536, embedding=384)
_M = replace(_B16, width=512, heads=8, mlp=2048)
_L = ClipForm(14, 1024, 24, 16, 4096, grid=16, embedding=768)
_H = ClipForm(14, 1280, 32, 16, 5120, grid=16, embedding=1024)
_SMALL_G = ClipForm(14, 1408, 40, 16, 6144, grid=16, embedding=1024)
_BIG_G = ClipForm(14, 1664, 48, 16, 8192, grid=16, embedding=1280)
_E = ClipForm(14, 1792, 56, 16, 15360, grid=16, embedding=1280)


def _averaged(form: ClipForm) -> ClipForm:
    """CLIPA: no norm before the blocks, and the mean of the tokens."""
    return replace(form, pool="avg", first_norm=False)


_FORMS: dict[str, ClipForm] = {
    "ViT-B-32": _B,
    "ViT-B-32-256": replace(_B, grid=8),
    "ViT-B-32-plus-256": replace(_PLUS, patch=32, grid=8),
    "ViT-B-16": _B16,
    "ViT-B-16-plus": _PLUS,
    "ViT-B-16-plus-240": replace(_PLUS, grid=15),
    "ViT-L-14": _L,
    "ViT-L-14-280": replace(_L, grid=20),
    "ViT-L-14-336": replace(_L, grid=24),
    "ViT-L-14-worldwide": _L,
    "ViT-L-14-CLIPA": _averaged(_L),
    "ViT-L-14-CLIPA-336": _averaged(replace(_L, grid=24)),
    "ViT-L-16": replace(_L, patch=16, grid=14),
    "ViT-L-16-320": replace(_L, patch=16, grid=20),
    "ViT-H-14": _H,
    "ViT-H-14-378": replace(_H, grid=27),
    "ViT-H-14-worldwide": _H,
    "ViT-H-14-worldwide-378": replace(_H, grid=27),
    "ViT-H-14-CLIPA": _averaged(_H),
    "ViT-H-14-CLIPA-336": _averaged(replace(_H, grid=24)),
    "ViT-H-16": replace(_H, patch=16, grid=14),
    "ViT-g-14": _SMALL_G,
    "ViT-bigG-14": _BIG_G,
    "ViT-bigG-14-worldwide": _BIG_G,
    "ViT-bigG-14-worldwide-378": replace(_BIG_G, grid=27),
    "ViT-bigG-14-CLIPA": _averaged(_BIG_G),
    "ViT-bigG-14-CLIPA-336": _averaged(replace(_BIG_G, grid=24)),
    "ViT-e-14": _E,
    "ViT-S-32": replace(_S, patch=32, grid=7),
    "ViT-S-32-alt": replace(_S, patch=32, grid=7, embedding=256),
    "ViT-S-16": _S,
    "ViT-S-16-alt": replace(_S, embedding=256),
    "ViT-M-32": replace(_M, patch=32, grid=7),
    "ViT-M-32-alt": replace(_M, patch=32, grid=7, embedding=384),
    "ViT-M-16": _M,
    "ViT-M-16-alt": replace(_M, embedding=384, layer_scale=True),
    "coca_base": replace(_B, patch=18, grid=16),
    "coca_ViT-B-32": replace(_B, pool="attention"),
    "coca_ViT-L-14": replace(_L, pool="attention"),
    "coca_roberta-ViT-B-32": _B,
    "roberta-ViT-B-32": replace(_B, quick_gelu=True),
    "xlm-roberta-base-ViT-B-32": _B,
    "xlm-roberta-large-ViT-H-14": _H,
    "mt5-base-ViT-B-32": _B,
    "mt5-xl-ViT-H-14": _H,
    "nllb-clip-base": _B,
    "nllb-clip-large": _H,
}
_WITH_QUICK_GELU = (
    *("ViT-B-32", "ViT-B-16", "ViT-L-14", "ViT-L-14-336", "ViT-L-14-worldwide", "ViT-H-14"),
    *("ViT-H-14-378", "ViT-H-14-worldwide", "ViT-bigG-14"),
)
"""Models that open-clip also has by a name with ``-quickgelu``."""


def _resnet(stem: int, grid: int, embedding: int, *blocks: int) -> ResNetForm:
    width = 32 * stem
    return ResNetForm(
        patch=32,
        width=width,
        depth=len(blocks),
        heads=width // 64,
        mlp=0,
        grid=grid,
        class_token=False,
        blocks=blocks,
        embedding=embedding,
    )


_RESNETS: dict[str, ResNetForm] = {
    "RN50": _resnet(64, 7, 1024, 3, 4, 6, 3),
    "RN50x4": _resnet(80, 9, 640, 4, 6, 10, 6),
    "RN50x16": _resnet(96, 12, 768, 6, 8, 18, 8),
    "RN50x64": _resnet(128, 14, 1024, 3, 15, 36, 10),
    "RN101": _resnet(64, 7, 512, 3, 4, 23, 3),
}

_WEIGHTS = """
coca_ViT-B-32 laion2b_s13b_b90k laion/CoCa-ViT-B-32-laion2B-s13B-b90k
coca_ViT-B-32 mscoco_finetuned_laion2b_s13b_b90k laion/mscoco_finetuned_CoCa-ViT-B-32-laion2B-s13B-b90k
coca_ViT-L-14 laion2b_s13b_b90k laion/CoCa-ViT-L-14-laion2B-s13B-b90k
coca_ViT-L-14 mscoco_finetuned_laion2b_s13b_b90k laion/mscoco_finetuned_CoCa-ViT-L-14-laion2B-s13B-b90k
nllb-clip-base v1 visheratin/nllb-clip-base-oc
nllb-clip-large v1 visheratin/nllb-clip-large-oc
roberta-ViT-B-32 laion2b_s12b_b32k laion/CLIP-ViT-B-32-roberta-base-laion2B-s12B-b32k
RN50 openai timm/resnet50_clip.openai quick_gelu
RN50 yfcc15m timm/resnet50_clip.yfcc15m quick_gelu
RN50 cc12m timm/resnet50_clip.cc12m quick_gelu
RN50x4 openai timm/resnet50x4_clip.openai quick_gelu
RN50x16 openai timm/resnet50x16_clip.openai quick_gelu
RN50x64 openai timm/resnet50x64_clip.openai quick_gelu
RN101 openai timm/resnet101_clip.openai quick_gelu
RN101 yfcc15m timm/resnet101_clip.yfcc15m quick_gelu
ViT-B-16 openai timm/vit_base_patch16_clip_224.openai quick_gelu
ViT-B-16 laion400m_e31 timm/vit_base_patch16_clip_224.laion400m_e31
ViT-B-16 laion400m_e32 timm/vit_base_patch16_clip_224.laion400m_e32
ViT-B-16 laion2b_s34b_b88k laion/CLIP-ViT-B-16-laion2B-s34B-b88K
ViT-B-16 datacomp_xl_s13b_b90k laion/CLIP-ViT-B-16-DataComp.XL-s13B-b90K
ViT-B-16 datacomp_l_s1b_b8k laion/CLIP-ViT-B-16-DataComp.L-s1B-b8K
ViT-B-16 commonpool_l_clip_s1b_b8k laion/CLIP-ViT-B-16-CommonPool.L.clip-s1B-b8K
ViT-B-16 commonpool_l_laion_s1b_b8k laion/CLIP-ViT-B-16-CommonPool.L.laion-s1B-b8K
ViT-B-16 commonpool_l_image_s1b_b8k laion/CLIP-ViT-B-16-CommonPool.L.image-s1B-b8K
ViT-B-16 commonpool_l_text_s1b_b8k laion/CLIP-ViT-B-16-CommonPool.L.text-s1B-b8K
ViT-B-16 commonpool_l_basic_s1b_b8k laion/CLIP-ViT-B-16-CommonPool.L.basic-s1B-b8K
ViT-B-16 commonpool_l_s1b_b8k laion/CLIP-ViT-B-16-CommonPool.L-s1B-b8K
ViT-B-16 dfn2b apple/DFN2B-CLIP-ViT-B-16 quick_gelu
ViT-B-16 metaclip_400m timm/vit_base_patch16_clip_224.metaclip_400m quick_gelu
ViT-B-16 metaclip_fullcc timm/vit_base_patch16_clip_224.metaclip_2pt5b quick_gelu
ViT-B-16-plus-240 laion400m_e31 timm/vit_base_patch16_plus_clip_240.laion400m_e31
ViT-B-16-plus-240 laion400m_e32 timm/vit_base_patch16_plus_clip_240.laion400m_e31
ViT-B-32 openai timm/vit_base_patch32_clip_224.openai quick_gelu
ViT-B-32 laion400m_e31 timm/vit_base_patch32_clip_224.laion400m_e31 quick_gelu
ViT-B-32 laion400m_e32 timm/vit_base_patch32_clip_224.laion400m_e32 quick_gelu
ViT-B-32 laion2b_e16 timm/vit_base_patch32_clip_224.laion2b_e16
ViT-B-32 laion2b_s34b_b79k laion/CLIP-ViT-B-32-laion2B-s34B-b79K
ViT-B-32 datacomp_xl_s13b_b90k laion/CLIP-ViT-B-32-DataComp.XL-s13B-b90K
ViT-B-32 datacomp_m_s128m_b4k laion/CLIP-ViT-B-32-DataComp.M-s128M-b4K
ViT-B-32 commonpool_m_clip_s128m_b4k laion/CLIP-ViT-B-32-CommonPool.M.clip-s128M-b4K
ViT-B-32 commonpool_m_laion_s128m_b4k laion/CLIP-ViT-B-32-CommonPool.M.laion-s128M-b4K
ViT-B-32 commonpool_m_image_s128m_b4k laion/CLIP-ViT-B-32-CommonPool.M.image-s128M-b4K
ViT-B-32 commonpool_m_text_s128m_b4k laion/CLIP-ViT-B-32-CommonPool.M.text-s128M-b4K
ViT-B-32 commonpool_m_basic_s128m_b4k laion/CLIP-ViT-B-32-CommonPool.M.basic-s128M-b4K
ViT-B-32 commonpool_m_s128m_b4k laion/CLIP-ViT-B-32-CommonPool.M-s128M-b4K
ViT-B-32 datacomp_s_s13m_b4k laion/CLIP-ViT-B-32-DataComp.S-s13M-b4K
ViT-B-32 commonpool_s_clip_s13m_b4k laion/CLIP-ViT-B-32-CommonPool.S.clip-s13M-b4K
ViT-B-32 commonpool_s_laion_s13m_b4k laion/CLIP-ViT-B-32-CommonPool.S.laion-s13M-b4K
ViT-B-32 commonpool_s_image_s13m_b4k laion/CLIP-ViT-B-32-CommonPool.S.image-s13M-b4K
ViT-B-32 commonpool_s_text_s13m_b4k laion/CLIP-ViT-B-32-CommonPool.S.text-s13M-b4K
ViT-B-32 commonpool_s_basic_s13m_b4k laion/CLIP-ViT-B-32-CommonPool.S.basic-s13M-b4K
ViT-B-32 commonpool_s_s13m_b4k laion/CLIP-ViT-B-32-CommonPool.S-s13M-b4K
ViT-B-32 metaclip_400m timm/vit_base_patch32_clip_224.metaclip_400m quick_gelu
ViT-B-32 metaclip_fullcc timm/vit_base_patch32_clip_224.metaclip_2pt5b quick_gelu
ViT-B-32-256 datacomp_s34b_b86k laion/CLIP-ViT-B-32-256x256-DataComp-s34B-b86K
ViT-bigG-14 laion2b_s39b_b160k laion/CLIP-ViT-bigG-14-laion2B-39B-b160k
ViT-bigG-14 metaclip_fullcc timm/vit_gigantic_patch14_clip_224.metaclip_2pt5b quick_gelu
ViT-bigG-14-CLIPA datacomp1b UCSC-VLAA/ViT-bigG-14-CLIPA-datacomp1B imagenet
ViT-bigG-14-CLIPA-336 datacomp1b UCSC-VLAA/ViT-bigG-14-CLIPA-336-datacomp1B imagenet
ViT-bigG-14-worldwide metaclip2_worldwide timm/vit_gigantic_patch14_clip_224.metaclip2_worldwide
ViT-bigG-14-worldwide-378 metaclip2_worldwide timm/vit_gigantic_patch14_clip_378.metaclip2_worldwide
ViT-g-14 laion2b_s12b_b42k laion/CLIP-ViT-g-14-laion2B-s12B-b42K
ViT-g-14 laion2b_s34b_b88k laion/CLIP-ViT-g-14-laion2B-s34B-b88K
ViT-H-14 laion2b_s32b_b79k laion/CLIP-ViT-H-14-laion2B-s32B-b79K
ViT-H-14 metaclip_fullcc timm/vit_huge_patch14_clip_224.metaclip_2pt5b quick_gelu
ViT-H-14 metaclip_altogether timm/vit_huge_patch14_clip_224.metaclip_altogether
ViT-H-14 dfn5b apple/DFN5B-CLIP-ViT-H-14 quick_gelu
ViT-H-14-378 dfn5b apple/DFN5B-CLIP-ViT-H-14-378 quick_gelu
ViT-H-14-CLIPA datacomp1b UCSC-VLAA/ViT-H-14-CLIPA-datacomp1B imagenet
ViT-H-14-CLIPA-336 laion2b UCSC-VLAA/ViT-H-14-CLIPA-336-laion2B imagenet
ViT-H-14-CLIPA-336 datacomp1b UCSC-VLAA/ViT-H-14-CLIPA-336-datacomp1B imagenet
ViT-H-14-worldwide metaclip2_worldwide timm/vit_huge_patch14_clip_224.metaclip2_worldwide quick_gelu
ViT-H-14-worldwide-378 metaclip2_worldwide timm/vit_huge_patch14_clip_378.metaclip2_worldwide
ViT-L-14 openai timm/vit_large_patch14_clip_224.openai quick_gelu
ViT-L-14 laion400m_e31 timm/vit_large_patch14_clip_224.laion400m_e31
ViT-L-14 laion400m_e32 timm/vit_large_patch14_clip_224.laion400m_e32
ViT-L-14 laion2b_s32b_b82k laion/CLIP-ViT-L-14-laion2B-s32B-b82K half
ViT-L-14 datacomp_xl_s13b_b90k laion/CLIP-ViT-L-14-DataComp.XL-s13B-b90K
ViT-L-14 commonpool_xl_clip_s13b_b90k laion/CLIP-ViT-L-14-CommonPool.XL.clip-s13B-b90K
ViT-L-14 commonpool_xl_laion_s13b_b90k laion/CLIP-ViT-L-14-CommonPool.XL.laion-s13B-b90K
ViT-L-14 commonpool_xl_s13b_b90k laion/CLIP-ViT-L-14-CommonPool.XL-s13B-b90K
ViT-L-14 metaclip_400m timm/vit_large_patch14_clip_224.metaclip_400m quick_gelu
ViT-L-14 metaclip_fullcc timm/vit_large_patch14_clip_224.metaclip_2pt5b quick_gelu
ViT-L-14 dfn2b apple/DFN2B-CLIP-ViT-L-14 quick_gelu
ViT-L-14 dfn2b_s39b apple/DFN2B-CLIP-ViT-L-14-39B
ViT-L-14-336 openai timm/vit_large_patch14_clip_336.openai quick_gelu
ViT-L-14-CLIPA datacomp1b UCSC-VLAA/ViT-L-14-CLIPA-datacomp1B imagenet
ViT-L-14-CLIPA-336 datacomp1b UCSC-VLAA/ViT-L-14-CLIPA-336-datacomp1B imagenet
xlm-roberta-base-ViT-B-32 laion5b_s13b_b90k laion/CLIP-ViT-B-32-xlm-roberta-base-laion5B-s13B-b90k
xlm-roberta-large-ViT-H-14 frozen_laion5b_s13b_b90k laion/CLIP-ViT-H-14-frozen-xlm-roberta-large-laion5B-s13B-b90k
"""  # noqa: E501
"""Model, tag, repository, and what differs: the activation, the statistics of images."""


def _rows() -> Iterator[tuple[str, str, ClipWeights]]:
    for row in (_WEIGHTS + TIMM_WEIGHTS).split("\n"):
        if not row:
            continue
        model, tag, place, *marks = row.split()
        owner, name, *file = place.split("/")
        quick_gelu = "quick_gelu" in marks
        statistics = next((mark for mark in marks if mark in STATISTICS), "openai")
        found = ClipWeights(f"{owner}/{name}", next(iter(file), None), quick_gelu, statistics)
        yield model, tag, found


def _variants() -> Iterator[ClipVariant]:
    for name, form in {**_FORMS, **TIMM_FORMS}.items():
        found = {tag: weights for model, tag, weights in _rows() if model == name}
        yield ClipVariant(name, form, tuple(found), tuple(found.values()))
        if name in _WITH_QUICK_GELU:
            quick = {tag: weights for tag, weights in found.items() if weights.quick_gelu}
            own = replace(_FORMS[name], quick_gelu=True)
            yield ClipVariant(f"{name}-quickgelu", own, tuple(quick), tuple(quick.values()))
    for name, resnet in _RESNETS.items():
        found = {tag: weights for model, tag, weights in _rows() if model == name}
        for mark in ("", "-quickgelu"):  # the activation is only that of the text tower
            yield ClipVariant(f"{name}{mark}", resnet, tuple(found), tuple(found.values()))


CLIP = Family("clip", {variant.name: variant for variant in _variants()}, aliases={})
