"""How few labels are enough: which jets are labelled, draw by draw.

Shapes: B jets, N labelled jets.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int


def label_draws(
    labels: Int[np.ndarray, " B"] | Bool[np.ndarray, " B"], count: int, draws: int, seed: int = 0
) -> list[Int[np.ndarray, " N"]]:
    """For each draw the rows of `count` labelled jets, ascending, each class with its share of all jets.

    Draws of one `seed` are nested: the 100 labelled jets of a draw are among its 1,000. Raises ValueError if there are
    fewer jets, if a class would have fewer than two of them, or for `draws` < 1.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1:
        raise ValueError(f"labels must be one number a jet, got shape {labels.shape}")
    if not 0 < count <= len(labels):
        raise ValueError(f"{count} labelled jets were asked for, of {len(labels)}")
    if draws < 1:
        raise ValueError(f"at least one draw is needed, got {draws}")
    classes, member, jets = np.unique(labels, return_inverse=True, return_counts=True)
    out = []
    for draw in range(draws):
        place = np.empty(len(labels))
        rng = np.random.default_rng((seed, draw))
        for c in range(len(classes)):
            # Evenly spread over one common order: any beginning of it has each class's share, to one jet.
            place[rng.permutation(np.flatnonzero(member == c))] = (np.arange(jets[c]) + 0.5) / jets[c]
        rows = np.sort(np.lexsort((member, place))[:count])
        drawn = np.bincount(member[rows], minlength=len(classes))
        if drawn.min() < 2:
            worst = int(np.argmin(drawn))
            raise ValueError(
                f"{count} labelled jets leave {drawn[worst]} of class {classes[worst]}, a probe needs two of each; "
                "ask for more labels"
            )
        out.append(rows)
    return out
