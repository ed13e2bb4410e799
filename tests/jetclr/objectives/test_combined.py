import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jetclr.objectives import BYOL, DINO, IBOT, AnomCLR, Combined, MaskedParticles, MoCo, NTXent, SupCon, Term, VICReg
from jetclr.objectives.protocol import Sizes
from tests.seen import compare, judge, outputs, rows_of

SIZES = Sizes(width=4, projection=3, features=2)


def several(*weighted: tuple[float, object]) -> Combined:
    return Combined(tuple(Term(weight, objective) for weight, objective in weighted))


def test_losses_are_added_up_by_weight_and_logged_apart() -> None:
    a, b = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 4)), jnp.float32)
    parts = NTXent(0.2), VICReg(), NTXent(0.5)
    values = [float(compare(objective, a, b).value) for objective in parts]
    found = compare(several((1.0, parts[0]), (0.1, parts[1]), (2.0, parts[2])), a, b, memory=((), (), ()))
    np.testing.assert_allclose(found.value, values[0] + 0.1 * values[1] + 2 * values[2], rtol=1e-5)
    logged = [found.metrics[f"loss_{name}"] for name in ("NTXent", "VICReg", "NTXent_2")]
    np.testing.assert_allclose(logged, values, rtol=1e-6)
    np.testing.assert_allclose(found.metrics["alignment"], compare(parts[0], a, b).metrics["alignment"], rtol=1e-6)


def test_each_term_has_its_own_networks_rows_and_memory() -> None:
    """Two of a kind with other weights give what each gives alone."""
    rng = np.random.default_rng(0)
    z, t = jnp.asarray(rng.normal(size=(2, 8, 3)), jnp.float32)
    both = several((1.0, DINO(5)), (0.5, DINO(7, 0.2)), (1.0, MoCo(queue=4)))
    networks = {
        name: (rng.normal(size=(own.inputs, own.width)), rng.normal(size=own.width))
        for name, own in both.networks(SIZES).items()
    }
    assert [own.width for own in both.networks(SIZES).values()] == [5, 7]
    memory = both.begin(SIZES)
    found = judge(both, rows_of(both, outputs(z, **networks), outputs(t, **networks), memory=memory), memory)
    for i, (term, kind) in enumerate(zip(both.terms, ("DINO", "DINO_2", "MoCo"), strict=True)):
        prefix = f"term_{i + 1}_"
        own = {name.removeprefix(prefix): x for name, x in networks.items() if name.startswith(prefix)}
        alone = judge(
            term.objective, rows_of(term.objective, outputs(z, **own), outputs(t, **own), memory=memory[i]), memory[i]
        )
        np.testing.assert_allclose(found.metrics[f"loss_{kind}"], alone.value, rtol=1e-5)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), found.memory[i], alone.memory)


def test_it_needs_what_any_of_its_terms_needs() -> None:
    plain = several((1.0, NTXent()), (1.0, VICReg()))
    assert not any((plain.teacher, plain.labels, plain.anomalies, plain.hides))
    assert plain.takes_anomalies
    assert plain.compared(2) == 2
    assert several((1.0, NTXent()), (1.0, BYOL())).teacher
    assert several((1.0, SupCon()), (1.0, VICReg())).labels
    assert several((1.0, AnomCLR()), (1.0, VICReg())).anomalies
    assert several((1.0, IBOT(share=0.2)), (1.0, MaskedParticles(0.2))).hides == 0.2
    assert several((1.0, NTXent()), (1.0, MaskedParticles(0.4))).hides == 0.4


def test_terms_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(ValueError, match=r"hide the shares 0\.2, 0\.3 of the constituents"):
        several((1.0, IBOT(share=0.2)), (1.0, MaskedParticles(0.3)))
    with pytest.raises(ValueError, match="holds another Combined; give the terms of that instead"):
        several((1.0, NTXent()), (1.0, several((1.0, NTXent()), (1.0, VICReg()))))
    with pytest.raises(ValueError, match=r"Combined\.terms has 1; a sum takes two or more"):
        several((1.0, NTXent()))
    with pytest.raises(ValueError, match=r"Term\.weight is 0; it must be positive"):
        Term(0, NTXent())
