"""Networks: encoders, decoders and invertible transforms, written for one model; `engine/` maps them over seeds."""

from typing import TYPE_CHECKING

from ivae_lab.terminal.lazy import face

if TYPE_CHECKING:
    from ivae_lab.networks.base import Decoder as Decoder
    from ivae_lab.networks.base import Encoder as Encoder
    from ivae_lab.networks.grid import GridDecoder as GridDecoder
    from ivae_lab.networks.grid import GridEncoder as GridEncoder
    from ivae_lab.networks.images import convnet_decoder as convnet_decoder
    from ivae_lab.networks.images import convnet_encoder as convnet_encoder
    from ivae_lab.networks.images import mlp_decoder as mlp_decoder
    from ivae_lab.networks.images import mlp_encoder as mlp_encoder
    from ivae_lab.networks.images import resnet_decoder as resnet_decoder
    from ivae_lab.networks.images import resnet_encoder as resnet_encoder
    from ivae_lab.networks.invertible import Autoregressive as Autoregressive
    from ivae_lab.networks.invertible import Couplings as Couplings
    from ivae_lab.networks.invertible import ImageCouplings as ImageCouplings
    from ivae_lab.networks.invertible import Transform as Transform
    from ivae_lab.networks.ladder import LadderDecoder as LadderDecoder
    from ivae_lab.networks.ladder import LadderEncoder as LadderEncoder
    from ivae_lab.networks.ladder import shared_decoder as shared_decoder
    from ivae_lab.networks.ladder import shared_encoder as shared_encoder
    from ivae_lab.networks.mlp import MLP as MLP
    from ivae_lab.networks.mlp import GaussianEncoder as GaussianEncoder
    from ivae_lab.networks.mlp import MLPDecoder as MLPDecoder
else:
    __getattr__, __dir__ = face(__name__)
