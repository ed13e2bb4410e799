"""What QCD leaves undetermined: soft and collinear radiation, which no sound observable may depend on."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int32, Key, UInt32

from augmentations import random
from augmentations.jets import Jets, hardest, in_disc, keep, total_pt, wrap_phi
from augmentations.transform import check_range


@dataclass(frozen=True)
class SoftSmear:
    """Smear eta and phi of each constituent by a normal of width `scale` / pT: soft ones move, hard ones stay.

    `scale` and `floor` in GeV; pT is floored at `floor`, so no width exceeds scale / floor (arXiv:2108.04253:
    0.1 GeV and 0.1 GeV).
    """

    scale: float = 0.1
    floor: float = 0.1

    def __post_init__(self) -> None:
        check_range("SoftSmear.scale", self.scale, 0, 100)
        check_range("SoftSmear.floor", self.floor, 0, 1000)

    def __call__(self, key: Key[Array, ""], jets: Jets) -> Jets:
        width = jnp.where(jets.mask, self.scale / jnp.maximum(jets.pt, self.floor), 0)
        shift = random.normal(key, (2, *jets.pt.shape), jets.pt.dtype) * width
        return jets._replace(eta=jets.eta + shift[0], phi=wrap_phi(jets.phi + shift[1]))


@dataclass(frozen=True)
class CollinearSplit:
    """Split randomly chosen constituents in two at the same eta and phi, pT shared z : 1 - z with z uniform.

    Children fill the padding; each constituent splits at most once a call (chain it for more); their number is uniform
    between 0 and what `fraction` of the constituents and the free slots allow. Total pT and every IRC-safe observable
    are kept (arXiv:2108.04253). Children carry their parent's extras.
    """

    fraction: float = 1.0

    def __post_init__(self) -> None:
        check_range("CollinearSplit.fraction", self.fraction, 0, 1)

    def __call__(self, key: Key[Array, ""], jets: Jets) -> Jets:
        _, number, _ = random.split(key, 3)  # `split_collinear` leaves this one alone
        real = jnp.sum(jets.mask)
        most = jnp.minimum((real * self.fraction).astype(jnp.int32), jets.pt.size - real)
        return split_collinear(key, jets, random.randint(number, (), 0, most + 1))


@dataclass(frozen=True)
class SoftLoss:
    """Lose each constituent with probability `most` * exp(-pT / `scale`), `scale` in GeV: soft ones come and go.

    The chance itself is drawn for each jet, uniform between 0 and `most`, so multiplicity and the soft tail cannot
    identify a jet across views. The hardest constituent always stays.
    """

    scale: float = 2.0
    most: float = 1.0

    def __post_init__(self) -> None:
        check_range("SoftLoss.scale", self.scale, 1e-6, 1e9)
        check_range("SoftLoss.most", self.most, 0, 1)

    def __call__(self, key: Key[Array, ""], jets: Jets) -> Jets:
        jet, constituent = random.split(key)
        chance = random.uniform(jet, (), jets.pt.dtype, 0, self.most) * jnp.exp(-jets.pt / self.scale)
        stays = random.uniform(constituent, jets.pt.shape) >= chance
        return keep(jets, stays | hardest(jets))


@dataclass(frozen=True)
class SoftRadiation:
    """Add up to `number` soft constituents, which carry a share uniform in [0, `fraction`] of the jet's pT.

    They lie anywhere within `radius` of the centroid; see `radiate`.
    """

    number: int = 10
    fraction: float = 0.02
    radius: float = 0.8

    def __post_init__(self) -> None:
        check_range("SoftRadiation.number", self.number, 1, 1000)
        check_range("SoftRadiation.fraction", self.fraction, 0, 0.5)
        check_range("SoftRadiation.radius", self.radius, 0, 3)

    def __call__(self, key: Key[Array, ""], jets: Jets) -> Jets:
        fraction, emission = random.split(key)
        share = random.uniform(fraction, (), jets.pt.dtype, 0, self.fraction)
        return radiate(emission, jets, share, number=self.number, radius=self.radius)


def split_collinear(key: Key[Array, ""], jets: Jets, splits: Array | int) -> Jets:
    """One jet [N] with `splits` randomly chosen constituents split in two, as `CollinearSplit` does it.

    Fewer are split where there are fewer constituents or free slots. With one key, more splits are those of fewer and
    some others.
    """
    pick, _, share = random.split(key, 3)
    turn, same_turn = _turns(random.bits(pick, jets.pt.shape), jets.mask)
    real = jnp.sum(jets.mask)
    on = turn < jnp.minimum(splits, jnp.minimum(real, jets.pt.size - real))
    # One number a turn: what a constituent keeps is known where its child is, and needs no look-up.
    tiny = float(jnp.finfo(jets.pt.dtype).eps)  # neither side may be left without momentum
    z = random.uniform_at(share, turn, jets.pt.dtype, tiny, 1 - tiny)
    part = jnp.where(on, jnp.where(jets.mask, z, 1 - z), 1)
    parent = jnp.where(on & ~jets.mask, same_turn, jnp.arange(jets.pt.size))
    columns = jnp.stack([jets.pt, jets.eta, jets.phi, *jets.extras.values()])

    # A loop, or XLA would compute the columns anew, one number at a time, where they are looked up.
    def look_up(i: Array, columns: Array) -> Array:
        return columns.at[i].set(columns[i].at[parent].get(mode="promise_in_bounds"))

    pt, eta, phi, *extras = jax.lax.fori_loop(0, columns.shape[0], look_up, columns)
    return Jets(part * pt, eta, phi, jets.mask | on, dict(zip(jets.extras, extras, strict=True)))


def radiate(key: Key[Array, ""], jets: Jets, fraction: Array | float, *, number: int = 10, radius: float = 0.8) -> Jets:
    """One jet [N] with `number` soft constituents added, which together carry `fraction` of its pT.

    They fill the padding, or as much of it as there is, at places uniform in the disc of `radius` about the centroid;
    their pT are a random division of their sum (the spacings of uniform points), and all others give up this share
    alike, so total pT is kept. They have zero for extras. A jet that is full or empty stays as it is. An observable
    that is infrared safe changes in proportion to `fraction`.
    """
    share, place = random.split(key)
    free = ~jets.mask & (jnp.cumsum(~jets.mask) <= number) & jnp.any(jets.mask)
    weight = jnp.where(free, random.exponential(share, jets.pt.shape, jets.pt.dtype), 0)
    whole = jnp.sum(weight)
    taken = jnp.where(whole > 0, fraction, 0)
    emitted = taken * total_pt(jets) * weight / jnp.where(whole > 0, whole, 1)
    new = emitted > 0
    eta, phi = in_disc(place, jets, radius, jets.pt.size)
    return Jets(
        jnp.where(new, emitted, (1 - taken) * jets.pt),
        jnp.where(new, eta, jets.eta),
        jnp.where(new, phi, jets.phi),
        jets.mask | new,
        jets.extras,
    )


@jax.jit
def _turns(luck: UInt32[Array, " N"], mask: Bool[Array, " N"]) -> tuple[Int32[Array, " N"], Int32[Array, " N"]]:
    """Whose turn comes when: constituents in a random order, given by their luck, free slots in that of their places.

    Both count from zero. And where the constituent is whose turn is that of each free slot; elsewhere the own place.
    """
    slots = luck.shape[0]
    place = jnp.arange(slots)
    # The place in the last digits, so that no two are alike; free slots come after all constituents.
    coarse = (luck >> 2).astype(jnp.int32) & (2**30 - 2 ** (slots - 1).bit_length())
    lot = jnp.where(mask, coarse, 2**30) + place

    rank = _over_slots(lambda rank, other, _: rank + (other < lot), jnp.zeros_like(place), lot, 2**31 - 1)
    turn = jnp.where(mask, rank, rank - jnp.sum(mask))
    free, wanted = jnp.where(mask, -2, turn), jnp.where(mask, turn, -1)
    return turn, _over_slots(lambda found, other, it: jnp.where(free == other, it, found), place, wanted, -1)


def _over_slots(
    step: Callable[[Array, Array, Array | int], Array], start: Int32[Array, " N"], each: Int32[Array, " N"], blank: int
) -> Int32[Array, " N"]:
    """All slots compared with each slot in turn: `step(result so far, what the slot has, its place)`.

    For all that is compared, this takes a fraction of the time of sorting: it is done in wide registers. There are two
    loops or more of many slots each: a single one, unrolled, XLA would repeat for each array that needs its result.
    """
    loops = max(2, -(-each.size // 32))
    slots = -(-each.size // loops)
    each = jnp.pad(each, (0, loops * slots - each.size), constant_values=blank)

    def loop(i: Array, result: Array) -> Array:
        some = jax.lax.dynamic_slice(each, (i * slots,), (slots,))
        for j in range(slots):
            result = step(result, some[j], i * slots + j)
        return result

    return jax.lax.fori_loop(0, loops, loop, start)
