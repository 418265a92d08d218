"""Models: what is trained. One class per kind of computation; everything else is a composition in YAML."""

from typing import TYPE_CHECKING

from ivae_lab.terminal.lazy import face

if TYPE_CHECKING:
    from ivae_lab.models.auxiliary import Rademacher as Rademacher
    from ivae_lab.models.base import Model as Model
    from ivae_lab.models.contrastive import GCL as GCL
    from ivae_lab.models.contrastive import TCL as TCL
    from ivae_lab.models.contrastive import LinearICA as LinearICA
    from ivae_lab.models.exact_likelihood import Exact as Exact
    from ivae_lab.models.exact_likelihood import Search as Search
    from ivae_lab.models.flow import Flow as Flow
    from ivae_lab.models.gmvae import GMVAE as GMVAE
    from ivae_lab.models.identifiability import Noise as Noise
    from ivae_lab.models.identifiability import Penalty as Penalty
    from ivae_lab.models.likelihoods import BernoulliLikelihood as BernoulliLikelihood
    from ivae_lab.models.likelihoods import CategoricalLikelihood as CategoricalLikelihood
    from ivae_lab.models.likelihoods import DiscretisedLogistic as DiscretisedLogistic
    from ivae_lab.models.likelihoods import GaussianLikelihood as GaussianLikelihood
    from ivae_lab.models.likelihoods import Likelihood as Likelihood
    from ivae_lab.models.likelihoods import NegativeBinomialLikelihood as NegativeBinomialLikelihood
    from ivae_lab.models.likelihoods import PoissonLikelihood as PoissonLikelihood
    from ivae_lab.models.likelihoods import VaryingPixels as VaryingPixels
    from ivae_lab.models.likelihoods import image_likelihood as image_likelihood
    from ivae_lab.models.linear import IndependentComponents as IndependentComponents
    from ivae_lab.models.linear import PrincipalComponents as PrincipalComponents
    from ivae_lab.models.linear import SegmentComponents as SegmentComponents
    from ivae_lab.models.mfcvae import MFCVAE as MFCVAE
    from ivae_lab.models.objectives import ELBO as ELBO
    from ivae_lab.models.objectives import FourTerms as FourTerms
    from ivae_lab.models.vae import VAE as VAE
    from ivae_lab.models.vqvae import Autoencoder as Autoencoder
    from ivae_lab.models.vqvae import GridAutoencoder as GridAutoencoder
else:
    __getattr__, __dir__ = face(__name__)
