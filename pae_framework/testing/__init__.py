"""The conformance suite for plugin authors: does a component do what the engine expects?

There is one class for each kind of component. Subclass it in the tests of your plugin::

    from pae_framework.testing import EncoderContract, RegistrationContract

    class TestRegistration(RegistrationContract):
        plugin = "my_package"

    class TestMyEncoder(EncoderContract):
        component = MyEncoder
        config = MyEncoderConfig(width=32)

``pae check-plugin`` runs the same tests from the command line. Fixtures for other tests are in
:mod:`pae_framework.testing.pytest`.
"""

from pae_framework.testing.evaluation_inputs import SyntheticInputs
from pae_framework.testing.kind_contracts import (
    CONTRACTS,
    BottleneckContract,
    DataSourceContract,
    DecoderContract,
    DiscriminatorContract,
    EncoderContract,
    EvaluatorContract,
    GeneratorContract,
    ModulatorContract,
    RegularizerContract,
    TokenizerContract,
    TrackerContract,
    check_component,
)
from pae_framework.testing.registration import RegistrationContract, check_registration

__all__ = [
    "CONTRACTS",
    "BottleneckContract",
    "DataSourceContract",
    "DecoderContract",
    "DiscriminatorContract",
    "EncoderContract",
    "EvaluatorContract",
    "GeneratorContract",
    "ModulatorContract",
    "RegistrationContract",
    "RegularizerContract",
    "SyntheticInputs",
    "TokenizerContract",
    "TrackerContract",
    "check_component",
    "check_registration",
]
