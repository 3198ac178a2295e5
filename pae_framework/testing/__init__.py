"""Contract checks for plugin authors: does a component do what the engine expects?

There is one function for each kind. Call it from the tests of your plugin::

    from pae_framework.testing import check_encoder, check_registration

    def test_it_registers():
        check_registration("my_package")

    def test_my_encoder():
        check_encoder(MyEncoder(MyEncoderConfig(width=32), image_size=32))

A check takes a component as its class builds it; small configs make fast tests. It does not change
the component and needs no GPU and no network. Its AssertionError explains the contract.
"""

from pae_framework.testing.bottlenecks import check_bottleneck
from pae_framework.testing.data_sources import check_data_source
from pae_framework.testing.decoders import check_decoder
from pae_framework.testing.discriminators import check_discriminator
from pae_framework.testing.encoders import check_encoder
from pae_framework.testing.evaluation_inputs import SyntheticInputs
from pae_framework.testing.evaluators import check_evaluator
from pae_framework.testing.generators import check_generator
from pae_framework.testing.modulators import check_modulator
from pae_framework.testing.registration import check_registration
from pae_framework.testing.regularizers import check_regularizer

__all__ = [
    "SyntheticInputs",
    "check_bottleneck",
    "check_data_source",
    "check_decoder",
    "check_discriminator",
    "check_encoder",
    "check_evaluator",
    "check_generator",
    "check_modulator",
    "check_registration",
    "check_regularizer",
]
