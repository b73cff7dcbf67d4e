"""The ONNX file of our network against that of stock MMSegmentation, with the same weights, in ONNX Runtime."""
import os.path as osp
import tempfile
from typing import Dict, List, Tuple

import numpy as np
from tqdm import tqdm

from mmseg_inceptionnext.config import load_config
from mmseg_inceptionnext.errors import InputError
from mmseg_inceptionnext.export.exportable import ExportableSegmentor
from mmseg_inceptionnext.export.onnx_export import trace

from .compare_stock import build_pair
from .measure import alternate

THREADS = 2


def compare_onnx_with_stock(config: str, shape: Tuple[int, int], runs: int) -> Tuple[Dict[str, List[float]], float]:
    """Exports the same random weights twice, for images of one size, and runs both files in turn.

    Stock is MMSegmentation's segmentor over timm's backbone, as it is traced; ours is fused.

    Args:
        config: one of our configs.
        shape: height and width of the image, in pixels.
        runs: timed runs of each.

    Returns:
        Seconds of each run of ``stock`` and ``ours``, and the largest difference of their logits, relative to the
        largest logit.

    Raises:
        ConfigError, ValueError: if the config cannot be compared or exported, or ONNX Runtime is missing.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError(f"--onnx needs onnx and onnxruntime ({error}): pip install onnx onnxruntime") from error
    stock, ours = build_pair(load_config(config).copy())
    networks = dict(stock=ExportableSegmentor(stock, fused=False), ours=ExportableSegmentor(ours))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    sessions = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, network in tqdm(networks.items(), desc='exporting', unit='file', leave=False):
            path = osp.join(folder, f'{name}.onnx')
            trace(network.eval(), path, shape)
            sessions[name] = onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])
    image = np.random.default_rng(0).integers(0, 256, (1, 3, *shape), np.uint8)
    results = [session.run(None, dict(image=image))[0] for session in sessions.values()]
    error = np.abs(results[0] - results[1]).max() / np.abs(results[0]).max()
    calls = {name: lambda session=session: session.run(None, dict(image=image)) for name, session in sessions.items()}
    return alternate(calls, runs), float(error)
