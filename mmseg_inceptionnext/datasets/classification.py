"""Images and their classes, to train classifiers on."""
import os.path as osp

from mmseg.registry import DATASETS
from PIL import Image
from timm.data import create_transform
from timm.data.readers import create_reader
from torch.utils.data import Dataset

from mmseg_inceptionnext.errors import BrokenSampleError, ConfigError, MissingDatasetError

from .seeding import Draw, seed_everything

IMAGENET = ('ImageNet-1K is published at https://image-net.org/download-images (ILSVRC2012, tasks 1 and 2), with a '
            'folder of images for each class in train; val has to be sorted into such folders')


@DATASETS.register_module()
class ClassificationDataset(Dataset):
    """A folder of images for each class, or what else timm reads, with timm's augmentations.

    Args:
        data_root: folder of the data.
        split: folder in it that holds a folder for each class, such as ``train``; or the same as ``SPLIT.tar``.
        num_classes: number of classes that must be there. Classes are numbered in the order of their names, so that
            one that is missing would shift all others.
        transform: arguments of :func:`timm.data.create_transform`.
        reader: of timm, such as ``hfds/NAME`` for a data set of the Hugging Face hub. Default: by what ``split`` is.

    Each sample is a dict of ``inputs``, a normalised image (3, H, W), and ``data_samples``, the index of its class.

    Raises:
        MissingDatasetError: if there is no such folder, or no image in it.
        ConfigError: if it holds another number of classes.
        BrokenSampleError: if an image cannot be read; when it is drawn.
    """
    takes_seeds = True

    def __init__(self, data_root: str, split: str, num_classes: int, transform: dict, reader: str = '') -> None:
        self.root = osp.join(data_root, split)
        if not reader and not osp.isdir(self.root) and osp.isfile(f'{self.root}.tar'):
            self.root += '.tar'
        if not reader and not osp.exists(self.root):
            raise MissingDatasetError(f'{self.root}: no such folder, and no {split}.tar beside it. It holds a folder '
                                      f'of images for each class; give its place by --data-root DIR. {IMAGENET}')
        try:
            self.reader = create_reader(reader, data_root if reader else self.root, split=split)
        except RuntimeError as error:  # of timm, for a folder without images
            raise MissingDatasetError(f'{self.root} holds no folder with images: {error}') from error
        names = getattr(self.reader, 'class_to_idx', None) or getattr(self.reader, 'class_name_to_idx', None)
        self.metainfo = dict(classes=tuple(names or map(str, range(num_classes))))
        if len(self.metainfo['classes']) != num_classes:
            raise ConfigError(f'{self.root} holds {len(self.metainfo["classes"])} classes, and num_classes is '
                              f'{num_classes}: give that number of folders, or set num_classes of the data sets and of '
                              'the model to theirs')
        self.transform = create_transform(**transform)

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, index: int) -> dict:
        if isinstance(index, Draw):
            seed_everything(index.seed)
        stream, label = self.reader[int(index)]
        try:
            image = Image.open(stream).convert('RGB')
        except Exception as error:  # Pillow's own, and those of each format
            name = self.reader.filename(int(index), absolute=True)
            raise BrokenSampleError(f'{name} cannot be read as an image: {error}; replace it or take it out') from error
        finally:
            stream.close()
        return dict(inputs=self.transform(image), data_samples=label)
