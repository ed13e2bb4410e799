"""A model card as Markdown, for people: readable on a web page and in a terminal."""

from collections.abc import Iterator, Mapping
from typing import Any

from jetclr.export import calling
from probes.metrics import Estimate
from probes.report import markdown_table, markdown_text

SOFTWARE = {
    "onnx": "ONNX, for ONNX Runtime 1.17 and newer",
    "stablehlo": "StableHLO, for JAX",
    "safetensors": "safetensors, for jetclr and whoever rebuilds the network",
    "torch": "safetensors with a PyTorch module that reads it",
}
FLAVORS = {"batch": "batches with a mask", "cms": "as CMSSW calls it", "atlas": "as Athena calls it"}
GROUPS = {"random": "random jets, from empty to full", "real": "real jets"}


def to_markdown(card: Mapping[str, Any]) -> str:
    """The card of `make_card` as Markdown."""
    sections = {
        "Use": _use(card),
        "Jets it learnt from": _data(card["data"]),
        "Recipe": _recipe(card),
        "Results": _results(card["results"]),
        "What it ignores": _invariances(card["invariances"]),
        "Agreement": _agreement(card),
        "Limits": [f"- {markdown_text(limit)}" for limit in card["limits"]],
        "Licence": [
            f"Weights: {markdown_text(card['license'])}. Code: {card['code_license']}. Jets: see above.",
            "The method is JetCLR (arXiv:2108.04253).",
        ],
    }
    parts = [f"# {markdown_text(card['name'])}: a frozen jet encoder", "", *_what(card)]
    for title, lines in sections.items():
        parts += ["", f"## {title}", "", *lines]
    return "\n".join(parts) + "\n"


def _what(card: Mapping[str, Any]) -> Iterator[str]:
    encoder, config = card["config"]["encoder"], card["config"]
    blocks = "1 block" if encoder["layers"] == 1 else f"{encoder['layers']} blocks"
    layers = [f"`{one['name']}` ({one['shape'][1]:,} numbers)" for one in card["outputs"] if len(one["shape"]) > 1]
    scores = [f"`{one['name']}` (a score)" for one in card["outputs"] if len(one["shape"]) == 1]
    yield (
        f"A permutation-invariant transformer over the constituents of a jet: width {encoder['width']}, {blocks}, "
        f"{card['parameters']:,} parameters with the projection head. Pretrained without labels and frozen at step "
        f"{card['step']:,} of {config['steps']:,}. It gives {', '.join(layers + scores)}."
    )
    yield ""
    kind = SOFTWARE[card["to"]] + (f", {FLAVORS[card['flavor']]}" if card["to"] in ("onnx", "stablehlo") else "")
    weights = "half-precision weights, float32 otherwise" if card["dtype"] == "f16" else "float32"
    files = ", ".join(f"`{file}`" for file in card["files"].values())
    yield f"{kind}; {weights}. Files: {files}. Written by jetclr {card['jetclr']}."


def _use(card: Mapping[str, Any]) -> Iterator[str]:
    yield from ["```python", calling.snippet(card).rstrip(), "```", ""]
    yield from ["With jetclr installed, for every kind of export:", "", "```python"]
    yield from [calling.with_jetclr(card).rstrip(), "```", ""]
    rows = [
        [f"{one['name']} [{', '.join(map(str, one['shape']))}]", column["name"], _unit(column), column["meaning"]]
        for one in card["inputs"]
        for column in one["columns"]
    ]
    yield "Inputs, float32; B jets, N constituents in any order, of which padding is ignored:"
    yield ""
    yield markdown_table(rows, ["input", "column", "unit", "meaning"])
    yield "Outputs, float32:"
    yield ""
    rows = [[one["name"], f"[{', '.join(map(str, one['shape']))}]", one["meaning"]] for one in card["outputs"]]
    yield markdown_table(rows, ["output", "shape", "meaning"]).rstrip()


def _unit(column: Mapping[str, str]) -> str:
    return "" if column["unit"] == "1" else column["unit"]


def _data(data: Mapping[str, Any]) -> Iterator[str]:
    rows = []
    for one in data["stores"]:
        ranges = [_range(name, one["columns"]) for name in ("jet_pt", "jet_mass", "multiplicity")]
        labels = ", ".join(str(name) for name in one["labels"].values())
        rows.append([one["name"], one["jets"] and f"{one['jets']:,}", labels or "unknown", *ranges])
    columns = ["store", "jets", "kinds", "pT [GeV]", "mass [GeV]", "constituents"]
    if rows:
        yield markdown_table(rows, columns)
        yield "Ranges hold the central 98 % of the jets. The kinds are those of the stores; training used no labels."
        yield ""
    else:
        yield "Not known."
    for one in data["stores"]:
        yield f"- {markdown_text(one['name'])}: {markdown_text(_origin(one))}"
    if data["where"]:
        yield f"- Selected by {markdown_text(data['where'])}."
    if data["fraction"] < 1:
        yield f"- Of these {data['fraction']:.3g} were used."
    if data["holdout"]:
        yield f"- The last {data['holdout']:.3g} of each block was held out for validation."


def _range(name: str, columns: Mapping[str, Any]) -> str:
    found = columns.get(name)
    return "unknown" if found is None else f"{found['low']:.0f} to {found['high']:.0f}"


def _origin(store: Mapping[str, Any]) -> str:
    """Where the jets of a store come from, as far as its metadata tell."""
    if "note" in store:
        return f"{store['note']}; where its jets come from is not known."
    source, told = store["source"], []
    if "recipe" in source:
        told.append(f"simulated: {source['recipe']}")
    elif "format" in source:
        told.append(f"read from {', '.join(store['files']) or 'files'} in the layout {source['format']}")
    window = source.get("window")
    if isinstance(window, Mapping):
        told.append(
            "; ".join([str(source.get("algorithm", "")), *(f"{k} = {v}" for k, v in window.items())]).strip("; ")
        )
    if "mpi" in source:
        told.append("with multiple interactions" if source["mpi"] else "without multiple interactions")
    if isinstance(source.get("versions"), Mapping):
        told.append(", ".join(f"{name} {version}" for name, version in source["versions"].items()))
    told.append(f"licence: {source.get('license', 'not stated in the store')}")
    return "; ".join(told) + "."


def _recipe(card: Mapping[str, Any]) -> Iterator[str]:
    config = card["config"]
    optim, objective = config["optim"], dict(config["objective"])
    kind = objective.pop("type", "NTXent")
    rows: list[list[str]] = [
        ["first view", calling.call(config["views"][0])],
        ["second view", calling.call(config["views"][1])],
        *([["anomalies", ", ".join(map(calling.call, config["anomalies"]))]] if config["anomalies"] else []),
        ["objective", f"{kind}({_settings(objective)})"],
        ["features", f"{', '.join(config['features']['columns'])}"],
        ["constituents", f"the {card['constituents']} hardest"],
        ["batch", f"{config['batch']:,} jets, {'three' if config['anomalies'] else 'two'} views of each"],
        ["steps", f"{card['step']:,} of {config['steps']:,}"],
        ["optimiser", f"AdamW({_settings(optim)})"],
        ["precision", config["precision"]],
        ["seed", str(config["seed"])],
    ]
    yield markdown_table(rows, ["setting", "value"]).rstrip()
    yield ""
    yield f"All settings are in `model_card.json`. SHA-256 of the parameters: `{card['parameters_sha256']}`."


def _settings(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in settings.items())


def _results(results: Mapping[str, Any]) -> Iterator[str]:
    if "note" in results:
        yield f"{markdown_text(results['note'])}."
        return
    for warning in results["warnings"]:
        yield f"**Mind: {markdown_text(warning)}.**"
        yield ""
    jets, stores = results["jets"], {k: markdown_text(", ".join(v)) for k, v in results["stores"].items()}
    yield (
        f"Linear probes on frozen layers, fitted on {jets['train']:,} labelled jets of {stores['train']} and measured "
        f"on {jets['test']:,} of {stores['test']}, at step {results['step']:,}. R30 and R50 are the background "
        "rejection at 30 % and 50 % signal efficiency, > a lower bound; brackets are 95 % bootstrap intervals over the "
        "test jets. Untrained is the same network with random weights."
    )
    yield ""
    rows = [
        [representation, probe, *(Estimate(**one[name]) for name in ("auc", "accuracy", "r30", "r50"))]
        for representation, by_probe in results["measured"].items()
        for probe, one in by_probe.items()
    ]
    yield markdown_table(rows, ["representation", "probe", "AUC", "accuracy", "R30", "R50"]).rstrip()
    for probe, one in results.get("trained_minus_untrained", {}).items():
        auc = one["auc"]
        yield ""
        yield (
            f"{markdown_text(probe)}, trained minus untrained embedding: AUC {auc['value']:+.4f} "
            f"[{auc['low']:+.4f}, {auc['high']:+.4f}], p = {one['auc_p_value']:.2g} (paired bootstrap)."
        )


def _invariances(found: Mapping[str, Any]) -> Iterator[str]:
    if "note" in found:
        yield f"{markdown_text(found['note'])}."
        return
    yield (
        f"Cosine between the `{found['layer']}` of a jet and of its changed copy, after the mean of {found['jets']} "
        "jets is taken off: 1 where nothing changes, 0 for two jets on average."
    )
    yield ""
    between = found["between"]
    spreads = {**found["changes"], "another jet": between}
    rows = [[name, f"{x['mean']:.4f}", f"{x['low']:.4f} to {x['high']:.4f}"] for name, x in spreads.items()]
    yield markdown_table(rows, ["the jet is", "mean", "central 68 % of the jets"]).rstrip()
    yield ""
    yield f"Without the mean taken off, different jets have a cosine of {between['plain']:.4f}."


def _agreement(card: Mapping[str, Any]) -> Iterator[str]:
    told = card["verification"]
    if not told.get("differences"):
        yield "Not measured."
        return
    versions = told.get("versions", {})
    yield (
        "Largest difference from the encoder in JAX, |a - b| / (1 + |b|), measured when this was written. Above the "
        "limit there would be no export."
    )
    yield ""
    rows = [
        [
            f"{runtime} {versions.get(runtime, '')}".strip(),
            _group(group, told),
            output,
            f"{x:.1e}",
            f"{told['limits'][output]:g}",
        ]
        for runtime, groups in told["differences"].items()
        for group, outputs in groups.items()
        for output, x in outputs.items()
    ]
    yield markdown_table(rows, ["run by", "on", "output", "difference", "limit"]).rstrip()
    for group, x in told.get("rounding", {}).items():
        yield ""
        yield f"Half-precision weights themselves move layers by at most {x:.1e} on {GROUPS[group]}."
    if "not_run" in told:
        yield ""
        yield f"{markdown_text(told['not_run'])}."


def _group(group: str, told: Mapping[str, Any]) -> str:
    of = told.get("real_jets_of") if group == "real" else None
    return f"{told['jets'][group]} {GROUPS[group]}" + (f" of {', '.join(of)}" if of else "")
