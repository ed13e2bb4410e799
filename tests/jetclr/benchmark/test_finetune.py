"""Fine-tuning: where it starts, and how long it goes on."""

import jax
import numpy as np
import pytest

from jetclr import step
from jetclr.benchmark import finetune
from jetclr.benchmark.finetune import EncoderTagger
from jetclr.benchmark.representations import Encoded
from probes.linear import fit_logistic
from probes.multinomial import fit_multinomial
from probes.training import Trained, Training, fit
from tests.tiny_config import config
from tests.toys import toy_batch

JETS = 48


@pytest.fixture(scope="module")
def encoded() -> Encoded:
    return Encoded("tiny", "run", config, step.init_params(config))


@pytest.fixture(scope="module")
def jets() -> step.Jets:
    return jax.tree.map(np.asarray, step.to_jets(toy_batch(1, JETS, config.data.constituents)))


@pytest.fixture(scope="module")
def embedding(encoded: Encoded, jets: step.Jets) -> np.ndarray:
    return encoded.layers_of(jets, ("embedding",))["embedding"]


def classes_of(count: int) -> np.ndarray:
    return np.random.default_rng(count).permutation(np.arange(JETS) % count)


def test_the_fine_tuned_network_starts_exactly_as_the_linear_probe(
    encoded: Encoded, jets: step.Jets, embedding: np.ndarray
) -> None:
    probe = fit_logistic(embedding, classes_of(2))
    tagger = EncoderTagger("fine-tuned", config.features, config.encoder)
    params = finetune.start_from(tagger, encoded.params, *finetune.binary_readout_of(probe))
    np.testing.assert_allclose(Trained(tagger, params).score(jets), probe.score(embedding), rtol=1e-4, atol=1e-4)


def test_so_it_does_with_many_classes(encoded: Encoded, jets: step.Jets, embedding: np.ndarray) -> None:
    probe = fit_multinomial(embedding, classes_of(3))
    tagger = EncoderTagger("fine-tuned", config.features, config.encoder, 3)
    params = finetune.start_from(tagger, encoded.params, *finetune.readout_of(probe))
    np.testing.assert_allclose(Trained(tagger, params).logits(jets), probe.logits(embedding), rtol=1e-4, atol=1e-4)


def test_all_of_the_encoder_and_nothing_of_the_projection_head_is_kept(encoded: Encoded, jets: step.Jets) -> None:
    tagger = EncoderTagger("fine-tuned", config.features, config.encoder)
    slopes = np.zeros((encoded.params["head_1"]["w"].shape[0], 2))
    params = finetune.start_from(tagger, encoded.params, slopes, np.zeros(2))
    made = tagger.init(jax.random.key(0), jets)
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, made)
    for name in params.keys() - {finetune.READOUT}:
        jax.tree.map(np.testing.assert_array_equal, params[name], encoded.params[name])


def test_a_step_changes_the_encoder_too(encoded: Encoded, jets: step.Jets) -> None:
    tagger = EncoderTagger("from scratch", config.features, config.encoder)
    start = tagger.init(jax.random.key(0), jets)
    trained = fit(tagger, jets, classes_of(2), Training(steps=1, batch=16), start=start)
    moved = jax.tree.map(lambda a, b: bool((np.asarray(a) != b).any()), start, trained.params)
    assert moved["embed"]["w"]
    assert moved[finetune.READOUT]["w"]


def test_training_sees_turned_jets_and_scoring_does_not(encoded: Encoded, jets: step.Jets) -> None:
    tagger = EncoderTagger("from scratch", config.features, config.encoder)
    params = tagger.init(jax.random.key(0), jets)
    a, b = (np.asarray(tagger.apply(params, jets, jax.random.key(seed))) for seed in (1, 2))
    assert (a != b).any(axis=1).all()
    still = [np.asarray(tagger.apply(params, jets, None)) for _ in range(2)]
    np.testing.assert_array_equal(*still)


def test_more_labels_are_trained_on_for_more_steps() -> None:
    steps = [finetune.training(labels, 0, pretrained=True).steps for labels in (100, 1_000, 10_000, 60_000)]
    assert steps == [69, 181, 478, 1015]
    assert finetune.training(100, 3, pretrained=False).seed == 3
