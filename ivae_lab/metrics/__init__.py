"""Metrics: scores of one seed on one split, from its posterior and, where known, the true sources."""

from typing import TYPE_CHECKING

from ivae_lab.terminal.lazy import face

if TYPE_CHECKING:
    from ivae_lab.metrics.agreement import Agreement as Agreement
    from ivae_lab.metrics.checks.khemakhem2020 import Assumptions as Assumptions
    from ivae_lab.metrics.checks.kivva2022 import Theorem35 as Theorem35
    from ivae_lab.metrics.clustering import Clustering as Clustering
    from ivae_lab.metrics.elbo import ELBOTerms as ELBOTerms
    from ivae_lab.metrics.equivalence import Equivalence as Equivalence
    from ivae_lab.metrics.gap import Gap as Gap
    from ivae_lab.metrics.linear_r2 import LinearR2 as LinearR2
    from ivae_lab.metrics.mcc import MCC as MCC
    from ivae_lab.metrics.spectrum import Spectrum as Spectrum
else:
    __getattr__, __dir__ = face(__name__)
