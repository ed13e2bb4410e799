"""JetClass (Zenodo 6619768; arXiv:2202.03772): ROOT files with a tree `tree`, read through uproot.

Constituents are `vector<float>` branches; eta and phi come from the momenta, because `part_deta` has its sign flipped
for jets with eta < 0. The class is told by ten flags, of types that differ. uproot is an optional extra, `root`.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int8, Int32, Int64, Shaped

from jetclr.data.chunk import JetChunk, slice_chunk
from jetclr.data.kinematics import constituent_columns
from jetclr.data.readers.checks import MAX_ENERGY, MAX_PHI, existing_file, reading, refuse_unsound, whole_numbers
from jetclr.data.readers.momenta import wrapped
from jetclr.errors import UserError

LABELS = dict(enumerate(("QCD", "Hbb", "Hcc", "Hgg", "H4q", "Hqql", "Zqq", "Wqq", "Tbqq", "Tbl")))
ROWS = 4096
SPAN_ROWS, SPAN_BYTES = 16_384, 64 << 20  # read at once: a basket is inflated whole, and may hold many chunks

MOMENTA = ("part_px", "part_py", "part_pz", "part_energy")
TRACKS = {"part_d0val": "d0", "part_d0err": "d0_error", "part_dzval": "dz", "part_dzerr": "dz_error"}
TYPES = ("ChargedHadron", "NeutralHadron", "Photon", "Electron", "Muon")  # numbered as in CONSTITUENT_TYPES, from 1
PARTICLE_BRANCHES = (*MOMENTA, *TRACKS, "part_charge", *(f"part_is{name}" for name in TYPES))
LABEL_BRANCHES = tuple(f"label_{name}" for name in LABELS.values())
JET_BRANCHES = ("jet_pt", "jet_eta", "jet_phi", "jet_energy")
OPTIONAL = {"jet_sdmass": "softdrop_mass", **{f"jet_tau{n}": f"tau{n}" for n in range(1, 5)}} | {
    name: name
    for name in ("aux_genpart_eta", "aux_genpart_phi", "aux_genpart_pid", "aux_genpart_pt", "aux_truth_match")
}
SPLITS = ("train", "val", "test")


def recognises(path: Path) -> bool:
    """Whether a ROOT file has a tree `tree` with the branches of JetClass; never raises."""
    try:
        rows(path)
    except (UserError, OSError):
        return False
    return True


def rows(path: Path) -> int:
    """Jets in a file. Raises UserError for another layout and where uproot is missing."""
    with _tree(path) as tree:
        return int(tree.num_entries)


def read(path: Path, start: int, stop: int) -> Iterator[JetChunk]:
    """Jets start:stop; a file in `train_100M`, `val_5M` or `test_20M`, or so named itself, tells the split.

    Constituents have pt, eta, phi, charge, type, d0, d0_error, dz, dz_error [mm]. Jets have jet_pt, jet_eta, jet_phi,
    label and row; jet_mass, from the file's energy, pT and eta of the jet, so that the four agree; and, as far as the
    file has them, softdrop_mass, tau1 to tau4 and the generator's aux_*. Raises UserError for another layout, numbers
    that are no particle's and jets without exactly one label.
    """
    split = split_of(path)
    with _tree(path) as tree:
        stop = min(stop, int(tree.num_entries))
        step = _span_rows(tree)
        for first in range(start, stop, step):
            span = _read_span(tree, path, first, min(first + step, stop))
            if split is not None:
                span.jets["split"] = np.full(len(span.jets["row"]), split, np.int8)
            for begin in range(0, len(span.jets["row"]), ROWS):
                yield slice_chunk(span, begin, min(begin + ROWS, len(span.jets["row"])))


def split_of(path: Path) -> int | None:
    """0, 1 or 2 for the training, validation or test jets that a path tells of; None where it does not.

    A file's name tells by one of its words; a folder's by being `train`, or any above by being like `train_100M`.
    """
    path = path.absolute()
    words = {word for word in re.split(r"[\W_]+", path.stem.lower()) if word in SPLITS}
    if len(words) == 1:
        return SPLITS.index(words.pop())
    if path.parent.name.lower() in SPLITS:
        return SPLITS.index(path.parent.name.lower())
    for folder in path.parents:
        if found := re.search(r"(?:^|_)(train|val|test)_\d+[kM](?:_|$)", folder.name):
            return SPLITS.index(found[1])
    return None


@contextmanager
def _tree(path: Path) -> Iterator[Any]:
    existing_file(path)
    try:
        import uproot
    except ImportError as error:
        raise UserError(f"reading ROOT files needs uproot: pip install 'jetclr[root]' ({error})") from None
    with reading(path, "ROOT"):
        # Mapped, not read by threads: nothing is allocated by what a damaged file claims.
        file = uproot.open(path, handler=uproot.source.file.MemmapSource)
    with file:
        with reading(path, "ROOT"):
            tree = file.get("tree")
            if not isinstance(tree, uproot.TTree):
                held = sorted(f"{n} ({kind})" for n, kind in file.classnames(recursive=False, cycle=False).items())
                raise UserError(f"{path} has no tree 'tree', so it is not JetClass; it holds {held[:10]}")
            _check_layout(tree, path)
        yield tree


def _check_layout(tree: Any, path: Path) -> None:
    import uproot

    missing = [name for name in (*PARTICLE_BRANCHES, *JET_BRANCHES, *LABEL_BRANCHES) if name not in tree]
    if missing:
        raise UserError(f"{path} is not JetClass: its tree has no branches {missing}")
    for name in (*PARTICLE_BRANCHES, *JET_BRANCHES, *LABEL_BRANCHES, *_optional(tree)):
        branch, kind = tree[name], tree[name].interpretation
        if name in PARTICLE_BRANCHES:
            kind = kind.content if isinstance(kind, uproot.AsJagged) else None
        if not isinstance(kind, uproot.AsDtype) or kind.to_dtype.kind not in "biuf" or kind.inner_shape:
            raise UserError(f"{path} is not JetClass: branch {name!r} is {branch.typename!r}")
        ends = (branch.num_entries, branch.entry_offsets[-1])
        if ends != (tree.num_entries, tree.num_entries):
            raise UserError(f"{path} is damaged: branch {name!r} has {ends[1]} entries of {tree.num_entries}")


def _optional(tree: Any) -> list[str]:
    return [name for name in OPTIONAL if name in tree]


def _span_rows(tree: Any) -> int:
    """Jets to read at once, by the mean size of a jet."""
    size = sum(max(int(tree[name].uncompressed_bytes), 0) for name in PARTICLE_BRANCHES)
    return int(np.clip(SPAN_BYTES * int(tree.num_entries) // max(size, 1), 1, SPAN_ROWS))


@np.errstate(over="ignore", invalid="ignore")  # what becomes infinite or NaN is refused
def _read_span(tree: Any, path: Path, start: int, stop: int) -> JetChunk:
    offsets, particles = _read_particles(tree, path, start, stop)
    names = (*JET_BRANCHES, *LABEL_BRANCHES, *_optional(tree))
    with reading(path, "ROOT"):
        jets = {name: np.asarray(tree[name].array(entry_start=start, entry_stop=stop, library="np")) for name in names}
    momenta = np.stack([particles[name].astype(np.float64) for name in MOMENTA])
    named = {name.removeprefix("part_"): p for name, p in zip(MOMENTA[:3], momenta, strict=False)}
    refuse_unsound({"pt": np.hypot(momenta[0], momenta[1]), **named}, momenta[3], offsets, start, path)
    constituents: dict[str, np.ndarray] = {**constituent_columns(momenta)}
    constituents["charge"] = whole_numbers(particles["part_charge"], np.int8, "part_charge", path, start, offsets)
    constituents["type"] = _types(particles)
    constituents |= {name: particles[branch].astype(np.float32) for branch, name in TRACKS.items()}
    return JetChunk(offsets, constituents, _jet_columns(jets, path, start))


def _read_particles(
    tree: Any, path: Path, start: int, stop: int
) -> tuple[Int64[np.ndarray, " edges"], dict[str, Shaped[np.ndarray, " M"]]]:
    import awkward as ak

    particles: dict[str, np.ndarray] = {}
    counts: np.ndarray | None = None
    for name in PARTICLE_BRANCHES:  # one by one: a single branch's baskets are in memory
        with reading(path, "ROOT"):
            array = tree[name].array(entry_start=start, entry_stop=stop, library="ak")
            found = ak.to_numpy(ak.num(array)).astype(np.int64)
            particles[name] = ak.to_numpy(ak.flatten(array))
        counts = found if counts is None else counts
        if not np.array_equal(found, counts):
            jet = int(np.argmax(found != counts))
            raise UserError(
                f"jet {start + jet} of {path} has {counts[jet]} constituents in {PARTICLE_BRANCHES[0]} "
                f"and {found[jet]} in {name}"
            )
    assert counts is not None
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), particles


def _types(particles: dict[str, np.ndarray]) -> Int8[np.ndarray, " M"]:
    """The first of the five flags that is set; 0 where none is."""
    flags = [particles[f"part_is{name}"] != 0 for name in TYPES]
    return np.select(flags, list(range(1, len(TYPES) + 1)), 0).astype(np.int8)


def _jet_columns(jets: dict[str, np.ndarray], path: Path, start: int) -> dict[str, np.ndarray]:
    pt, eta, phi, energy = (jets[name].astype(np.float64) for name in JET_BRANCHES)
    count = len(pt)
    sound = (
        (pt > 0) & (pt < energy * (1 + 1e-4)) & (energy < MAX_ENERGY) & (np.abs(eta) < 100) & (np.abs(phi) < MAX_PHI)
    )
    if not sound.all():
        jet = int(np.argmin(sound))
        found = ", ".join(f"{name} = {jets[name][jet]:g}" for name in JET_BRANCHES)
        raise UserError(f"jet {start + jet} of {path} has {found}; this is no jet's momentum")
    columns = {name: jets[branch].astype(np.float32) for branch, name in OPTIONAL.items() if branch in jets}
    return {
        "jet_pt": pt.astype(np.float32),
        "jet_eta": eta.astype(np.float32),
        "jet_phi": wrapped(phi),
        "jet_mass": _mass(pt, eta, energy).astype(np.float32),
        "label": _label(np.stack([jets[name] for name in LABEL_BRANCHES], dtype=np.float64), path, start),
        "row": np.arange(start, start + count),
        **columns,
    }


def _mass(
    pt: Float64[np.ndarray, " J"], eta: Float64[np.ndarray, " J"], energy: Float64[np.ndarray, " J"]
) -> Float64[np.ndarray, " J"]:
    return np.sqrt(np.maximum(energy**2 - (pt * np.cosh(eta)) ** 2, 0))


def _label(flags: Float64[np.ndarray, "C J"], path: Path, start: int) -> Int32[np.ndarray, " J"]:
    sound = np.isin(flags, (0, 1)).all(axis=0) & (flags.sum(axis=0) == 1)
    if not sound.all():
        jet = int(np.argmin(sound))
        found = {name: float(flag) for name, flag in zip(LABEL_BRANCHES, flags[:, jet], strict=True) if flag != 0}
        raise UserError(f"jet {start + jet} of {path} must have exactly one label set and has {found or 'none'}")
    return flags.argmax(axis=0).astype(np.int32)
