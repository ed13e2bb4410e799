"""One file from constituents to scores: heads and probes at the end of the graph, and those that do not fit."""

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime as ort
import pytest

from augmentations.jets import make_jets
from jetclr.anomaly.saved import SavedHead, Seen, as_inputs, save_head
from jetclr.benchmark.jets import Part
from jetclr.benchmark.representations import Encoded, OnConstituents, jets_of
from jetclr.data.store import Store
from jetclr.embed import embed_jets
from jetclr.errors import UserError
from jetclr.export import verify
from jetclr.export.export import _rounding
from jetclr.export.flavors import FLAVORS
from jetclr.export.graph import Frozen, Tail
from jetclr.export.onnx_file import to_onnx
from jetclr.export.tails import head_tail, probe_tail
from jetclr.run import Run, open_run
from probes.anomaly.distance import Mahalanobis, RelativeMahalanobis
from probes.anomaly.head import Detector
from probes.anomaly.heads import HEADS
from probes.anomaly.neighbours import Neighbours
from tests.jetclr.anomaly.kinds import write_kind
from tests.probes.anomaly.test_heads import quick
from tests.probes.anomaly.test_traced import fitted

SEEN = 12
"""Constituents that the head on constituents sees: fewer than the encoder."""

FACTS = {"background": "fit", "jets": 300}


@pytest.fixture(scope="module")
def opened(run: Path) -> Run:
    return open_run(run)


@pytest.fixture(scope="module")
def embedded(opened: Run, stores: dict[str, Path]) -> np.ndarray:
    store = Store(stores["fit"])
    return embed_jets(opened.config, opened.params, store, np.arange(len(store)), ("embedding",))["embedding"]


def saved(path: Path, detector: Detector, seen: Seen) -> Path:
    layer = "" if isinstance(seen, OnConstituents) else "embedding"
    save_head(path, SavedHead(detector, layer, seen, FACTS))
    return path


def encoded(run: Run) -> Encoded:
    return Encoded("run", "run", run.config, run.params)


@pytest.fixture(scope="module")
def on_jets() -> Detector:
    return fitted(quick(HEADS["constituent autoencoder"]))


@pytest.fixture(scope="module")
def tails(
    opened: Run, embedded: np.ndarray, on_jets: Detector, stores: dict[str, Path], tmp_path_factory
) -> list[Tail]:
    folder = tmp_path_factory.mktemp("tails")
    kept = [saved(folder / "jets.npz", on_jets, OnConstituents("constituents", SEEN))]
    for head in (RelativeMahalanobis(groups=2, components=8), Neighbours(components=8)):
        kept.append(saved(folder / f"{head.name}.npz", head.fit(embedded), encoded(opened)))
    return [head_tail(path, opened) for path in kept] + [probe_tail(opened, [stores["fit"]], "layer_0", 0)]


def test_one_file_from_constituents_to_scores(opened: Run, tails: list[Tail], stores: dict[str, Path]) -> None:
    frozen = Frozen(opened.config, opened.params, ("projection",), tuple(tails))
    ended = ort.InferenceSession(to_onnx(frozen, FLAVORS["batch"], "jetclr", {}), providers=["CPUExecutionProvider"])
    assert [one.name for one in ended.get_outputs()] == [
        *("projection", "score_constituent_autoencoder", "score_relative_mahalanobis", "score_knn", "signal_logit"),
    ]
    assert {one.name: one.shape for one in ended.get_outputs()}["score_knn"] == ["B"]
    random, real = verify.random_jets(frozen), verify.real_jets(frozen, Store(stores["test"]), 64)
    few = {column: x[:, : SEEN // 2] for column, x in random.items()}
    for some in (random, real, few):
        expected = verify.expected(frozen, some)
        for jets in (64, 1):
            (feed,) = FLAVORS["batch"].feeds(frozen, {column: x[:jets] for column, x in some.items()})
            for name, x in zip(frozen.outputs, ended.run(None, feed), strict=True):
                assert verify.difference(x, expected[name][:jets]) < (1e-5 if name == "projection" else 1e-4)


def test_a_head_on_constituents_sees_what_it_was_fitted_on(
    on_jets: Detector, tails: list[Tail], stores: dict[str, Path]
) -> None:
    """The hardest, whatever their order, about their centroid, where the jet is in the detector."""
    store, rows = Store(stores["test"]), np.arange(50)
    expected = on_jets.score(as_inputs(jets_of(Part("scored", store, rows), SEEN, ())))
    wide = store.gather(rows, 30, ())
    assert (wide["pt"][:, SEEN] > 0).any()
    order = np.random.default_rng(0).permutation(30)
    jets = make_jets(*(jnp.asarray(wide[name][:, order]) for name in ("pt", "eta", "phi")))
    np.testing.assert_allclose(tails[0].score(jets), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(jax.jit(tails[0].traced)(jets), expected, rtol=1e-5, atol=1e-5)


def test_a_score_alone_for_one_jet_without_padding(opened: Run, tails: list[Tail]) -> None:
    frozen = Frozen(opened.config, opened.params, (), tuple(tails[:1]))
    ended = ort.InferenceSession(to_onnx(frozen, FLAVORS["atlas"], "jetclr", {}), providers=["CPUExecutionProvider"])
    jets = verify.random_jets(frozen)
    expected = verify.expected(frozen, jets)["score_constituent_autoencoder"]
    found = [ended.run(None, feed)[0] for feed in FLAVORS["atlas"].feeds(frozen, jets)]
    assert verify.difference(np.concatenate(found), expected) < 1e-5


def test_half_precision_is_told_of_the_layers_that_scores_are_made_of(opened: Run, tails: list[Tail]) -> None:
    half = jax.tree.map(lambda p: np.asarray(p, np.float16), opened.params)
    one, two = Frozen(opened.config, half, (), tuple(tails[:1])), Frozen(opened.config, half, (), tuple(tails))
    assert two.computed == ("embedding", "layer_0")
    jets = {"random": verify.random_jets(one)}
    assert _rounding(opened, one, jets) == {}
    assert 0 < _rounding(opened, two, jets)["random"] < 0.01


def test_a_probe_is_that_of_the_labels(opened: Run, tails: list[Tail], stores: dict[str, Path]) -> None:
    tail, store = tails[-1], Store(stores["fit"])
    features = embed_jets(opened.config, opened.params, store, np.arange(len(store)), (tail.layer,))[tail.layer]
    logits, signal = tail.score(features), store.column("label") > 0
    assert logits[signal].mean() > logits[~signal].mean()
    np.testing.assert_allclose(tail.traced(jnp.asarray(features)), logits, rtol=1e-4, atol=1e-4)
    assert "300 jets of fit" in tail.meaning


def test_what_it_says_of_a_head(tails: list[Tail]) -> None:
    assert tails[0].layer == ""
    assert "on the constituents" in tails[0].meaning
    assert tails[1].layer == "embedding"
    assert "relative Mahalanobis on the layer 'embedding', larger for stranger jets" in tails[1].meaning
    assert "fit (300 jets)" in tails[1].meaning


def test_heads_of_other_features_are_refused(opened: Run, embedded: np.ndarray, tmp_path: Path) -> None:
    detector = Mahalanobis(components=4).fit(embedded)
    other = encoded(opened._replace(params=jax.tree.map(lambda p: p * 1.01, opened.params)))
    with pytest.raises(UserError, match=r"another encoder than .* at step 8; .*--checkpoint"):
        head_tail(saved(tmp_path / "other.npz", detector, other), opened)
    centred = replace(opened.config, features=replace(opened.config.features, center=False))
    with pytest.raises(UserError, match="another encoder"):
        head_tail(saved(tmp_path / "features.npz", detector, encoded(opened._replace(config=centred))), opened)
    with pytest.raises(UserError, match="fitted on a file of embeddings"):
        head_tail(saved(tmp_path / "file.npz", detector, None), opened)
    (tmp_path / "text.npz").write_text("no head")
    with pytest.raises(UserError, match="not a fitted anomaly head"):
        head_tail(tmp_path / "text.npz", opened)


def test_stores_that_no_probe_can_be_fitted_on(opened: Run, stores: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no layer 'last'; it has .*embedding"):
        probe_tail(opened, [stores["fit"]], "last", 0)
    with pytest.raises(UserError, match="are background; a probe needs both"):
        probe_tail(opened, [write_kind(tmp_path / "one", 0, 30, 1)], "embedding", 0)
