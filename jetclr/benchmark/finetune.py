"""An encoder trained on labels: a pretrained one from its linear probe onwards, or the same one from nothing.

Fine-tuning starts where the linear probe ends (arXiv:2202.10054): the readout is the fitted probe, so that the first
steps do not spoil what pretraining has learned.

Shapes: B jets, N constituents, C classes, E embedding width.
"""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from augmentations import Chain, Reflect, Rotate, batched
from augmentations.jets import Jets
from jetclr import encoder as encoders
from jetclr.encoder import Encoder, Head, Params
from jetclr.features import Features
from probes.linear import LinearProbe
from probes.multinomial import MultinomialProbe
from probes.tables import folded
from probes.training import Training

FINE_TUNED, FROM_SCRATCH = "fine-tuned", "from scratch"

READOUT = "projection"
"""The linear layer on the embedding: the projection head of an encoder without hidden layers is just this."""


@dataclass(frozen=True)
class EncoderTagger:
    """An encoder with a linear readout of its embedding, as a `probes.training.Model` on `Jets`.

    In training every jet is turned and mirrored at random.
    """

    name: str = field(compare=False)  # or the same program would be compiled for each name
    features: Features
    encoder: Encoder
    classes: int = 2

    def _network(self) -> encoders.Network:
        return encoders.build(self.encoder, Head((), self.classes))

    def init(self, key: Key[Array, ""], inputs: Jets) -> Params:
        one = jax.tree.map(lambda x: jnp.asarray(x)[0], inputs)
        return self._network().init(key, self.features(one))

    def apply(self, params: Params, inputs: Jets, key: Key[Array, ""] | None) -> Float[Array, "B C"]:
        jets = jax.tree.map(jnp.asarray, inputs)
        network = self._network()
        if key is None:
            return network.apply(params, self.features(jets), None)[READOUT]
        augment, drop = jax.random.split(key)
        x = self.features(batched(Chain(Rotate(), Reflect()))(augment, jets))
        keys = jax.random.split(drop, jets.pt.shape[0])
        return network.apply(params, x, keys)[READOUT]


def start_from(
    tagger: EncoderTagger,
    pretrained: Params,
    slopes: Float[np.ndarray, "E C"],
    offsets: Float[np.ndarray, " C"],
) -> Params:
    """Parameters of `tagger` whose encoder is `pretrained` and whose logits are those of a linear probe."""
    readout = {"w": jnp.asarray(slopes, jnp.float32), "b": jnp.asarray(offsets, jnp.float32)}
    kept = {name: values for name, values in pretrained.items() if not _of_the_head(name)}
    return kept | {READOUT: readout}


def _of_the_head(module: str) -> bool:
    return module == READOUT or module.startswith("head_")


def training(labels: int, seed: int, *, pretrained: bool) -> Training:
    """How an encoder is trained on so many labelled jets: more steps for more labels, fewer than in proportion."""
    steps = int(10 * labels**0.42)  # 69, 181, 478 and 1,015 for 100, 1,000, 10,000 and 60,000 labels
    batch = 128 if labels <= 20_000 else 256
    return Training(steps=steps, batch=batch, peak_lr=3e-4 if pretrained else 2e-3, averaged=0.99, seed=seed)


def readout_of(probe: MultinomialProbe) -> tuple[Float[np.ndarray, "E C"], Float[np.ndarray, " C"]]:
    """The logits of a linear probe as a layer: slopes on the features as they are, and offsets."""
    return folded(probe.weights, probe.bias, probe.mean, probe.scale)


def binary_readout_of(probe: LinearProbe) -> tuple[Float[np.ndarray, "E 2"], Float[np.ndarray, " 2"]]:
    """The same for two classes: half of the probe's score for signal, minus half for background."""
    slope, offset = folded(probe.weights, probe.bias, probe.mean, probe.scale)
    return np.stack([-slope / 2, slope / 2], axis=1), np.array([-offset / 2, offset / 2])
