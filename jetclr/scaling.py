"""What a step costs and a run takes, as the table that `jetclr cost` prints."""

import math
import sys
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from jetclr.config import Config
from jetclr.cost import Cost, Machine, efficiency, step_time
from jetclr.errors import UserError

WIDTH = 100


@dataclass(frozen=True)
class Plan:
    """What is to be trained, and what the machine is taken to reach: the reader's numbers, not measured ones."""

    jets: int | None = None
    """Jets to train on; the steps of the config if not given."""
    epochs: float = 1
    """How often each of --jets is seen."""
    tflops: float | None = None
    """10^12 FLOP/s of a device in the precision of the config; without it no time is told."""
    objective_tflops: float | None = None
    """The same in full float32, which the objective always takes; --tflops if not given."""
    share: float = 1.0
    """Share of these that is reached."""
    link_gb_per_s: float | None = None
    """10^9 bytes a second that a device sends to its neighbour; needed for the time of several devices."""

    def __post_init__(self) -> None:
        for name in ("jets", "epochs", "tflops", "objective_tflops", "link_gb_per_s"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"Plan.{name} is {value}; it must be positive")
        if not 0 < self.share <= 1:
            raise ValueError(f"Plan.share is {self.share}; it must lie in (0, 1]")

    def steps(self, config: Config) -> int:
        """How many steps that is."""
        return config.steps if self.jets is None else math.ceil(self.jets * self.epochs / config.batch)

    def machine(self, devices: int) -> Machine | None:
        """None without --tflops. Raises UserError if several devices have no link."""
        if self.tflops is None:
            return None
        if devices > 1 and self.link_gb_per_s is None:
            raise UserError(f"{devices} devices exchange projections and gradients: give --link-gb-per-s too")
        per_s = 1e12 * self.share
        objective = self.objective_tflops or self.tflops
        return Machine(self.tflops * per_s, objective * per_s, 1e9 * (self.link_gb_per_s or math.inf))


def print_cost(name: str, config: Config, cost: Cost, plan: Plan) -> None:
    """Print FLOPs, bytes sent, memory and, if the plan has a machine, time; each on one device in one step."""
    machine = plan.machine(cost.devices)
    console = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False)
    chunks = f" in {cost.chunks} chunks" if cost.chunks > 1 else ""
    console.print(
        f"[bold]{escape(name)}[/bold]: {cost.parameters:,} parameters, {_quantity(cost.jet_flops, 'FLOP')} a jet; "
        f"{cost.devices:,} device(s) ({cost.data} x {cost.fsdp}, data x fsdp), batch {cost.batch:,}{chunks}, "
        f"{config.precision}",
        soft_wrap=True,
    )
    console.print(_table(cost, machine))
    _print_run(console, config, cost, machine, plan)


def _table(cost: Cost, machine: Machine | None) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 1))
    table.add_column("on each device, in a step", no_wrap=True)
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("share", justify="right", no_wrap=True)

    def section(title: str, total: float, unit: str, parts: dict[str, float], binary: bool = False) -> None:
        table.add_row(title, _quantity(total, unit, binary), "", style="bold")
        for part, value in parts.items():
            if value:
                table.add_row(f"  {part}", _quantity(value, unit, binary), f"{100 * value / total:.1f} %")

    f, w, m = cost.flops, cost.wire, cost.memory
    section("products", sum(f), "FLOP", {"encoder and head": f.encoder, "objective and monitors": f.objective})
    parts = {"gather of projections": w.projections, "gather of parameters": w.parameters}
    if cost.devices > 1:
        section("sent", sum(w), "B", parts | {"sum of gradients": w.gradients})
    parts = {"parameters": m.parameters, "optimizer": m.optimizer, "gradients": m.gradients, "batch and views": m.batch}
    parts |= {"gathered parameters": m.gathered, "activations": m.activations, "similarities": m.similarity}
    section("memory at its peak", m.peak, "B", parts, binary=True)
    if machine is not None:
        t = step_time(cost, machine)
        parts = {"encoder and head": t.encoder, "objective and monitors": t.objective, "gathering": t.gather}
        section("time, nothing overlapping", t.step, "s", parts | {"summing gradients": t.reduce})
    return table


def _print_run(console: Console, config: Config, cost: Cost, machine: Machine | None, plan: Plan) -> None:
    steps = plan.steps(config)
    flops = _quantity(steps * cost.batch * cost.jet_flops, "FLOP")
    console.print(f"{steps:,} steps, {steps * cost.batch:,} jets: {flops} on all devices")
    if machine is not None:
        seconds = step_time(cost, machine).step
        rate = cost.batch / seconds
        console.print(
            f"{rate:,.0f} jets/s, {rate / cost.devices:,.0f} a device, {100 * efficiency(cost, machine):.1f} % of as "
            f"many times one device; {steps * seconds / 3600:,.2f} hours",
            soft_wrap=True,
        )


def _quantity(value: float, unit: str, binary: bool = False) -> str:
    """A number with three digits and a prefix: 31.0 GFLOP, 1.72 GiB, 4.00 ms."""
    base, infix = (1024.0, "i") if binary else (1000.0, "")
    power = 0 if value == 0 else max(-2, min(6, math.floor(math.log(value, base) + 1e-9)))
    prefix = {-2: "u", -1: "m", 0: ""}.get(power) if power <= 0 else "kMGTPE"[power - 1] + infix
    scaled = value / base**power
    digits = 2 if scaled < 10 else 1 if scaled < 100 else 0
    return f"{scaled:,.{digits}f} {prefix}{unit}"
