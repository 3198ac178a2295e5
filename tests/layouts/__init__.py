"""What released files hold: names, shapes and small examples, one module for each origin.

- :mod:`layouts.pae_tokenizers`: names and shapes of PAE's tokenizers: every encoder, at any size.
- :mod:`layouts.tiny_tokenizer`: a file of that layout with golden numbers, encoder and recipe.
- :mod:`layouts.tiny_generator`: a file of LightningDiT's layout with golden numbers, and a recipe.
- :mod:`layouts.transformers_encoders`: small models of transformers' classes, as hubs publish them.
- :mod:`layouts.generator_formulas`: LightningDiT and DiT-DH as formulas on their released names.
"""
