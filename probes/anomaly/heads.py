"""All heads by name, as the command line and files know them."""

from __future__ import annotations

from probes.anomaly.autoencoder import AutoEncoder, ConstituentAutoEncoder, ImageAutoEncoder
from probes.anomaly.contrastive import Contrastive
from probes.anomaly.density import FlowDensity
from probes.anomaly.distance import Mahalanobis, RelativeMahalanobis
from probes.anomaly.forest import Forest
from probes.anomaly.head import Head
from probes.anomaly.mixture import Mixture
from probes.anomaly.neighbours import Neighbours
from probes.anomaly.normalised import ImageNormalisedAutoEncoder, NormalisedAutoEncoder
from probes.anomaly.support import SupportVectors
from probes.anomaly.variational import ConstituentVariational, ImageVariational, Variational

HEADS: dict[str, type[Head]] = {
    head.name: head
    for head in (
        Mahalanobis,
        RelativeMahalanobis,
        Neighbours,
        Mixture,
        Forest,
        SupportVectors,
        FlowDensity,
        AutoEncoder,
        Variational,
        NormalisedAutoEncoder,
        Contrastive,
        ImageAutoEncoder,
        ImageVariational,
        ImageNormalisedAutoEncoder,
        ConstituentAutoEncoder,
        ConstituentVariational,
    )
}
