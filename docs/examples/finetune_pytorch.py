"""Fine-tune an exported encoder on labelled jets with torch alone.

    jetclr export runs/toptag toptag_torch --to torch
    cp toptag_torch/jetclr_encoder.py .  # beside this file
    python finetune_pytorch.py toptag_torch/jetclr.safetensors train.npz test.npz

The files of jets, .npz or .h5, hold pt [GeV], eta, phi and whatever else the encoder needs, each [jets, constituents]
with zeros for padding, and label [jets], 1 for signal. First a linear layer is fitted on the frozen embedding, then
both are trained together on jets that are turned at random, and their weights averaged over the last steps. The AUC on
the test jets is printed before, and after each epoch.

With these settings, on 10,000 jets that the encoder of configs/toptag.py has not seen and 10,000 others to measure on,
it is 0.9816 before and 0.9820 after, in half a minute of one core; 1,000 jets are too few to gain from it.
"""

import argparse
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from jetclr_encoder import JetEncoder
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

Jets = dict[str, Tensor]  # column -> [jets, constituents], "label" -> [jets]


def read(path: Path, columns: list[str], jets: int | None = None) -> Jets:
    """The first jets of a file, all if None."""
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            return {name: torch.from_numpy(file[name][:jets].astype(np.float32)) for name in columns}
    import h5py

    with h5py.File(path) as file:
        return {name: torch.from_numpy(file[name][:jets].astype(np.float32)) for name in columns}


def batches(jets: Jets, size: int, device: str, shuffle: bool = False) -> Iterator[tuple[Jets, Tensor]]:
    """Constituents and labels, a batch at a time."""
    count = len(jets["label"])
    order = torch.randperm(count) if shuffle else torch.arange(count)
    for rows in order.split(size):
        batch = {name: x[rows].to(device) for name, x in jets.items()}
        label = batch.pop("label")
        yield batch, label


def turned(jets: Jets) -> Jets:
    """Each jet turned by a random angle about its hardest constituent and mirrored or not: as likely a jet."""
    hardest = jets["pt"].argmax(1, keepdim=True)
    eta_0, phi_0 = jets["eta"].gather(1, hardest), jets["phi"].gather(1, hardest)
    eta, phi = jets["eta"] - eta_0, torch.remainder(jets["phi"] - phi_0 + math.pi, 2 * math.pi) - math.pi
    angle = 2 * math.pi * torch.rand_like(eta_0)
    mirror = torch.sign(torch.rand_like(eta_0) - 0.5)
    cos, sin = torch.cos(angle), torch.sin(angle)
    return jets | {"eta": eta_0 + cos * eta - sin * phi, "phi": phi_0 + mirror * (sin * eta + cos * phi)}


@torch.no_grad()
def over(model: Callable[..., Tensor], jets: Jets, size: int, device: str) -> Tensor:
    """What the model gives for all jets, in order."""
    return torch.cat([model(**batch).cpu() for batch, _ in batches(jets, size, device)])


def auc(score: Tensor, label: Tensor) -> float:
    """How often a signal jet has the higher score of a pair with a background jet; ties count half."""
    background, signal = score[label == 0].sort().values, score[label == 1]
    below = torch.searchsorted(background, signal) + torch.searchsorted(background, signal, right=True)
    return (below.double().mean() / (2 * len(background))).item()


def fit_linear(x: Tensor, label: Tensor, l2: float) -> nn.Linear:
    """Logistic regression on the columns of x, standardised in the fit; the layer takes x as it is."""
    mean, scale = x.mean(0), x.std(0) + 1e-6
    layer = nn.Linear(x.shape[1], 1)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=200, line_search_fn="strong_wolfe")
    standard = (x - mean) / scale

    def loss() -> Tensor:
        optimizer.zero_grad()
        cost = binary_cross_entropy_with_logits(layer(standard)[:, 0], label)
        cost = cost + 0.5 * l2 / len(x) * layer.weight.square().sum()
        cost.backward()
        return cost

    optimizer.step(loss)
    with torch.no_grad():
        layer.weight.div_(scale)
        layer.bias.sub_(layer.weight @ mean)
    return layer


def rate(step: int, steps: int) -> float:
    """The learning rate as a share of the largest: it rises for a tenth of the steps, and falls to 0 as a cosine."""
    return min(1, 10 * (step + 1) / steps) * (1 + math.cos(math.pi * step / steps)) / 2


class Tagger(nn.Module):
    """The encoder with one linear layer: a logit for each jet."""

    def __init__(self, encoder: JetEncoder, linear: nn.Linear) -> None:
        super().__init__()
        self.encoder, self.linear = encoder, linear

    def forward(self, **columns: Tensor) -> Tensor:
        return self.linear(self.encoder(**columns))[:, 0]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("encoder", type=Path, help="the .safetensors file of an exported encoder")
    parser.add_argument("train", type=Path, help="labelled jets to learn from, .npz or .h5")
    parser.add_argument("test", type=Path, help="labelled jets to measure on, .npz or .h5")
    parser.add_argument("--jets", type=int, help="learn from so many jets; all if not given")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=3e-4, help="largest learning rate")
    parser.add_argument("--l2", type=float, default=30.0, help="strength of the penalty on the first linear layer")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the fine-tuned encoder here, as JetEncoder.from_file reads it")
    asked = parser.parse_args(arguments)

    torch.manual_seed(asked.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    encoder = JetEncoder.from_file(asked.encoder).to(device)
    columns = ["pt", "eta", "phi", *encoder.extras, "label"]
    train, test = read(asked.train, columns, asked.jets), read(asked.test, columns)

    linear = fit_linear(over(encoder, train, asked.batch, device), train["label"], asked.l2)
    tagger = Tagger(encoder, linear.to(device))
    print(f"frozen encoder and linear layer: AUC {auc(over(tagger, test, asked.batch, device), test['label']):.4f}")

    averaged = AveragedModel(tagger, multi_avg_fn=get_ema_multi_avg_fn(0.99))
    optimizer = torch.optim.AdamW(tagger.parameters(), lr=asked.lr)
    steps = asked.epochs * -(-len(train["label"]) // asked.batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, steps))
    for epoch in range(asked.epochs):
        tagger.train()
        for batch, label in batches(train, asked.batch, device, shuffle=True):
            optimizer.zero_grad()
            binary_cross_entropy_with_logits(tagger(**turned(batch)), label).backward()
            optimizer.step()
            schedule.step()
            averaged.update_parameters(tagger)
        averaged.eval()
        print(f"epoch {epoch + 1}: AUC {auc(over(averaged, test, asked.batch, device), test['label']):.4f}")
    if asked.out:
        averaged.module.encoder.to_file(asked.out)


if __name__ == "__main__":
    main()
