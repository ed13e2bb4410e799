# SPDX-License-Identifier: Apache-2.0
"""A jetclr encoder in PyTorch: one file to copy, which needs torch and safetensors, and nothing else.

    from jetclr_encoder import JetEncoder

    encoder = JetEncoder.from_file("jetclr.safetensors")
    embedding = encoder(pt, eta, phi, mask)  # [B, N] each -> [B, D]

B jets, N constituents of each with padding, in any order: pt in GeV, eta, phi in radians, mask 1 for a constituent and
0 for padding. The encoder is an ordinary nn.Module in float32: `.to("cuda")`, `.train()` for dropout, `.parameters()`
for an optimizer. Opening a file reads numbers and text; nothing in it is executed.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

FORMAT = "jetclr encoder 1"
FLOOR = 1e-8  # keeps logarithms of padding finite
MASKED = -1e9  # not -inf: a jet without constituents must give finite numbers
SUMMED = 50  # constituents of a usual jet, by which plain sums are divided
NEAR, STEEPEST = 0.005, 9.0  # of pairs, added to angles in quadrature, and up to where squares of features count
PAIRS = {"ln_dr": (-1.7, 1.2), "ln_kt": (-6.5, 1.3), "ln_z": (-1.5, 0.9), "ln_m2": (-12.0, 2.5)}  # mean and spread
TYPES = ("charged_hadron", "neutral_hadron", "photon", "electron", "muon")  # 1, 2, ... in the column `type`
FEATURES = {  # of the columns [B, N] and the share z of the jet's pT; each of order one for a jet of large radius
    "pt_600": lambda c, z: c["pt"] / 600,
    "z": lambda c, z: 4 * z,
    "log_z": lambda c, z: (z.clamp(min=FLOOR).log() + 5) / 2,
    "log_pt": lambda c, z: (c["pt"].clamp(min=FLOOR).log() - 1.5) / 2,
    "eta": lambda c, z: c["eta"] / 0.3,
    "phi": lambda c, z: c["phi"] / 0.3,
    "r": lambda c, z: _root(c["eta"] ** 2 + c["phi"] ** 2) / 0.3,
    "r2": lambda c, z: (c["eta"] ** 2 + c["phi"] ** 2) / 0.09,
    "charge": lambda c, z: c["charge"],
    "d0": lambda c, z: c["d0"].tanh(),
    "d0_error": lambda c, z: c["d0_error"].clamp(0, 1),
    "dz": lambda c, z: c["dz"].tanh(),
    "dz_error": lambda c, z: c["dz_error"].clamp(0, 1),
    "puppi": lambda c, z: c["puppi"],
} | {kind: lambda c, z, number=i + 1: (c["type"] == number).to(z.dtype) for i, kind in enumerate(TYPES)}


class JetEncoder(nn.Module):
    """A permutation-invariant transformer over the constituents of a jet, with its preprocessing.

    `config` has the sections "features", "encoder" and "head" of a training configuration; `layer` is what calling the
    encoder gives, one of `layer_names`. Raises ValueError for a layer or a feature that there is not.
    """

    def __init__(self, config: dict[str, Any], layer: str = "embedding") -> None:
        super().__init__()
        self.config, self.layer = config, layer
        encoder, head, columns = config["encoder"], config["head"], config["features"]["columns"]
        heads = [f"head_{i + 1}" for i in range(len(head["hidden"]))]
        self.layer_names = [*(f"layer_{i}" for i in range(encoder["layers"] + 1)), "embedding", *heads, "projection"]
        for name, known in [(layer, self.layer_names), *((column, FEATURES) for column in columns)]:
            if name not in known:
                raise ValueError(f"{name!r} is not known; known are {', '.join(known)}")
        extras = {"type" if name in TYPES else name for name in columns}
        self.extras = sorted(extras & {"charge", "d0", "d0_error", "dz", "dz_error", "puppi", "type"})
        width, hidden = encoder["width"], encoder["feedforward"]
        parts: dict[str, nn.Module] = {"embed": nn.Linear(len(columns), width), "final_norm": nn.LayerNorm(width)}
        for i in range(encoder["layers"]):
            parts[f"attention_norm_{i}"] = nn.LayerNorm(width)
            parts[f"block_{i}_qkv"] = nn.Linear(width, 3 * width)
            parts[f"block_{i}_out"] = nn.Linear(width, width)
            parts[f"feedforward_norm_{i}"] = nn.LayerNorm(width)
            parts[f"block_{i}_up"] = nn.Linear(width, hidden)
            parts[f"block_{i}_down"] = nn.Linear(hidden, width)
        if encoder.get("pairwise"):  # files of earlier versions say nothing of it
            parts["pairs"] = nn.Linear(2 * len(encoder["pairwise"]), encoder["heads"], bias=False)
        if "attention" in encoder["pooling"]:
            parts["pool_query"] = nn.Linear(width, encoder["heads"], bias=False)
            parts["pool_value"] = nn.Linear(width, width)
        fixed = [name for name in encoder["pooling"] if name != "attention"] or ["pt"]
        before = max(encoder["layers"] - 1, 0) if encoder.get("depth") == "all" else 0
        width *= len(encoder["pooling"]) + before * len(fixed)
        if encoder["wide"]:
            parts |= {"wide_norm": nn.LayerNorm(width), "wide": nn.Linear(width, encoder["wide"])}
            width += encoder["wide"]
        for name, units in zip([*heads, "projection"], [*head["hidden"], head["width"]]):  # noqa: B905  (Python 3.9)
            parts[name] = nn.Linear(width, units)
            width = units
        self.parts = nn.ModuleDict(parts)
        self.dropout = nn.Dropout(encoder["dropout"])

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], layer: str | None = None) -> JetEncoder:
        """The encoder in a file of `jetclr export --to torch`, in evaluation mode; half precision becomes float32.

        `layer` is the exported one if None, the first where there are several. Raises ValueError for a file that
        holds something else.
        """
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise ValueError(f"{path} is not {FORMAT!r}, which this module reads: {metadata.get('format')!r}")
            state = {_torch_name(name): _turned(file.get_tensor(name)).float() for name in file.keys()}  # noqa: SIM118
        try:
            config = json.loads(metadata["config"])
            if config["encoder"]["layers"] > len(state):
                raise ValueError(f"{config['encoder']['layers']} layers have more than {len(state)} arrays")
            with torch.device("meta"):  # whatever sizes the config claims, no memory is taken for them
                encoder = cls(config, layer or json.loads(metadata["layers"])[0])
            encoder.load_state_dict(state, assign=True)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"{path} does not hold the encoder that was asked for: {error}") from None
        return encoder.train(False)

    def to_file(self, path: str | os.PathLike[str]) -> None:
        """Write the encoder as it is now, for `from_file`."""
        tensors = {_file_name(name): _turned(x) for name, x in self.state_dict().items()}
        metadata = {"format": FORMAT, "config": json.dumps(self.config), "layers": json.dumps([self.layer])}
        save_file(tensors, path, metadata)

    def forward(self, pt: Tensor, eta: Tensor, phi: Tensor, mask: Tensor | None = None, **extras: Tensor) -> Tensor:
        """The layer `self.layer` [B, D] of jets [B, N]; without `mask` the constituents are those with pt > 0.

        `extras` are the columns named in `self.extras`. Parameters above the layer take no part, and get no gradient.
        """
        return next(x for name, x in self._walk(pt, eta, phi, mask, extras) if name == self.layer)

    def all_layers(
        self, pt: Tensor, eta: Tensor, phi: Tensor, mask: Tensor | None = None, **extras: Tensor
    ) -> dict[str, Tensor]:
        """All layers by name, in order of depth; otherwise as `forward`."""
        return dict(self._walk(pt, eta, phi, mask, extras))

    def extra_repr(self) -> str:
        return f"{', '.join(['pt', 'eta', 'phi', 'mask', *self.extras])} -> {self.layer}"

    def _walk(
        self, pt: Tensor, eta: Tensor, phi: Tensor, mask: Tensor | None, extras: dict[str, Tensor]
    ) -> Iterator[tuple[str, Tensor]]:
        """Names and values [B, D] of the layers, each computed when it is asked for."""
        parts, encoder = self.parts, self.config["encoder"]
        x, z, real, angles = self._features(pt, eta, phi, mask, extras)
        some = real.to(z.dtype)
        known = {"pt": z, "mean": some / some.sum(-1, keepdim=True).clamp(min=1), "sum": some / SUMMED}
        fixed = [name for name in encoder["pooling"] if name != "attention"]
        weights = torch.stack([known[name] for name in fixed or ["pt"]], dim=1)
        of_keys = self._key_bias(z, real)
        bias = of_keys[:, None, None, :] + (self._pair_bias(z, real, *angles) if encoder.get("pairwise") else 0)
        h = parts["embed"](x).to(x.dtype)  # under autocast too, blocks are summed in full precision
        yield "layer_0", (weights @ h).flatten(1)
        before = []
        for i in range(encoder["layers"]):
            h = h + self.dropout(self._attend(parts[f"attention_norm_{i}"](h), bias, f"block_{i}"))
            up = parts[f"block_{i}_up"](parts[f"feedforward_norm_{i}"](h))
            hidden = self.dropout(F.gelu(up, approximate="tanh"))
            h = h + self.dropout(parts[f"block_{i}_down"](hidden))
            yield f"layer_{i + 1}", (weights @ h).flatten(1)
            if encoder.get("depth") == "all" and i + 1 < encoder["layers"]:
                before.append((weights @ F.layer_norm(h, h.shape[-1:])).flatten(1))
        h = parts["final_norm"](h)
        pooled = [(weights @ h).flatten(1)] if fixed else []
        if "attention" in encoder["pooling"]:
            pooled.append(self._asked(h, of_keys, real))
        h = torch.cat(pooled + before, dim=-1)
        if encoder["wide"]:
            h = torch.cat([h, F.gelu(parts["wide"](parts["wide_norm"](h)), approximate="tanh")], dim=-1)
        yield "embedding", h
        for name in self.layer_names[encoder["layers"] + 2 : -1]:
            h = F.gelu(parts[name](h), approximate="tanh")
            yield name, h
        yield "projection", parts["projection"](h)

    def _key_bias(self, z: Tensor, real: Tensor) -> Tensor:
        """Added to the scores for each key [B, N]: the continuous mask; log z, without a floor, if that is safe."""
        if self.config["encoder"].get("irc_safe"):
            return torch.where(real & (z > 0), torch.where(z > 0, z, 1).log(), MASKED)
        power = {"pt": 0.5, "plain": 0.0}[self.config["encoder"]["attention"]]
        return torch.where(real, power * z.clamp(min=FLOOR).log(), MASKED)

    def _pair_bias(self, z: Tensor, real: Tensor, eta: Tensor, phi: Tensor) -> Tensor:
        """Added to the scores for each head, query and key [B, H, N, N]: of features of pairs and their squares."""
        (eta, eta2), (phi, phi2), (z, z2) = ((x[:, :, None], x[:, None, :]) for x in (eta, phi, z))
        eta, phi, ln, ln2 = eta - eta2, _wrapped(phi - phi2), z.clamp(min=FLOOR).log(), z2.clamp(min=FLOOR).log()
        found = {
            "ln_dr": 0.5 * (eta**2 + phi**2 + NEAR**2).log(),
            "ln_z": torch.minimum(ln, ln2) - (z + z2).clamp(min=FLOOR).log(),
            "ln_m2": ln + ln2 + (4 * ((eta / 2).sinh() ** 2 + (phi / 2).sin() ** 2) + NEAR**2).log(),
        }
        found["ln_kt"] = torch.minimum(ln, ln2) + found["ln_dr"]
        columns = [(found[name] - PAIRS[name][0]) / PAIRS[name][1] for name in self.config["encoder"]["pairwise"]]
        x = torch.where((real[:, :, None] & real[:, None, :])[..., None], torch.stack(columns, dim=-1), 0)
        x = self.parts["pairs"](torch.cat([x, (x * x).clamp(max=STEEPEST)], dim=-1))
        return x.to(z.dtype).permute(0, 3, 1, 2)

    def _asked(self, h: Tensor, of_keys: Tensor, real: Tensor) -> Tensor:
        """Pooling by attention [B, D]: of each head a mean of its values, 0 for a jet without constituents."""
        scores = self.parts["pool_query"](h).to(of_keys.dtype).mT + of_keys[:, None, :]
        shares = torch.where(real[:, None, :], scores.softmax(-1), 0)
        values = self.parts["pool_value"](h).to(shares.dtype).unflatten(-1, (shares.shape[1], -1)).transpose(1, 2)
        return (shares[:, :, None, :] @ values).flatten(1)

    def _attend(self, h: Tensor, bias: Tensor, name: str) -> Tensor:
        shape = (3, self.config["encoder"]["heads"], -1)
        query, key, value = self.parts[f"{name}_qkv"](h).unflatten(-1, shape).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(
            query, key, value, attn_mask=bias.to(query.dtype), dropout_p=self.dropout.p if self.training else 0.0
        )
        return self.parts[f"{name}_out"](mixed.transpose(1, 2).flatten(2))

    def _features(
        self, pt: Tensor, eta: Tensor, phi: Tensor, mask: Tensor | None, extras: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor]]:
        """What the network sees: features [B, N, F], shares of pT, mask and angles [B, N], all zero where padded."""
        if missing := [name for name in self.extras if name not in extras]:
            raise ValueError(f"the encoder needs {', '.join(missing)} too; pass {missing[0]}=... [jets, constituents]")
        mask = torch.ones_like(pt) if mask is None else mask
        columns = {"pt": pt, "eta": eta, "phi": phi, "mask": mask} | {name: extras[name] for name in self.extras}
        for name, x in columns.items():
            if x.ndim != 2 or x.shape != pt.shape:
                raise ValueError(f"{name} is {list(x.shape)} and pt {list(pt.shape)}; give [jets, constituents]")
        if not pt.shape[1]:  # one empty slot, or there is nothing to look for the hardest in
            columns = {name: F.pad(x, (0, 1)) for name, x in columns.items()}
        real = (columns["mask"] > 0.5) & (columns["pt"] > 0)
        dtype = self.parts["embed"].weight.dtype
        c = {name: torch.where(real, x.to(dtype), 0) for name, x in columns.items()}
        total = c["pt"].sum(-1, keepdim=True)
        z = c["pt"] / torch.where(total > 0, total, 1)
        if self.config["features"]["center"]:
            c |= _centered(c["pt"], c["eta"], c["phi"], z)
        x = torch.stack([FEATURES[name](c, z) for name in self.config["features"]["columns"]], dim=-1)
        return torch.where(real[..., None], x, 0), z, real, (c["eta"], c["phi"])


def _centered(pt: Tensor, eta: Tensor, phi: Tensor, z: Tensor) -> dict[str, Tensor]:
    """Angles from the pT-weighted centroid, by way of the (first) hardest constituent: small numbers round less."""
    hardest = pt == pt.amax(-1, keepdim=True)
    hardest = hardest & (hardest.cumsum(-1) == 1)
    eta = eta - (hardest * eta).sum(-1, keepdim=True)
    phi = _wrapped(phi - (hardest * phi).sum(-1, keepdim=True))
    return {"eta": eta - (z * eta).sum(-1, keepdim=True), "phi": _wrapped(phi - (z * phi).sum(-1, keepdim=True))}


def _wrapped(phi: Tensor) -> Tensor:
    """An angle brought to (-pi, pi]."""
    return phi - torch.ceil((phi - math.pi) / (2 * math.pi)) * (2 * math.pi)


def _root(x: Tensor) -> Tensor:
    """The square root, whose slope is infinite at 0, with a slope of 0 there."""
    return torch.where(x > 0, torch.where(x > 0, x, 1).sqrt(), 0)


def _turned(x: Tensor) -> Tensor:
    """Weights are [in, out] in the file and [out, in] in torch."""
    return (x.T if x.ndim == 2 else x).contiguous()


def _torch_name(name: str) -> str:
    module, _, kind = name.partition("/")
    return f"parts.{module}.{'weight' if kind in ('w', 'scale') else 'bias'}"


def _file_name(name: str) -> str:
    _, module, kind = name.split(".")
    weight, bias = ("scale", "offset") if "norm" in module else ("w", "b")
    return f"{module}/{weight if kind == 'weight' else bias}"
