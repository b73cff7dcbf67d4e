"""Writes the model of a Segmenter as a folder that loads anywhere."""
from mmseg_inceptionnext.checkpoints import check_segmentor, embedded_config, guarded_build
from mmseg_inceptionnext.checkpoints.embedded_config import inference_config
from mmseg_inceptionnext.checkpoints.model_card import model_card
from mmseg_inceptionnext.checkpoints.model_folder import describe_model, meta_of, write_folder
from mmseg_inceptionnext.checkpoints.sources import LoadedCheckpoint
from mmseg_inceptionnext.config import build_model
from mmseg_inceptionnext.errors import InputError
from mmseg_inceptionnext.models import fuse
from mmseg_inceptionnext.version import __version__

from .torch_backend import TorchBackend


def save_folder(backend: TorchBackend, folder: str, name: str) -> None:
    """See :meth:`mmseg_inceptionnext.Segmenter.save_pretrained`; ``name`` is that of the card."""
    if backend.amp:
        raise InputError(f'--amp {backend.amp} cast the weights; save the model of a Segmenter without amp, and '
                         'predict from the folder with it')
    cfg = inference_config(backend.cfg.to_dict(), f'{backend.source} or its config').to_dict()
    files = describe_model(cfg, backend.classes, backend.palette, __version__, backend.is_fused)
    weights = backend.model.state_dict()
    _try(LoadedCheckpoint(dict(state_dict=weights, meta=meta_of(files)), folder))
    write_folder(folder, weights, files, model_card(name, files, backend.model, backend.meta, backend.source))


def _try(written: LoadedCheckpoint) -> None:
    """Builds the model from what is going to be written."""
    with guarded_build(written['state_dict']):
        model = build_model(embedded_config(written.meta, written.source), f'the config inside {written.source}')
    if written.is_fused:
        fuse(model, inplace=True)
    check_segmentor(model, written, written.source)
