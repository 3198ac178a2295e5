"""Built-in evaluators: of reconstructions, samples and latents. No torch here."""

from pae_framework import hookimpl
from pae_framework.hookspecs import Register

pae_api = 1


@hookimpl
def pae_register_evaluators(register: Register) -> None:
    """Register the built-in evaluators."""
    register(
        "reconstruction",
        target="pae_evaluators.reconstruction:Reconstruction",
        config="pae_evaluators.config:ReconstructionConfig",
        summary="PSNR, SSIM and Frechet distance of test images and their reconstructions",
    )
    register(
        "generation",
        target="pae_evaluators.sample_quality:Generation",
        config="pae_evaluators.config:GenerationConfig",
        summary="Frechet distance of samples to test images, over the generator's training",
    )
    register(
        "few_steps",
        target="pae_evaluators.sample_quality:FewSteps",
        config="pae_evaluators.config:FewStepsConfig",
        summary="Frechet distance of samples to test images, over the solver's steps",
    )
    register(
        "adm",
        target="pae_evaluators.inception_metrics:ADM",
        config="pae_evaluators.config:ADMConfig",
        summary="IS, FID, sFID, precision and recall of samples by the ADM evaluator's protocol",
    )
    register(
        "fidelity",
        target="pae_evaluators.inception_metrics:Fidelity",
        config="pae_evaluators.config:FidelityConfig",
        summary="FID, KID, IS, precision and recall of samples by torch-fidelity's protocol",
    )
    register(
        "interpolation",
        target="pae_evaluators.interpolation:Interpolation",
        config="pae_evaluators.config:InterpolationConfig",
        summary="iFID: Frechet distance of images half-way between latents and their neighbors",
    )
    register(
        "manifold",
        target="pae_evaluators.manifold:Manifold",
        config="pae_evaluators.config:ManifoldConfig",
        summary="how easy the latents are to model by diffusion: SSC, LPC, GSQ, eRank (PAE)",
    )
