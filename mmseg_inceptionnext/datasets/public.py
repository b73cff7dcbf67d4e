"""Data sets that papers report, laid out as MMSegmentation's converters leave them, with an answer when one is missing.

Classes and colours are MMSegmentation's own; its classes of the same name without ``Checked`` read the same files.
"""
from typing import Dict, List, Optional, Sequence

from mmengine.fileio import isfile
from mmseg.datasets import (
    ChaseDB1Dataset,
    CityscapesDataset,
    COCOStuffDataset,
    ISPRSDataset,
    LoveDADataset,
    MapillaryDataset_v1,
    PascalContextDataset59,
    PascalVOCDataset,
    PotsdamDataset,
    iSAIDDataset,
)
from mmseg.registry import DATASETS

from mmseg_inceptionnext.errors import MissingDatasetError

from .folders import FolderDataset
from .pairing import Suffix

PATCHES = 'img_dir/{train,val}/*.png and ann_dir/{train,val}/*.png '


class PublicDataset(FolderDataset):
    """A :class:`FolderDataset` whose suffixes, and whether 0 is ignored, are known; each can be given all the same.

    Attributes:
        SUFFIXES: how names end, those of images and those of labels.
        ZERO_IS_IGNORED: 0 in the label files is ignored, and classes count from 1 there.
    """

    SUFFIXES = ('.jpg', '.png')
    ZERO_IS_IGNORED = False

    def __init__(self, img_suffix: Optional[Suffix] = None, seg_map_suffix: Optional[Suffix] = None,
                 reduce_zero_label: Optional[bool] = None, **kwargs) -> None:
        super().__init__(
            img_suffix=self.SUFFIXES[0] if img_suffix is None else img_suffix,
            seg_map_suffix=self.SUFFIXES[1] if seg_map_suffix is None else seg_map_suffix,
            reduce_zero_label=self.ZERO_IS_IGNORED if reduce_zero_label is None else reduce_zero_label, **kwargs)

    def load_data_list(self) -> List[dict]:
        """Lists the pairs; raises a MissingDatasetError if no label is there, as before a converter has run."""
        samples = super().load_data_list()
        labels = [sample['seg_map_path'] for sample in samples if 'seg_map_path' in sample]
        if labels and not any(isfile(label, backend_args=self.backend_args) for label in labels):
            raise MissingDatasetError(self._message(f'none of the labels is there, such as {labels[0]}'))
        return samples


def source(layout: str, home: str, converter: str = '') -> str:
    """What to do about a missing data set; ``converter`` is one of MMSegmentation's ``tools/dataset_converters``."""
    prepared = ('; it is brought into this layout by tools/dataset_converters/'
                f'{converter} of MMSegmentation, which lies in its folder .mim') if converter else ''
    return f'data_root should hold {layout}.\nPublished at {home}{prepared}: see docs/datasets.md'


@DATASETS.register_module()
class CheckedCityscapesDataset(PublicDataset):
    """Streets of German cities, 19 classes."""

    METAINFO = CityscapesDataset.METAINFO
    SUFFIXES = ('_leftImg8bit.png', '_gtFine_labelTrainIds.png')
    SOURCE = source(
        'leftImg8bit/{train,val}/CITY/*_leftImg8bit.png and gtFine/{train,val}/CITY/*_gtFine_labelTrainIds.png (0 to '
        '18 the classes, 255 ignored)', 'https://www.cityscapes-dataset.com/downloads', 'cityscapes.py')


@DATASETS.register_module()
class CheckedPascalVOCDataset(PublicDataset):
    """Pascal VOC 2012: photographs, 20 kinds of objects and the background."""

    METAINFO = PascalVOCDataset.METAINFO
    SOURCE = source(
        'JPEGImages/*.jpg, SegmentationClass/*.png, SegmentationClassAug/*.png (0 to 20 the classes, 255 ignored) and '
        'ImageSets/Segmentation/{train,aug,val}.txt',
        'http://host.robots.ox.ac.uk/pascal/VOC/voc2012, its augmentation at '
        'http://www.cs.berkeley.edu/~bharath2/codes/SBD/download.html', 'voc_aug.py')


@DATASETS.register_module()
class CheckedPascalContextDataset59(PublicDataset):
    """Pascal Context: photographs, 59 classes; 0, the background, is ignored."""

    METAINFO = PascalContextDataset59.METAINFO
    ZERO_IS_IGNORED = True
    SOURCE = source(
        'JPEGImages/*.jpg, SegmentationClassContext/*.png (0 ignored, 1 to 59 the classes) and '
        'ImageSets/SegmentationContext/{train,val}.txt',
        'https://www.cs.stanford.edu/~roozbeh/pascal-context', 'pascal_context.py')


@DATASETS.register_module()
class CheckedCOCOStuffDataset(PublicDataset):
    """COCO-Stuff in 164 000 photographs, 171 classes."""

    METAINFO = COCOStuffDataset.METAINFO
    SUFFIXES = ('.jpg', '_labelTrainIds.png')
    SOURCE = source(
        'images/{train,val}2017/*.jpg and annotations/{train,val}2017/*_labelTrainIds.png (0 to 170 the classes, 255 '
        'ignored)', 'https://github.com/nightrome/cocostuff', 'coco_stuff164k.py')


@DATASETS.register_module()
class CheckedCOCOStuff10kDataset(CheckedCOCOStuffDataset):
    """COCO-Stuff in 10 000 photographs: the same classes, and 0 is ignored."""

    ZERO_IS_IGNORED = True
    SOURCE = source(
        'images/{train,test}2014/*.jpg and annotations/{train,test}2014/*_labelTrainIds.png (0 ignored, 1 to 171 the '
        'classes)', 'https://github.com/nightrome/cocostuff10k', 'coco_stuff10k.py')


@DATASETS.register_module()
class CheckedLoveDADataset(PublicDataset):
    """LoveDA: Chinese towns and countryside from above, seven classes; 0 is ignored."""

    METAINFO = LoveDADataset.METAINFO
    SUFFIXES = ('.png', '.png')
    ZERO_IS_IGNORED = True
    SOURCE = source(f'{PATCHES}(0 ignored, 1 to 7 the classes)', 'https://github.com/Junjue-Wang/LoveDA', 'loveda.py')


@DATASETS.register_module()
class CheckedPotsdamDataset(PublicDataset):
    """ISPRS Potsdam: a town from above, six classes; 0, the borders of objects, is ignored."""

    METAINFO = PotsdamDataset.METAINFO
    SUFFIXES = ('.png', '.png')
    ZERO_IS_IGNORED = True
    SOURCE = source(f'{PATCHES}(0 ignored, 1 to 6 the classes)',
                    'https://www.isprs.org/education/benchmarks/UrbanSemLab', 'potsdam.py')


@DATASETS.register_module()
class CheckedISPRSDataset(CheckedPotsdamDataset):
    """ISPRS Vaihingen: as Potsdam, in infrared, red and green."""

    METAINFO = ISPRSDataset.METAINFO
    SOURCE = source(f'{PATCHES}(0 ignored, 1 to 6 the classes)',
                    'https://www.isprs.org/education/benchmarks/UrbanSemLab', 'vaihingen.py')


@DATASETS.register_module()
class CheckediSAIDDataset(PublicDataset):
    """iSAID: satellite and aerial images, 15 kinds of objects and the background."""

    METAINFO = iSAIDDataset.METAINFO
    SUFFIXES = ('.png', '_instance_color_RGB.png')
    SOURCE = source(
        'img_dir/{train,val}/*.png and ann_dir/{train,val}/*_instance_color_RGB.png (0 to 15 the classes, 255 ignored)',
        'https://captain-whu.github.io/iSAID', 'isaid.py')


@DATASETS.register_module()
class CheckedMapillaryDataset(PublicDataset):
    """Mapillary Vistas 1.2: streets of the world, the benchmark's 65 classes; 65, unlabelled, is ignored."""

    METAINFO = {key: values[:65] for key, values in MapillaryDataset_v1.METAINFO.items()}
    SOURCE = source('{training,validation}/images/*.jpg and {training,validation}/v1.2/labels/*.png (0 to 64 the '
                    'classes, 65 ignored)', 'https://www.mapillary.com/dataset/vistas, in this layout')

    @classmethod
    def get_label_map(cls, new_classes: Optional[Sequence[str]] = None) -> Dict[int, int]:
        """The class of each value of a label, 255 if it is ignored; see ``BaseSegDataset``."""
        return {**(super().get_label_map(new_classes) or {}), 65: 255}


@DATASETS.register_module()
class CheckedChaseDB1Dataset(PublicDataset):
    """CHASE_DB1: the vessels of 28 retinas, two classes."""

    METAINFO = ChaseDB1Dataset.METAINFO
    SUFFIXES = ('.png', '_1stHO.png')
    SOURCE = source(
        'images/{training,validation}/*.png and annotations/{training,validation}/*_1stHO.png (0 background, 1 vessel)',
        'https://blogs.kingston.ac.uk/retinal/chasedb1', 'chase_db1.py')
