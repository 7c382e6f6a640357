"""The same network on the same scan inside MONAI's and nnU-Net's inference, NIfTI in and NIfTI out.

Both get our network, eager and in float32, giving logits at the window's full size as they expect, with BatchNorm
folded, the same window and half a window of overlap with Gaussian blending, no mirroring, and one window at a time.
MONAI's chain is that of its bundles for CT organs (such as spleen_ct_segmentation): the probabilities of all classes go
back to the scan's grid, then the largest wins. nnU-Net's is ``predict_from_files_sequential``, which needs no process
beside this one. Time of the network is that of its forward call, with the interpolation of its logits to full size.
"""

from __future__ import annotations

import importlib.metadata
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.engine_case import LOAD
from benchmarks.engine_process import Stopwatch, peak_mib
from effvit_med.engine import Model, Segmenter, Settings, read_model
from effvit_med.io import open_input, read_case, read_nifti, write_nifti
from effvit_med.networks import SegmentationNetwork, fold_batchnorm

NETWORK = "network"
RESIZE = "network: logits to full size"
ALL = "all"


class TimedNetwork(nn.Module):
    """A network whose calls are timed; within that, the interpolation of the logits to full size.

    Args:
        network: ours.
        watch: takes the times.
    """

    def __init__(self, network: SegmentationNetwork, watch: Stopwatch) -> None:
        super().__init__()
        self.network = network
        self._watch = watch

    def forward(self, x: Tensor) -> Tensor:
        """Logits of all classes at the size of the window."""
        with self._watch.phase(NETWORK):
            logits = self.network.logits(x)
            with self._watch.phase(RESIZE):
                return nn.functional.interpolate(
                    logits, size=tuple(x.shape[2:]), mode=self.network.mode, align_corners=False
                )


def run_ours(bundle: str, image: str, output: str) -> dict[str, Any]:
    """Read the NIfTI file, segment, write the NIfTI file: no more than the others do.

    Args:
        bundle: folder of the bundle.
        image: path of the scan.
        output: path of the labels.
    """
    watch = Stopwatch()
    segmenter = Segmenter(read_model(bundle), plain_settings())
    with watch.phase(ALL):
        with watch.phase("read"), open_input(Path(image)) as found:
            volume = read_case(found.cases[0])
        segmentation = segmenter.segment(volume)
        with watch.phase("write"):
            write_nifti(segmentation, Path(output))
    for step in segmentation.provenance.steps:
        if step.name != LOAD:  # done before, as with the others
            watch.wall[step.name] += step.seconds
            watch.cpu[step.name] += step.cpu_seconds
    return {**watch.figures(), "peak_mib": peak_mib()}


def plain_settings() -> Settings:
    """Eager PyTorch in float32 on the processor, one window at a time: what the others run."""
    return Settings.from_values(device="cpu", precision="float32", runtime="eager")


def run_monai(bundle: str, image: str, output: str, ours: str = "") -> dict[str, Any]:
    """The chain of MONAI's bundles for organs in CT.

    Args:
        bundle: folder of the bundle.
        image: path of the scan.
        output: path of the labels.
        ours: path of our labels, to compare with; empty for no comparison.
    """
    from monai import transforms as mt
    from monai.data import decollate_batch
    from monai.inferers import SlidingWindowInferer

    watch, model = Stopwatch(), read_model(bundle)
    network = TimedNetwork(fold_batchnorm(model.load_network()), watch).eval()
    low, high = model.preprocess.intensity.low, model.preprocess.intensity.high
    before = mt.Compose(
        [
            mt.LoadImaged("image"),
            mt.EnsureChannelFirstd("image"),
            mt.Orientationd("image", axcodes=model.preprocess.orientation, labels=None),
            mt.Spacingd("image", pixdim=model.preprocess.spacing_mm, mode="bilinear"),
            mt.ScaleIntensityRanged("image", low, high, -1.0, 1.0, clip=True),
            mt.EnsureTyped("image"),
        ]
    )
    tiling = model.tiling
    inferer = SlidingWindowInferer(tiling.window, sw_batch_size=1, overlap=tiling.overlap, mode="gaussian")
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode(), watch.phase(ALL):
        with watch.phase("prepare"):
            case = before({"image": image})
        with watch.phase("windows"):
            case["pred"] = inferer(case["image"][None], network)
        case = {"image": case["image"], "pred": decollate_batch(case["pred"])[0]}
        with watch.phase("softmax"):
            case = mt.Activationsd("pred", softmax=True)(case)
        with watch.phase("back to the scan's grid"):
            case = mt.Invertd("pred", before, "image", nearest_interp=False, to_tensor=True)(case)
        with watch.phase("argmax"):
            case = mt.AsDiscreted("pred", argmax=True)(case)
        with watch.phase("write"):
            save = mt.SaveImaged(
                "pred", output_dir=folder, output_postfix="seg", separate_folder=False, output_dtype=np.uint8
            )
            save(case)
        next(Path(folder).glob("*.nii.gz")).rename(output)
    return _figures(watch, output, ours) | {"version": importlib.metadata.version("monai")}


def run_nnunet(bundle: str, image: str, output: str, ours: str = "") -> dict[str, Any]:
    """nnU-Net's predictor with our network put in, and a plan that says what the bundle does.

    Args:
        bundle: folder of the bundle.
        image: path of the scan.
        output: path of the labels.
        ours: path of our labels, to compare with; empty for no comparison.
    """
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    watch, model = Stopwatch(), read_model(bundle)
    network = TimedNetwork(fold_batchnorm(model.load_network()), watch).eval()
    plans = PlansManager(make_plans(model))
    dataset = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, **{label.name: label.value for label in model.labels}},
        "file_ending": ".nii.gz",
    }
    predictor = nnUNetPredictor(
        tile_step_size=1 - model.tiling.overlap,
        use_gaussian=True,
        use_mirroring=False,
        perform_everything_on_device=False,
        device=torch.device("cpu"),
        allow_tqdm=False,
    )
    configuration = plans.get_configuration("3d_fullres")
    predictor.manual_initialization(
        network, plans, configuration, [network.state_dict()], dataset, "nnUNetTrainer", None
    )
    _watch_nnunet(predictor, watch)
    with tempfile.TemporaryDirectory() as folder, watch.phase(ALL):
        predictor.predict_from_files_sequential([[image]], [str(Path(folder) / "seg")], overwrite=True)
        (Path(folder) / "seg.nii.gz").rename(output)
    return _figures(watch, output, ours) | {"version": importlib.metadata.version("nnunetv2")}


def _watch_nnunet(predictor: Any, watch: Stopwatch) -> None:
    """Time the parts of the predictor, through the names by which it calls them."""
    import nnunetv2.inference.predict_from_raw_data as module

    predictor.predict_logits_from_preprocessed_data = watch.wrap(
        "windows", predictor.predict_logits_from_preprocessed_data
    )
    preprocessor = predictor.configuration_manager.preprocessor_class
    preprocessor.run_case = watch.wrap("prepare", preprocessor.run_case)
    module.export_prediction_from_logits = watch.wrap(
        "back to the scan's grid, argmax, write", module.export_prediction_from_logits
    )


def make_plans(model: Model) -> dict[str, Any]:
    """nnU-Net's plans for a bundle: its grid, window and intensities; all else as nnU-Net plans it for CT.

    Args:
        model: of the bundle, with a window of intensities.
    """
    low, high = model.preprocess.intensity.low, model.preprocess.intensity.high
    resampling = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    name = "resample_data_or_seg_to_shape"
    configuration = {
        "data_identifier": "bench_3d_fullres",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": list(model.tiling.window),
        "median_image_size_in_voxels": [200.0, 273.0, 273.0],
        "spacing": [float(size or 0.0) for size in model.preprocess.spacing_mm],
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": name,
        "resampling_fn_data_kwargs": resampling,
        "resampling_fn_seg": name,
        "resampling_fn_seg_kwargs": {**resampling, "is_seg": True, "order": 1},
        "resampling_fn_probabilities": name,
        "resampling_fn_probabilities_kwargs": {**resampling, "order": 1},
        "batch_dice": True,
        "architecture": {"network_class_name": "", "arch_kwargs": {}, "_kw_requires_import": []},
    }
    intensities = {
        "mean": (low + high) / 2,
        "std": (high - low) / 2,
        "percentile_00_5": low,
        "percentile_99_5": high,
    }
    return {
        "dataset_name": "bench",
        "plans_name": "bench",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {"3d_fullres": configuration},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": intensities},
    }


def _figures(watch: Stopwatch, output: str, ours: str) -> dict[str, Any]:
    """The times, with the windows' without the network's, the peak of memory, and how the labels compare."""
    for table in (watch.wall, watch.cpu):
        table["tile and blend"] = table.pop("windows") - table[NETWORK]
    found: dict[str, Any] = {**watch.figures(), "peak_mib": peak_mib()}
    if ours and Path(ours).exists():
        a, b = (read_nifti(Path(path)).reoriented("SPL").array for path in (output, ours))
        found["agreement"] = float(np.mean(a == b))
    return found
