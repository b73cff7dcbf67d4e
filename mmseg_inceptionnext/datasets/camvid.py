"""CamVid: street scenes of Cambridge in eleven classes."""
from mmseg.registry import DATASETS

from .folders import FolderDataset
from .pairing import Suffix


@DATASETS.register_module()
class CamVidDataset(FolderDataset):
    """CamVid in the eleven classes that papers report, ids 0 to 10, void 255.

    The data circulates in several layouts, so the suffixes are arguments.

    Args:
        img_suffix: how image names end.
        seg_map_suffix: how the annotation of ``NAME + img_suffix`` ends after ``NAME``.
        **kwargs: the other arguments of ``BaseSegDataset``.
    """

    METAINFO = dict(
        classes=('sky', 'building', 'pole', 'road', 'pavement', 'tree', 'sign', 'fence', 'car', 'pedestrian',
                 'bicyclist'),
        palette=[[128, 128, 128], [128, 0, 0], [192, 192, 128], [128, 64, 128], [60, 40, 222], [128, 128, 0],
                 [192, 128, 128], [64, 64, 128], [64, 0, 128], [64, 64, 0], [0, 128, 192]])

    SOURCE = ('data_root should hold images/train, images/val (*.jpg), annotations/train and annotations/val (*.png, '
              'one channel: ids 0 to 10 in the order of CamVidDataset.METAINFO, 255 void).\n'
              'Published at http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid/ with labels in 32 colours, '
              'which are merged to the eleven classes; copies with class ids differ in img_suffix and seg_map_suffix.')

    def __init__(self, img_suffix: Suffix = '.jpg', seg_map_suffix: Suffix = '.png', **kwargs) -> None:
        super().__init__(img_suffix=img_suffix, seg_map_suffix=seg_map_suffix, **kwargs)
