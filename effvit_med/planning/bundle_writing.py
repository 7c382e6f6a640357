"""A plan as a MONAI bundle: a folder that can be trained, checked and used as it is."""

from __future__ import annotations

import json
import math
import secrets
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

import effvit_med
from effvit_med import NOT_FOR_CLINICAL_USE, __version__
from effvit_med.engine.head import Head
from effvit_med.engine.model import read_model
from effvit_med.errors import EffvitError, OutputError
from effvit_med.io.atomic import make_folder, write_json, write_text
from effvit_med.planning.plan import Plan
from effvit_med.volume import Code

SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
_PACKAGES = {"monai_version": "monai", "pytorch_version": "torch", "numpy_version": "numpy"}
_REQUIRED = ("nibabel", "pytorch-ignite", "tensorboard")


def write_bundle(plan: Plan, folder: Path, name: str = "", *, overwrite: bool = False) -> dict[str, Path]:
    """Write a plan as a bundle, whole or not at all.

    Args:
        plan: what was decided.
        folder: of the bundle; one that is there is replaced if nothing was trained in it yet.
        name: of the bundle; that of the folder if empty.
        overwrite: replace a bundle even if it holds weights or a run.

    Returns:
        The paths of what was written, by kind.

    Raises:
        OutputError: if the folder holds something else, or weights that would be lost, or cannot be written.
        SettingsError: if the bundle that was written says something impossible, as an override may.
    """
    folder = folder.absolute()
    _require_free(folder, overwrite=overwrite)
    make_folder(folder.parent)
    draft = folder.with_name(f".{secrets.token_hex(4)}.part-{folder.name}")
    try:
        _fill(plan, draft, name or folder.name)
        read_model(draft).build_network()  # what cannot be used is not put in its place
        _put_in_place(draft, folder)
    except OSError as error:
        raise OutputError(f"The bundle {folder} could not be written: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return {"bundle": folder, "plan": folder / "plan.md", "train": folder / "configs" / "train.yaml"}


def _require_free(folder: Path, *, overwrite: bool) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise OutputError(f"{folder} is a file; choose another name for the bundle.")
    if any(folder.iterdir()) and not (folder / "plan.json").is_file():
        raise OutputError(f"{folder} holds something that no plan has written; choose another folder.")
    trained = [*folder.glob("models/*"), *folder.glob("runs/*")]
    if trained and not overwrite:
        raise OutputError(
            f"{folder} holds a training already ({trained[0].relative_to(folder)}). Choose another folder, or give "
            "--overwrite to lose it."
        )


def _put_in_place(draft: Path, folder: Path) -> None:
    """One rename; of a bundle that is there, two, and the old one comes back if the second fails."""
    if not folder.exists():
        draft.rename(folder)
        return
    old = folder.with_name(f".{secrets.token_hex(4)}.old-{folder.name}")
    folder.rename(old)
    try:
        draft.rename(folder)
    except OSError:
        old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _fill(plan: Plan, folder: Path, name: str) -> None:
    for part in ("configs", "docs", "models"):
        make_folder(folder / part)
    configs = folder / "configs"
    write_text(configs / "model.yaml", _model_yaml(plan, name))
    environment = Environment(
        loader=PackageLoader("effvit_med.planning"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # noqa: S701  YAML and Markdown, no page of a browser
    )
    values = _template_values(plan, name)
    for template in environment.list_templates(filter_func=lambda each: each.endswith(".yaml.j2")):
        write_text(configs / template.removesuffix(".j2"), environment.get_template(template).render(values))
    write_json(configs / "metadata.json", describe_metadata(plan, name))
    write_json(configs / "datalist.json", _datalist(plan))
    write_json(folder / "plan.json", _plan_json(plan, name))
    write_text(folder / "plan.md", environment.get_template("plan.md.j2").render(values))
    write_text(folder / "docs" / "README.md", environment.get_template("card.md.j2").render(values))
    shutil.copy(_licence(), folder / "LICENSE")


def _licence() -> Path:
    package = Path(effvit_med.__file__).parent
    inside = package / "_bundle" / "LICENSE"
    return inside if inside.is_file() else package.parent / "LICENSE"


def _model_yaml(plan: Plan, name: str) -> str:
    values, table = plan.values, plan.table
    structures = ", ".join(label.name for label in table)
    preprocess: dict[str, Any] = {
        "spacing_mm": list(values["spacing_mm"]),
        "orientation": values["orientation"],
        "intensity": dict(values["intensity"]),
        "spatial_dims": values["spatial_dims"],
        "neighbours": values["neighbours"],
    }
    content = {
        "name": name,
        "version": "0.1.0",
        "description": f"{structures} in {values['modality'] or 'images'} as of {plan.training_set.name}.",
        "modalities": [values["modality"]] if values["modality"] else [],
        "weights": f"models/{name}.safetensors",
        "network": plan.network.arguments,
        "preprocess": preprocess,
        "tiling": {
            "window": list(values["window"]),
            "overlap": values["overlap"],
            "mirror_axes": list(values["mirror_axes"]),
        },
        **({"colour_weights": list(values["colour_weights"])} if "colour_weights" in values else {}),
        "labels": [_label_row(row) for row in table.to_dicts()],
        **({} if plan.training_set.head == Head() else {"head": _plain_head(plan.training_set.head)}),
    }
    head = (
        "# Values that everything which uses this model reads. Made by effvit-med plan; plan.md says why each is so.\n"
    )
    return head + yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def _plain_head(head: Head) -> dict[str, Any]:
    regions = [{"name": region.name, "values": list(region.values)} for region in head.regions]
    return {"kind": head.kind, "regions": regions, "order": list(head.order)}


def _label_row(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the label table without what it need not say."""
    kept = {name: value for name, value in row.items() if value is not None}
    if row["category"] == _plain_category():
        del kept["category"]
    return kept


def _plain_category() -> list[str]:
    code = Code("91723000", "Anatomical Structure")
    return [code.value, code.scheme, code.meaning]


class _Dumper(yaml.SafeDumper):
    """Short lists stand in one line, as people write them."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def _represent_list(dumper: yaml.SafeDumper, data: list[Any]) -> yaml.Node:
    short = all(not isinstance(each, dict) for each in data)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=short)


_Dumper.add_representer(list, _represent_list)


def _template_values(plan: Plan, name: str) -> dict[str, Any]:
    """What the templates may say; every value stands in the words of YAML and MONAI."""
    values = dict(plan.values)
    return {
        **{key: list(value) if isinstance(value, tuple) else value for key, value in values.items()},
        "rotate_range": [round(math.radians(angle), 4) for angle in values["rotate_degrees"]],
        "ignore": plan.training_set.ignore,
        "annotated_in_part": any(case.annotated is not None for case in plan.training_set.cases),
        "name": name,
        "plan": plan,
        "row": lambda numbers: " | ".join(f"{number:.4g}" for number in numbers),
        "percent": lambda share: f"{share:.2%}" if share < 0.1 else f"{share:.0%}",
        "notice": NOT_FOR_CLINICAL_USE,
        "version": __version__,
    }


def _datalist(plan: Plan) -> dict[str, Any]:
    training_set, split = plan.training_set, plan.split
    root = training_set.root
    rows = []
    for case in training_set.cases:
        places = {kind: _within(path, root) for kind, path in (("image", case.image), ("label", case.label))}
        fold = {} if case.case_id in split.test else {"fold": split.folds[case.case_id]}
        looked_for = {} if case.annotated is None else {"annotated": list(case.annotated)}
        rows.append({"case": case.case_id, **places, "group": case.group, **looked_for, **fold})
    return {
        "name": training_set.name,
        "root": str(root),
        "folds": split.count,
        "ignore": training_set.ignore,
        "training": [row for row in rows if row["case"] not in split.test],
        "test": [row for row in rows if row["case"] in split.test],
    }


def _within(path: Path, root: Path) -> str:
    path = path.parent.resolve() / path.name  # a link to a file keeps its own name
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def describe_metadata(plan: Plan, name: str) -> dict[str, Any]:
    """The content of ``metadata.json``, as MONAI's schema wants it.

    Args:
        plan: what was decided.
        name: of the bundle.
    """
    values, names = plan.values, [label.name for label in plan.table]
    flat = values["spatial_dims"] == 2
    sizes = list(values["patch"])[1:] if flat else list(values["patch"])
    channels = plan.network.arguments["in_channels"]
    modality = values["modality"] or "other"
    outputs = {str(number): text for number, text in enumerate(plan.training_set.head.names(plan.table))}
    classes = ", ".join(f"{number} {text}" for number, text in enumerate(["background", *names]))
    intensity = values["intensity"]
    scaled = "clipped and scaled to -1..1" if intensity["kind"] == "window" else "normalised to mean 0 and sd 1"
    return {
        "schema": SCHEMA,
        "version": "0.1.0",
        "changelog": {"0.1.0": "planned, not yet trained"},
        **{key: _version(package) for key, package in _PACKAGES.items()},
        "required_packages_version": {"effvit-med": __version__, **{each: _version(each) for each in _REQUIRED}},
        "supported_apps": {},
        "name": name,
        "task": f"Segmentation of {', '.join(names)}",
        "description": f"{plan.network.arguments['preset']} in {values['spatial_dims']}D, planned by effvit-med.",
        "authors": "to be filled in",
        "copyright": "to be filled in",
        "data_source": " ".join(filter(None, (plan.training_set.name, plan.training_set.reference))),
        "data_type": "image" if plan.fingerprint.photographs else "nifti",
        "image_classes": f"{channels} channel(s) of {modality}, {scaled}",
        "label_classes": classes,
        "pred_classes": f"{len(outputs)} channels of logits, in this order: {', '.join(outputs.values())}",
        "intended_use": "Research only. Not for clinical use.",
        "network_data_format": {
            "inputs": {
                "image": _tensor("magnitude", channels, sizes, {str(i): modality for i in range(channels)}, modality)
            },
            "outputs": {"pred": _tensor("segmentation", len(outputs), sizes, outputs, "")},
        },
    }


def _tensor(kind: str, channels: int, sizes: list[int], names: dict[str, str], modality: str) -> dict[str, Any]:
    return {
        "type": "image",
        "format": kind,
        **({"modality": modality} if modality else {}),
        "num_channels": channels,
        "spatial_shape": sizes,
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": True,
        "channel_def": names,
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except ModuleNotFoundError:
        return "unknown"


def _plan_json(plan: Plan, name: str) -> dict[str, Any]:
    budget = plan.budget
    return {
        "format": "effvit-med plan 1",
        "name": name,
        "notice": NOT_FOR_CLINICAL_USE,
        "version": __version__,
        "data": {
            "name": plan.training_set.name,
            "layout": plan.training_set.layout,
            "licence": plan.training_set.licence,
            "reference": plan.training_set.reference,
            "ignore": plan.training_set.ignore,
            "labels": plan.table.to_dicts(),
        },
        "budget": {
            "device": budget.device,
            "memory_gb": round(budget.memory_bytes / 2**30, 3),
            "minutes": budget.minutes,
        },
        "fingerprint": plan.fingerprint.to_dict(),
        "split": {
            "seed": plan.seed,
            "folds": plan.split.count,
            "given": plan.split.given,
            "test": sorted(plan.split.test),
        },
        "choices": [vars(choice) for choice in plan.choices],
        "step": {
            "bytes": plan.network.step_bytes,
            "seconds": plan.training.step_s,
            "parameters": plan.network.parameters,
        },
        "findings": [vars(finding) for finding in plan.findings],
    }


def read_plan_json(bundle: Path) -> dict[str, Any]:
    """What ``plan.json`` of a bundle says.

    Args:
        bundle: the bundle's folder.

    Raises:
        EffvitError: if it is not there or no JSON.
    """
    try:
        content: dict[str, Any] = json.loads((bundle / "plan.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EffvitError(f"{bundle / 'plan.json'} cannot be read: {error}.") from error
    return content
