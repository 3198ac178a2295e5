"""CLIP's image towers that open-clip (3.3) builds around a network of timm's. No torch.

A test compares the tables with the networks and the tags of open-clip.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, get_args

from pae_encoders.families import Form

Kind = Literal["vit", "rope", "hybrid", "stages", "fixed"]
"""How a network makes tokens, and for which inputs.

``vit``: a ViT, which can be built at any size; ``rope``: one with rotary positions. ``hybrid``: a
ViT on a convolutional stem. ``stages``: convolutions, whose last map is the tokens. ``fixed``: a
network with relative positions, for its own grid only. The others take any multiple of the patch.
"""


@dataclass(frozen=True)
class TimmForm(Form):
    """Size of a tower of timm's. ``patch`` is the side in px of the area that a token covers.

    ``depth`` counts the blocks of a transformer, or else the stages. ``grid`` is that of the images
    it was trained with. ``mlp`` is 0 for the network's own. ``own_parameters`` is the number at its
    own size, with the projection to text. ``kept`` is the number of values kept for the backward
    pass, per px of the input; 0: as in a plain transformer.
    """

    kind: Kind = "vit"
    own_parameters: int = 0
    kept: int = 0

    @property
    def resizable(self) -> bool:
        """Whether it can be built at another size, with any attention kernel."""
        return self.kind in ("vit", "rope")

    @property
    def rotary(self) -> bool:
        """Whether it has rotary positions."""
        return self.kind == "rope"

    def parameters(self) -> int:
        """Number of parameters at its own size."""
        return self.own_parameters


_ROWS = """
convnext_base stages 32 1024 4 32 7 0 88090752 1156
convnext_base_w stages 32 1024 4 32 8 0 88221824 1156
convnext_base_w_320 stages 32 1024 4 32 10 0 88221824 1156
convnext_large stages 32 1536 4 48 7 0 197409984 1732
convnext_large_d stages 32 1536 4 48 8 0 199770816 1732
convnext_large_d_320 stages 32 1536 4 48 10 0 199770816 1732
convnext_small stages 32 768 4 24 7 0 49847904 868
convnext_tiny stages 32 768 4 24 7 0 28606560 544
convnext_xlarge stages 32 2048 4 64 8 0 350245120 2308
convnext_xxlarge stages 32 3072 4 96 8 0 846543744 3820
convnext_xxlarge_320 stages 32 3072 4 96 10 0 846543744 3820
EVA01-g-14 vit 14 1408 40 16 16 1 1012588928
EVA01-g-14-plus vit 14 1408 40 16 16 1 1012588928
EVA02-B-16 rope 16 768 12 12 14 1 86263040
EVA02-E-14 vit 14 1792 64 16 16 1 4350556928
EVA02-E-14-plus vit 14 1792 64 16 16 1 4350556928
EVA02-L-14 rope 14 1024 24 16 16 1 304105152
EVA02-L-14-336 rope 14 1024 24 16 24 1 304432832
MobileCLIP2-B hybrid 16 768 12 12 14 1 86349056
MobileCLIP2-L-14 vit 14 1024 24 16 16 1 303966976
MobileCLIP2-S0 stages 32 1024 4 32 8 0 11406976 568
MobileCLIP2-S2 stages 32 1280 4 40 8 0 35815232 1332
MobileCLIP2-S3 stages 64 3072 5 96 4 0 125235648 1589
MobileCLIP2-S4 stages 64 4096 5 128 4 0 321784832 2139
MobileCLIP-B hybrid 16 768 12 12 14 1 86349056
MobileCLIP-S1 stages 32 1024 4 32 8 0 21541632 1010
MobileCLIP-S2 stages 32 1280 4 40 8 0 35815232 1332
nllb-clip-base-siglip vit 16 768 12 12 24 0 93176064
nllb-clip-large-siglip vit 14 1152 27 16 27 0 428225600
PE-Core-B-16 rope 16 768 12 12 14 1 93673984
PE-Core-bigG-14-448 rope 14 1536 50 16 32 0 1882033920
PE-Core-L-14-336 rope 14 1024 24 16 24 1 317152256
PE-Core-S-16-384 rope 16 384 12 6 24 1 23783168
PE-Core-T-16-384 rope 16 192 12 3 24 1 6141056
swin_base_patch4_window7_224 fixed 32 1024 4 32 7 0 87398584 1131
ViT-B-16-SigLIP vit 16 768 12 12 14 0 92884224
ViT-B-16-SigLIP-256 vit 16 768 12 12 16 0 92930304
ViT-B-16-SigLIP-384 vit 16 768 12 12 24 0 93176064
ViT-B-16-SigLIP-512 vit 16 768 12 12 32 0 93520128
ViT-B-16-SigLIP-i18n-256 vit 16 768 12 12 16 0 92930304
ViT-L-16-SigLIP-256 vit 16 1024 24 16 16 0 315956224
ViT-L-16-SigLIP-384 vit 16 1024 24 16 24 0 316283904
ViT-SO400M-14-SigLIP vit 14 1152 27 16 16 0 427680704
ViT-SO400M-14-SigLIP-378 vit 14 1152 27 16 27 0 428225600
ViT-SO400M-14-SigLIP-384 vit 14 1152 27 16 27 0 428225600
ViT-SO400M-16-SigLIP-i18n-256 vit 16 1152 27 16 16 0 427888064
vit_medium_patch16_gap_256 vit 16 512 12 8 16 0 38610432
vit_relpos_medium_patch16_cls_224 fixed 16 512 12 8 14 1 38513760
ViTamin-B hybrid 16 768 14 12 14 0 87525248 1830
ViTamin-B-LTT hybrid 16 768 14 12 14 0 87721856 1830
ViTamin-L hybrid 16 1024 31 16 14 0 333318048 3640
ViTamin-L2 hybrid 16 1024 31 16 14 0 333580192 3640
ViTamin-L2-256 hybrid 16 1024 31 16 16 0 333641632 3640
ViTamin-L2-336 hybrid 16 1024 31 16 21 0 333831072 3640
ViTamin-L2-384 hybrid 16 1024 31 16 24 0 333969312 3640
ViTamin-L-256 hybrid 16 1024 31 16 16 0 333379488 3640
ViTamin-L-336 hybrid 16 1024 31 16 21 0 333568928 3640
ViTamin-L-384 hybrid 16 1024 31 16 24 0 333707168 3640
ViTamin-S hybrid 16 384 14 6 14 0 22025152 920
ViTamin-S-LTT hybrid 16 384 14 6 14 0 22172608 920
ViTamin-XL-256 hybrid 16 1152 32 16 16 0 436054080 4280
ViTamin-XL-336 hybrid 16 1152 32 16 21 0 436054080 4280
ViTamin-XL-384 hybrid 16 1152 32 16 24 0 436054080 4280
"""
"""Model, kind, patch, width, depth, heads, grid, class tokens, parameters, values kept."""


def _forms() -> Iterator[tuple[str, TimmForm]]:
    for row in _ROWS.strip().splitlines():
        model, name, *numbers = row.split()
        kind = next(known for known in get_args(Kind) if known == name)
        patch, width, depth, heads, grid, prefix, parameters, *kept = map(int, numbers)
        sizes = (patch, width, depth, heads, 0, grid)
        form = TimmForm(*sizes, class_token=prefix > 0, kind=kind, own_parameters=parameters)
        yield model, replace(form, kept=sum(kept))


TIMM_FORMS = dict(_forms())
"""Size by open-clip's name. SigLIP2's models are an encoder of their own."""

TIMM_WEIGHTS = """
convnext_base laion400m_s13b_b51k laion/CLIP-convnext_base-laion400M-s13B-b51K
convnext_base_w laion2b_s13b_b82k laion/CLIP-convnext_base_w-laion2B-s13B-b82K
convnext_base_w laion2b_s13b_b82k_augreg laion/CLIP-convnext_base_w-laion2B-s13B-b82K-augreg
convnext_base_w laion_aesthetic_s13b_b82k laion/CLIP-convnext_base_w-laion_aesthetic-s13B-b82K
convnext_base_w_320 laion_aesthetic_s13b_b82k laion/CLIP-convnext_base_w_320-laion_aesthetic-s13B-b82K
convnext_base_w_320 laion_aesthetic_s13b_b82k_augreg laion/CLIP-convnext_base_w_320-laion_aesthetic-s13B-b82K-augreg
convnext_large_d laion2b_s26b_b102k_augreg laion/CLIP-convnext_large_d.laion2B-s26B-b102K-augreg
convnext_large_d_320 laion2b_s29b_b131k_ft laion/CLIP-convnext_large_d_320.laion2B-s29B-b131K-ft
convnext_large_d_320 laion2b_s29b_b131k_ft_soup laion/CLIP-convnext_large_d_320.laion2B-s29B-b131K-ft-soup
convnext_xxlarge laion2b_s34b_b82k_augreg laion/CLIP-convnext_xxlarge-laion2B-s34B-b82K-augreg
convnext_xxlarge laion2b_s34b_b82k_augreg_rewind laion/CLIP-convnext_xxlarge-laion2B-s34B-b82K-augreg-rewind
convnext_xxlarge laion2b_s34b_b82k_augreg_soup laion/CLIP-convnext_xxlarge-laion2B-s34B-b82K-augreg-soup
EVA01-g-14 laion400m_s11b_b41k timm/eva_giant_patch14_clip_224.laion400m_s11b_b41k
EVA01-g-14-plus merged2b_s11b_b114k timm/eva_giant_patch14_plus_clip_224.merged2b_s11b_b114k
EVA02-B-16 merged2b_s8b_b131k timm/eva02_base_patch16_clip_224.merged2b_s8b_b131k
EVA02-E-14 laion2b_s4b_b115k timm/eva02_enormous_patch14_clip_224.laion2b_s4b_b115k
EVA02-E-14-plus laion2b_s9b_b144k timm/eva02_enormous_patch14_plus_clip_224.laion2b_s9b_b144k
EVA02-L-14 merged2b_s4b_b131k timm/eva02_large_patch14_clip_224.merged2b_s4b_b131k
EVA02-L-14-336 merged2b_s6b_b61k timm/eva02_large_patch14_clip_336.merged2b_s6b_b61k
MobileCLIP2-B dfndr2b timm/MobileCLIP2-B-OpenCLIP unit
MobileCLIP2-L-14 dfndr2b timm/MobileCLIP2-L-14-OpenCLIP
MobileCLIP2-S0 dfndr2b timm/MobileCLIP2-S0-OpenCLIP unit
MobileCLIP2-S2 dfndr2b timm/MobileCLIP2-S2-OpenCLIP unit
MobileCLIP2-S3 dfndr2b timm/MobileCLIP2-S3-OpenCLIP
MobileCLIP2-S4 dfndr2b timm/MobileCLIP2-S4-OpenCLIP
MobileCLIP-B datacompdr apple/MobileCLIP-B-OpenCLIP unit
MobileCLIP-B datacompdr_lt apple/MobileCLIP-B-LT-OpenCLIP unit
MobileCLIP-S1 datacompdr apple/MobileCLIP-S1-OpenCLIP unit
MobileCLIP-S2 datacompdr apple/MobileCLIP-S2-OpenCLIP unit
nllb-clip-base-siglip v1 visheratin/nllb-clip-base-siglip half
nllb-clip-base-siglip mrl visheratin/nllb-siglip-mrl-base half
nllb-clip-large-siglip v1 visheratin/nllb-clip-large-siglip half
nllb-clip-large-siglip mrl visheratin/nllb-siglip-mrl-large half
PE-Core-B-16 meta timm/PE-Core-B-16 half
PE-Core-bigG-14-448 meta timm/PE-Core-bigG-14-448 half
PE-Core-L-14-336 meta timm/PE-Core-L-14-336 half
PE-Core-S-16-384 meta timm/PE-Core-S-16-384 half
PE-Core-T-16-384 meta timm/PE-Core-T-16-384 half
ViT-B-16-SigLIP webli timm/ViT-B-16-SigLIP half
ViT-B-16-SigLIP-256 webli timm/ViT-B-16-SigLIP-256 half
ViT-B-16-SigLIP-384 webli timm/ViT-B-16-SigLIP-384 half
ViT-B-16-SigLIP-512 webli timm/ViT-B-16-SigLIP-512 half
ViT-B-16-SigLIP-i18n-256 webli timm/ViT-B-16-SigLIP-i18n-256 half
ViT-L-16-SigLIP-256 webli timm/ViT-L-16-SigLIP-256 half
ViT-L-16-SigLIP-384 webli timm/ViT-L-16-SigLIP-384 half
ViT-SO400M-14-SigLIP webli timm/ViT-SO400M-14-SigLIP half
ViT-SO400M-14-SigLIP-378 webli timm/ViT-SO400M-14-SigLIP-384 half
ViT-SO400M-14-SigLIP-384 webli timm/ViT-SO400M-14-SigLIP-384 half
ViT-SO400M-16-SigLIP-i18n-256 webli timm/ViT-SO400M-16-SigLIP-i18n-256 half
ViTamin-B datacomp1b jienengchen/ViTamin-B/pytorch_model.bin
ViTamin-B-LTT datacomp1b jienengchen/ViTamin-B-LTT/pytorch_model.bin
ViTamin-L datacomp1b jienengchen/ViTamin-L-224px/pytorch_model.bin
ViTamin-L2 datacomp1b jienengchen/ViTamin-L2-224px/pytorch_model.bin
ViTamin-L2-256 datacomp1b jienengchen/ViTamin-L2-256px/pytorch_model.bin
ViTamin-L2-336 datacomp1b jienengchen/ViTamin-L2-336px/pytorch_model.bin
ViTamin-L2-384 datacomp1b jienengchen/ViTamin-L2-384px/pytorch_model.bin
ViTamin-L-256 datacomp1b jienengchen/ViTamin-L-256px/pytorch_model.bin
ViTamin-L-336 datacomp1b jienengchen/ViTamin-L-336px/pytorch_model.bin
ViTamin-L-384 datacomp1b jienengchen/ViTamin-L-384px/pytorch_model.bin
ViTamin-S datacomp1b jienengchen/ViTamin-S/pytorch_model.bin
ViTamin-S-LTT datacomp1b jienengchen/ViTamin-S-LTT/pytorch_model.bin
ViTamin-XL-256 datacomp1b jienengchen/ViTamin-XL-256px/pytorch_model.bin
ViTamin-XL-336 datacomp1b jienengchen/ViTamin-XL-336px/pytorch_model.bin
ViTamin-XL-384 datacomp1b jienengchen/ViTamin-XL-384px/pytorch_model.bin
"""  # noqa: E501
"""Model, tag, repository with the file if it has a name of its own, statistics of images."""
