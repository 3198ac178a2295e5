"""Invalid recipes and command lines for docs/reference/messages.md.

Tests check the facts of a message: a key, a value, a suggestion. Review its wording on the page.
"""

from __future__ import annotations

RECIPE = """\
pae: 1
name: small
data:
  image_size: 8
  train: digits
  test: {use: digits, split: test}
extractor: {use: small_cnn, train: {steps: 10}}
tokenizer:
  encoder: {use: tiny_vit, patch: 2, width: 32, heads: 2, train: {steps: 10, lr: 1e-4}}
  modulator: {use: dam, depth: 1}
  bottleneck: {use: sphere, channels: 8}
  decoder: {use: vit, width: 32, depth: 1, heads: 2, patch: 2}
  regularizers:
    ssr: {weight: 0.2}
    scr:
  refinement: {train: {steps: 10}}
  train: {steps: 10, clip: 0.5}
generator:
  use: lightningdit
  depth: 1
  width: 32
  heads: 2
  patch: 1
  train: {steps: 10}
sample: {count: 10, at_steps: [10]}
evaluate:
  reconstruction:
  generation:
  manifold:
"""
"""A valid recipe; every case below changes it."""

_GAN = "tokenizer.adversarial={discriminator: {use: patchgan, layers: 1, width: 4}}"
_NOTHING = "tokenizer.reconstruction={l1: 0, perceptual: {weight: 0}}"
_TINY = "size: {width: 32, depth: 1, heads: 2}"

OVERRIDES: dict[str, list[list[str]]] = {
    "Launch": [
        ["launch={nods: 2}"],
        ["launch={time: '12:30'}"],
        ["launch={memory: 64}"],
        ["launch={flags: {mem: 64GB}}"],
        ["launch={stages: {generatr: {nodes: 2}}}"],
        ["launch={partition: gpu}"],
    ],
    "Values": [
        ["data.image_size=eight"],
        ["data.image_size=8.5"],
        ["data.image_size=0"],
        ["data.flip=maybe"],
        ["data.train={use: idx, folder: 3}"],
        ["data.max_damaged=-1"],
        ["tokenizer.encoder.train.lr=[1]"],
        ["tokenizer.encoder.train.schedule=cosin"],
        ["tokenizer.refinement=3"],
        ["tokenizer.refinement={}"],
        ["tokenizer.train={steps: 10, epochs: 1}"],
        ["tokenizer.train={steps: 10, batch_size: 4, accumulate: 3}"],
        ["tokenizer.reconstruction.lpips={weight: 1, weights: vgg}"],
        ["name=a/b"],
        ["pae=2"],
        ["seed=x"],
        ["runtime.device=gpu"],
        ["runtime.precision=fp16"],
        ["latents={folder: a, statistics: b}"],
    ],
    "Keys": [
        ["sampel.count=1"],
        ["sample.cuont=10"],
        ["tokenizer.modulator.dpth=1"],
        ["tokenizer.trian.steps=1"],
        ["name.first=x"],
    ],
    "Components": [
        ["tokenizer.bottleneck.use=spere"],
        ["tokenizer.modulator=damm"],
        ["tokenizer.regularizers.scrr={weight: 1}"],
        ["tokenizer.decoder={width: 32}"],
        ["tokenizer.decoder=[vit]"],
        ["tokenizer.encoder={use: dinov2, model: vit_smal_patch14_dinov2}"],
        ["tokenizer.encoder={use: mae, weights: mae.pht}"],
        ["tokenizer.encoder={use: dinov2, input_size: 225}", "data.image_size=256"],
        ["generator.preset=XXL"],
    ],
    "Overrides": [
        ["seed"],
        ["a..b=1"],
        ["=1"],
        ["seed=[1"],
        ["sample={a: 1, a: 2}"],
    ],
    "Shapes": [
        ["data.image_size=9", "extractor=null", "evaluate=null"],
        ["tokenizer.decoder.patch=4"],
        ["data.image_size=4", "sample.at_steps=[]"],
        ["generator.channels=4"],
        ["generator.patch=3"],
        ["tokenizer.modulator.heads=3"],
        ["tokenizer.refinement.width=40", "tokenizer.refinement.heads=3"],
        ["tokenizer.encoder.heads=8", "tokenizer.refinement.width=36"],
        ["tokenizer.encoder={use: small_cnn, width: 104, depth: 1, train: {steps: 1}}"],
        ["tokenizer.refinement.width=30"],
        ["tokenizer.encoder={use: mae, weights: none}", "data.image_size=250"],
    ],
    "Training of encoders": [
        ["tokenizer.encoder.train=null"],
        ["extractor.train=null"],
        [f"tokenizer.encoder={{use: dinov2, weights: none, {_TINY}, train: {{steps: 1}}}}"],
    ],
    "Terms of the tokenizer's loss": [
        ["tokenizer.refinement=null", "tokenizer.regularizers.scr=null"],
        ["tokenizer.refinement=null", "tokenizer.regularizers={ssr: {}}"],
        ["tokenizer.regularizers.kl.weight=1e-6"],
        ["tokenizer.regularizers={loss: {use: ssr}}"],
        ["tokenizer.regularizers={a/b: {use: ssr}}"],
        ["tokenizer.bottleneck=identity", "tokenizer.regularizers=null"],
        ["tokenizer.regularizers.mcr.weight=1", "tokenizer.bottleneck.channels=1"],
        ["tokenizer.regularizers.vf={adaptive: true}", "tokenizer.bottleneck=identity"],
        ["tokenizer.refinement.reproduction=0", "tokenizer.refinement.gram=0"],
        ["tokenizer.refinement.upsampler=anyup"],
        [_NOTHING, "tokenizer.regularizers={ssr: {weight: 0}}"],
        [_NOTHING, "tokenizer.regularizers={mcr: {}}", "tokenizer.refinement=null"],
        ["tokenizer.reconstruction.lpips={weight: 1, weights: none}"],
    ],
    "The adversarial term": [
        ["tokenizer.adversarial={discriminator: patchgan}"],
        [_GAN, "tokenizer.adversarial.update_from={epochs: 6}"],
        [_GAN, "tokenizer.adversarial.start={steps: 10}"],
        [
            _GAN,
            "tokenizer.adversarial.update_from={steps: 10}",
            "tokenizer.adversarial.start={epochs: 3}",
        ],
        [_GAN, "tokenizer.adversarial.start={steps: 1, epochs: 1}"],
        [_GAN, _NOTHING],
    ],
    "Checkpoints to keep": [
        ["tokenizer.train.keep_steps=[11]"],
        ["sample.at_steps=[4, 5]"],
        ["generator.train.steps=null", "generator.train.epochs=1"],
    ],
    "Classes": [
        ["generator.classes=7"],
        [
            "data.train={use: image_folder, folder: x, classes: 4}",
            "generator.classes=5",
        ],
    ],
    "Weights trained elsewhere": [
        ["latents.statistics=latents_stats.pt"],
        ["generator.weights=trained.pt"],
        ["latents.statistics=s.pt", "generator=null", "sample=null", "evaluate=null"],
    ],
    "Sampling": [
        ["sample.solver=eulr"],
        ["sample={solver: sde_heun, steps: 1}"],
        ["sample={shift: 0.4, shift_base: 4096}"],
        ["sample.sde.last_step=men"],
        ["sample.labels=balance"],
        ["sample.guidance.interval=[0.5, 0.5]"],
        ["sample.guidance.interval=[0.5, 1.5]"],
        ["sample.guidance.scale=0.5"],
        ["sample.guidance.scale=2", "generator.objective.label_drop=0"],
        ["sample.guidance.autoguidance=runs/weak"],
        ["sample.solver=dopri5", "sample.few_steps=[2]"],
    ],
    "Evaluation": [
        ["generator=null", "evaluate.generation=null"],
        ["sample=null"],
        ["extractor=null", "evaluate.generation=null"],
        ["data.test={use: image_folder, folder: x}"],
        ["evaluate={a/b: {use: manifold}}"],
    ],
    "Sweeps": [
        ["sweep={seeds: [1, 1]}"],
        ["sweep={variants: {a/b: {data.flip: true}}}"],
        ["sweep={variants: {one: {name: other}}}"],
        ["sweep={variants: {one: {data.flp: true}}}"],
        ["sweep={variants: {one: {data..flip: true}}}"],
        ["sweep={variants: {}}"],
    ],
}
"""Overrides of the recipe, by subject."""

TEXTS: dict[str, str] = {
    "is not YAML": "pae: [1",
    "contains a character that YAML forbids": "name: a\x00b",
    "is empty": "",
    "is a list": "[]",
    "is an empty map": "{}",
    "has a key twice": RECIPE.replace("name: small", "name: small\nname: big"),
    "uses an alias inside its own anchor": "name: &a [*a]",
    "has a key that is not a string": "[1]: 2",
    "has a tag": "name: !!python/name:os.system",
    "has no name": RECIPE.replace("name: small\n", ""),
    "has no image size": RECIPE.replace("  image_size: 8\n", ""),
    "extends itself": "extends: wrong.yaml",
    "extends an unknown recipe": "extends: quikstart",
    "extends a recipe twice": "extends: [quickstart, quickstart]",
    "extends nothing": "extends: []",
    "is a fragment": "seed: 1",
    "has two problems": RECIPE.replace("count: 10", "cuont: 10").replace("dam,", "damm,"),
}
"""Contents of a recipe ``wrong.yaml``, by what is wrong with them."""

FOLDER = "data.train={use: image_folder, folder: nowhere}"

COMMANDS: dict[str, list[list[str]]] = {
    "pae check": [
        ["check", "quikstart"],
        ["check", "folder"],
        ["check", "small.yaml", FOLDER, "evaluate=null"],
        ["check", "small.yaml", "data.train={use: idx, folder: nowhere}"],
        ["check", "small.yaml", "generator.weights=gone.pt", "sample.at_steps=[]"],
        ["check", "small.yaml", "tokenizer.weights=gone.pt"],
        ["check", "small.yaml", "latents.folder=gone"],
    ],
    "pae run": [
        ["run", "small.yaml", "--only", "a"],
        ["run", "small.yaml", "--json"],
        ["run", "small.yaml", FOLDER, "evaluate=null"],
        ["run", "small.yaml", "--run-dir", "small.yaml"],
        ["run", "small.yaml", "--run-dir", "folder"],
        ["run", "small.yaml", "--run-dir", "other"],
        ["run", "sweep.yaml", "--only", "three"],
        ["run", "sweep.yaml", "--stages", "folder"],
    ],
    "pae show": [["show", "small.yaml", "sed=1"]],
    "pae copy": [
        ["copy", "quickstart", "absent/mine.yaml"],
        ["copy", "quickstart", "small.yaml"],
        ["copy", "small.yaml", "small.yaml"],
    ],
    "pae fetch": [["fetch", "small.yaml", FOLDER, "evaluate=null"]],
    "pae list-plugins, pae show-plugin": [
        ["list-plugins", "encoders"],
        ["show-plugin", "tiny_vit"],
        ["show-plugin", "encoder:tiny_vitt"],
    ],
    "pae status, pae report": [["status", "nowhere"], ["status", "folder"], ["report", "nowhere"]],
    "pae sample, pae reconstruct": [["sample", "nowhere"], ["reconstruct", "folder"]],
    "pae import": [
        ["import", "pae", "gone.pt", "--recipe", "small.yaml"],
        ["import", "pae", "small.yaml", "--recipe", "sweep.yaml"],
        ["import", "generator", "gone.pt", "other"],
        ["import", "generator", "small.yaml", "nowhere"],
    ],
    "pae export": [
        ["export", "pae", "nowhere", "tokenizer.pt"],
        ["export", "pae", "other", "tokenizer.txt"],
        ["export", "generator", "other", "weights.pt", "--format", "safetensors"],
        ["export", "generator", "other", "folder", "--format", "diffusers"],
    ],
}
"""Command lines, by command; :func:`pages.messages.prepare` writes the files that they name."""
