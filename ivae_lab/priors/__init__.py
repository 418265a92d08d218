"""Priors over the latents: modules that give a distribution over z, conditional on u or not."""

from typing import TYPE_CHECKING

from ivae_lab.terminal.lazy import face

if TYPE_CHECKING:
    from ivae_lab.priors.class_statistics import ClassStatistics as ClassStatistics
    from ivae_lab.priors.codebook import Codebook as Codebook
    from ivae_lab.priors.conditional import MLPPrior as MLPPrior
    from ivae_lab.priors.conditional import TablePrior as TablePrior
    from ivae_lab.priors.facet_mixtures import FacetMixtures as FacetMixtures
    from ivae_lab.priors.family_table import FamilyTable as FamilyTable
    from ivae_lab.priors.mixture import GaussianMixture as GaussianMixture
    from ivae_lab.priors.standard import StandardLaplace as StandardLaplace
    from ivae_lab.priors.standard import StandardNormal as StandardNormal
    from ivae_lab.priors.vampprior import VampPrior as VampPrior
else:
    __getattr__, __dir__ = face(__name__)
