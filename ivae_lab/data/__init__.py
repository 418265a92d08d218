"""Data sets: called with a seed, each gives the three parts of its rows (`Splits`)."""

from typing import TYPE_CHECKING

from ivae_lab.terminal.lazy import face

if TYPE_CHECKING:
    from ivae_lab.data.family_sources import Families as Families
    from ivae_lab.data.file import File as File
    from ivae_lab.data.gin10d import GIN10D as GIN10D
    from ivae_lab.data.gmm_relu import GmmRelu as GmmRelu
    from ivae_lab.data.images.datasets import CIFAR10 as CIFAR10
    from ivae_lab.data.images.datasets import EMNIST as EMNIST
    from ivae_lab.data.images.datasets import MNIST as MNIST
    from ivae_lab.data.images.datasets import SVHN as SVHN
    from ivae_lab.data.images.datasets import Digits as Digits
    from ivae_lab.data.images.datasets import DSprites as DSprites
    from ivae_lab.data.pinwheel import Pinwheel as Pinwheel
    from ivae_lab.data.spikes import Spikes as Spikes
    from ivae_lab.data.tcl import SegmentedSources as SegmentedSources
else:
    __getattr__, __dir__ = face(__name__)
