"""Isolation forest: strange jets are those that few random cuts set apart (Liu, Ting & Zhou, ICDM 2008).

scikit-learn grows the trees; they are kept, and walked through, as arrays.

Shapes: B jets, D features, K components, T trees, N nodes of all trees.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from sklearn.ensemble import IsolationForest

from probes.anomaly.arrays import required
from probes.anomaly.head import Progress, Sees, State, no_progress
from probes.anomaly.traced import single
from probes.anomaly.whitening import Whitened
from probes.tables import Features, slices


@dataclass(frozen=True)
class Forest:
    """2^(-mean depth / expected depth) of a jet in trees of random cuts on whitened `components`.

    Each of `trees` sees `jets` of the background, as many as there are at most.
    """

    name: ClassVar[str] = "isolation forest"
    sees: ClassVar[Sees] = "features"
    components: int = 128
    shrink: float = 1e-2
    trees: int = 200
    jets: int = 1024

    def __post_init__(self) -> None:
        if self.trees < 1 or self.jets < 2:
            raise ValueError(f"trees must be positive and jets of each at least two, got {self.trees} and {self.jets}")

    def fit(self, x: Features, *, seed: int = 0, progress: Progress = no_progress) -> ForestDetector:
        """Grow the trees, cut at random from `seed`; raises ValueError as `Whitened.of`."""
        whitened = Whitened.of(x, self.components, self.shrink)
        seen = min(self.jets, len(x))
        grown = IsolationForest(n_estimators=self.trees, max_samples=seen, random_state=seed).fit(whitened(x))
        trees = [one.tree_ for one in grown.estimators_]
        starts = np.concatenate([[0], np.cumsum([tree.node_count for tree in trees])])
        leaf = np.concatenate([tree.children_left < 0 for tree in trees])
        children = [
            np.where(tree.children_left < 0, -1, np.stack([tree.children_left, tree.children_right]) + start)
            for tree, start in zip(trees, starts, strict=False)
        ]
        sizes = np.concatenate([tree.n_node_samples for tree in trees]).astype(np.int64)
        return ForestDetector(
            self,
            whitened,
            starts[:-1].astype(np.int64),
            np.concatenate(children, axis=1).T.astype(np.int64),
            np.where(leaf, 0, np.concatenate([tree.feature for tree in trees])).astype(np.int64),
            np.where(leaf, 0.0, np.concatenate([tree.threshold for tree in trees])),
            np.where(leaf, expected_depth(sizes), 1.0) / expected_depth(np.array([seen])),
        )

    def restore(self, state: State) -> ForestDetector:
        """The detector whose `state()` this is; raises ValueError for arrays that do not fit together."""
        whitened, roots, depth = (
            Whitened.restored(state),
            required(state, "roots", None),
            required(state, "depth", None),
        )
        children, component = required(state, "children", len(depth), 2), required(state, "component", len(depth))
        nodes, leaf = np.arange(len(depth)), children < 0
        # Children lie behind their one parent, so that every walk ends and there is one to each node.
        whole = all(a.dtype.kind == "i" for a in (roots, children, component))
        if not whole or roots.min() < 0 or roots.max() >= len(depth) or children.max() >= len(depth):
            raise ValueError("the trees of an isolation forest point outside of their nodes")
        reached = np.concatenate([roots, children[~leaf]])
        behind = (leaf[:, 0] == leaf[:, 1]).all() and (leaf | (children > nodes[:, None])).all()
        if not behind or len(np.unique(reached)) < len(reached):
            raise ValueError("the nodes of an isolation forest are no trees")
        if component.min() < 0 or component.max() >= whitened.axes.shape[1]:
            raise ValueError(f"an isolation forest cuts components that do not exist: {whitened.axes.shape[1]} do")
        if depth.min() < 0:
            raise ValueError("the nodes of an isolation forest cannot make a jet less deep")
        cuts = required(state, "cuts", len(depth))
        return ForestDetector(self, whitened, roots, children, component, cuts, depth)


@dataclass(frozen=True)
class ForestDetector:
    """Whitened background, and the nodes of all trees.

    `depth` is what a node adds to the depth of a jet that comes to it, in units of the expected depth: one for a cut,
    at a leaf that of the cuts that would set its jets apart. A leaf has the children -1.
    """

    head: Forest
    whitened: Whitened
    roots: Int[np.ndarray, " T"]
    children: Int[np.ndarray, "N 2"]
    component: Int[np.ndarray, " N"]
    cuts: Float[np.ndarray, " N"]
    depth: Float[np.ndarray, " N"]

    def score(self, x: Features) -> Float[np.ndarray, " B"]:
        """Between 0 and 1; raises ValueError for another number of features, NaN or infinity."""
        # Trees were grown on, and cut, numbers of single precision.
        z = self.whitened(x).astype(np.float32)
        out = np.empty(len(z))
        for rows in slices(len(z), 4 * len(self.roots)):
            out[rows] = self._depth(z[rows])
        return 2.0**-out

    def _depth(self, z: Float[np.ndarray, "R K"]) -> Float[np.ndarray, " R"]:
        """Mean over the trees; all of them are walked through at once."""
        at = np.repeat(self.roots[None], len(z), axis=0)
        depth, jet = np.zeros(len(z)), np.repeat(np.arange(len(z)), len(self.roots))
        at = at.ravel()
        while len(at):
            depth += np.bincount(jet, self.depth[at], minlength=len(z))
            inner = self.children[at, 0] >= 0
            at, jet = at[inner], jet[inner]
            right = z[jet, self.component[at]] > self.cuts[at]
            at = self.children[at, right.astype(np.int64)]
        return depth / len(self.roots)

    def traced(self, x: Float[Array, "B D"]) -> Float[Array, " B"]:
        """`score` as pure JAX; it jumps where a component lies on a cut, and there rounding decides."""
        z, walk = self.whitened.traced(x), self._walk()
        children, component, cuts = jnp.asarray(walk.children), jnp.asarray(walk.component), single(walk.cuts)
        at = jnp.broadcast_to(jnp.asarray(walk.roots), (x.shape[0], len(walk.roots)))
        for _ in range(walk.levels):
            right = jnp.take_along_axis(z, component[at], axis=1) > cuts[at]
            at = children[2 * at + right.astype(jnp.int32)]
        return jnp.exp(-math.log(2) * jnp.mean(single(walk.depth)[at], axis=1))

    def _walk(self) -> _Walk:
        nodes, inner = np.arange(len(self.depth)), self.children[:, 0] >= 0
        depth, level = self.depth.copy(), np.zeros(len(nodes), np.int64)
        at = self.roots
        while len(at := at[inner[at]]):
            for child in self.children[at].T:
                depth[child] = depth[at] + self.depth[child]
                level[child] = level[at] + 1
            at = self.children[at].ravel()
        # A number of single precision lies above a cut where it lies above the next smaller of its kind.
        cuts = self.cuts.astype(np.float32)
        cuts = np.where(cuts > self.cuts, np.nextafter(cuts, np.float32(-np.inf)), cuts)
        children = np.where(inner[:, None], self.children, nodes[:, None]).astype(np.int32)
        return _Walk(
            self.roots.astype(np.int32),
            children.ravel(),
            self.component.astype(np.int32),
            cuts,
            depth,
            int(level.max()),
        )

    def state(self) -> dict[str, np.ndarray]:
        """The arrays that `restore` takes."""
        own = {"roots": self.roots, "children": self.children, "component": self.component}
        return self.whitened.state() | own | {"cuts": self.cuts, "depth": self.depth}


class _Walk(NamedTuple):
    """The trees for walks of `levels` steps that all jets take alike: a leaf is its own child.

    `depth` is that of a jet that has come to a node. Children of node n stand at 2 n and 2 n + 1.
    """

    roots: Int[np.ndarray, " T"]
    children: Int[np.ndarray, " 2N"]
    component: Int[np.ndarray, " N"]
    cuts: Float[np.ndarray, " N"]
    depth: Float[np.ndarray, " N"]
    levels: int


def expected_depth(jets: Int[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
    """Mean number of cuts that set one of so many jets apart: 2 H(n - 1) - 2 (n - 1) / n; none for one jet."""
    n = np.maximum(jets, 2).astype(np.float64)
    many = 2 * (np.log(n - 1) + np.euler_gamma) - 2 * (n - 1) / n
    return np.where(jets <= 1, 0.0, np.where(jets == 2, 1.0, many))
