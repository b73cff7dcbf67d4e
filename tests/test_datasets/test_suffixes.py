"""Which files are taken as images, and which label belongs to each."""
import logging

import numpy as np
import pytest
from mmengine.config import Config
from mmseg.datasets import BaseSegDataset
from PIL import Image

from mmseg_inceptionnext.datasets import check_dataset, folders
from mmseg_inceptionnext.datasets.folders import FolderDataset
from mmseg_inceptionnext.errors import InputError, MissingDatasetError

STEPS = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='CheckLabels')]


@pytest.fixture(autouse=True)
def lines(monkeypatch):
    """What data sets log."""
    found = []
    monkeypatch.setattr(folders, 'print_log', lambda text, logger, level: found.append((level, text)))
    return found


def put(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        label = np.full((4, 6), sum(map(ord, path.stem)) % 3, np.uint8)
        Image.fromarray(label if name.startswith('labels') else np.dstack([label] * 3)).save(path)


def settings(root, **options):
    return dict(dict(data_root=str(root), data_prefix=dict(img_path='images', seg_map_path='labels'), pipeline=STEPS,
                     metainfo=dict(classes=('a', 'b', 'c'))), **options)


def pairs(root, kind=FolderDataset, **options):
    """The paths of images and labels; each must load."""
    dataset = kind(**settings(root, **options))
    infos = [dataset.get_data_info(i) for i in range(len(dataset))]
    if kind is FolderDataset:
        assert all(dataset[i]['gt_seg_map'].shape == (4, 6) for i in range(len(dataset)))
    return [tuple(info[key][len(str(root)) + 1:] for key in ('img_path', 'seg_map_path')) for info in infos]


def check(root, **options):
    cfg = Config(dict(train_dataloader=dict(dataset=dict(
        type='FolderDataset', serialize_data=False, **settings(root, **options)))))
    return check_dataset(cfg, ['train'])[0]


@pytest.mark.parametrize('suffix', [('.jpg', '.png', '.tif'), ['.tif', '.png', '.jpg']])
def test_images_of_several_suffixes_have_the_label_of_their_name(tmp_path, suffix):
    put(tmp_path, 'images/b.jpg', 'images/a.png', 'images/sub/c.TIF', 'images/d.x.jpg', 'labels/a.png', 'labels/b.png',
        'labels/sub/c.png', 'labels/d.x.png')
    assert pairs(tmp_path, img_suffix=suffix) == [
        ('images/a.png', 'labels/a.png'), ('images/b.jpg', 'labels/b.png'), ('images/d.x.jpg', 'labels/d.x.png'),
        ('images/sub/c.TIF', 'labels/sub/c.png')]
    assert not check(tmp_path, img_suffix=suffix).problems


def test_labels_of_several_suffixes_and_of_either_case(tmp_path):
    put(tmp_path, 'images/a.JPG', 'images/b.jpg', 'images/c_sat.jpg', 'labels/a.PNG', 'labels/b_L.png',
        'labels/c.tif')
    suffixes = dict(img_suffix=('.jpg', '_sat.jpg'), seg_map_suffix=('.png', '_L.png', '.tif'))
    assert pairs(tmp_path, **suffixes) == [
        ('images/a.JPG', 'labels/a.PNG'), ('images/b.jpg', 'labels/b_L.png'), ('images/c_sat.jpg', 'labels/c.tif')]
    assert not check(tmp_path, **suffixes).problems


@pytest.mark.parametrize('options', [
    dict(), *(pytest.param(options, marks=pytest.mark.slow) for options in (
        dict(img_suffix='.png', seg_map_suffix='.tif'), dict(img_suffix='_x.jpg'), dict(ann_file='names.txt')))])
def test_one_suffix_lists_as_mmsegmentation_does(tmp_path, options):
    put(tmp_path, *(f'images/{name}' for name in ('b.jpg', 'B.jpg', 'a/z.jpg', 'a_x.jpg', 'e.png', 'f.jpg')),
        *(f'labels/{name}' for name in ('b.png', 'B.png', 'a/z.png', 'a.png', 'a_x.png', 'e.tif', 'f.png')))
    (tmp_path / 'names.txt').write_text('f\nb\na/z\nb\n')
    expected = pairs(tmp_path, BaseSegDataset, **options)
    assert pairs(tmp_path, **options) == expected and expected
    put(tmp_path, 'images/b.JPG', 'labels/b.PNG')  # beside those with the suffix to the letter
    assert pairs(tmp_path, **options) == expected


@pytest.mark.parametrize('content,names', [
    ('\ufeffa\r\nb  \r\n\r\n\tc\r\n', 'abc'), ('c.png\na.jpg\nb.JPG\n\n', 'cab'), ('a', 'a'), ('\n c\n', 'c')])
def test_a_list_of_names_is_read_as_people_write_it(tmp_path, content, names):
    files = dict(a='a.jpg', b='b.JPG', c='c.png')
    put(tmp_path, *(f'images/{name}' for name in files.values()), *(f'labels/{name}.png' for name in 'abc'))
    (tmp_path / 'names.txt').write_bytes(content.encode())
    expected = [(f'images/{files[name]}', f'labels/{name}.png') for name in names]
    options = dict(ann_file='names.txt', img_suffix=('.jpg', '.png'))
    assert pairs(tmp_path, **options) == expected and not check(tmp_path, **options).problems


def test_a_list_names_one_of_two_files_with_its_suffix(tmp_path):
    put(tmp_path, 'images/a.jpg', 'images/a.png', 'images/b.jpg.jpg', 'labels/a.png', 'labels/b.jpg.png')
    (tmp_path / 'names.txt').write_text('a.png\nb.jpg\n')
    assert pairs(tmp_path, ann_file='names.txt', img_suffix=('.jpg', '.png')) == [
        ('images/a.png', 'labels/a.png'), ('images/b.jpg.jpg', 'labels/b.jpg.png')]


@pytest.mark.parametrize('content,words', [
    ('a\n'.encode('utf-16'), 'names.txt is no text in UTF-8'), (b' \r\n\n', 'names.txt names no image'),
    (None, 'names.txt is no file')])
def test_a_list_that_is_none_is_a_sentence(tmp_path, content, words):
    put(tmp_path, 'images/a.jpg', 'labels/a.png')
    if content is not None:
        (tmp_path / 'names.txt').write_bytes(content)
    with pytest.raises(MissingDatasetError, match=words):
        FolderDataset(**settings(tmp_path, ann_file='names.txt'))


@pytest.mark.parametrize('names,options', [
    (('images/a.jpg', 'images/a.png', 'labels/a.png'), dict(img_suffix=('.jpg', '.png'))),
    (('images/a.Jpg', 'images/a.JPG', 'labels/a.png'), dict()),
    (('images/a.jpg', 'labels/a.png', 'labels/a.tif'), dict(seg_map_suffix=('.tif', '.png')))])
def test_two_files_of_one_name_are_both_named(tmp_path, names, options):
    put(tmp_path, *names)
    with pytest.raises(InputError) as error:
        FolderDataset(**settings(tmp_path, **options))
    one, two = sorted(name.split('/')[1] for name in names if name.split('.')[0] == max(
        (name.split('.')[0] for name in names), key=[name.split('.')[0] for name in names].count))
    assert f'holds {one} and {two}, of which by the names each belongs to the ' in str(error.value)
    assert f'{one} and {two}' in check(tmp_path, **options).to_text()


def test_images_without_labels_may_share_a_name(tmp_path):
    put(tmp_path, 'images/a.jpg', 'images/a.png')
    prefix = dict(img_path='images')
    dataset = FolderDataset(**settings(tmp_path, img_suffix=('.jpg', '.png'), data_prefix=prefix, pipeline=STEPS[:1]))
    assert [dataset[i]['img_path'][-5:] for i in range(len(dataset))] == ['a.jpg', 'a.png']


def test_labels_in_the_folder_of_the_images_are_told_by_a_longer_suffix(tmp_path):
    put(tmp_path, 'images/a.jpg', 'images/b.png')
    for name in 'ab':
        put(tmp_path, f'labels/{name}.png')
        (tmp_path / f'labels/{name}.png').rename(tmp_path / f'images/{name}_L.png')
    options = dict(data_prefix=dict(img_path='images', seg_map_path='images'), img_suffix=('.jpg', '.png'),
                   seg_map_suffix='_L.png')
    assert pairs(tmp_path, **options) == [('images/a.jpg', 'images/a_L.png'), ('images/b.png', 'images/b_L.png')]
    assert not check(tmp_path, **options).problems


def test_images_that_no_suffix_takes_are_counted_once(tmp_path, lines):
    put(tmp_path, 'images/a.jpg', 'labels/a.png', 'images/x.jpeg', 'images/y.jpeg', 'images/sub/z.webp',
        'images/.hidden.jpeg', 'images/.cache/w.jpeg')
    (tmp_path / 'images/notes.txt').write_text('')
    assert pairs(tmp_path) == [('images/a.jpg', 'labels/a.png')]
    (level, text), = lines
    assert level == logging.WARNING and text == (
        f"{tmp_path}/images: 3 images are not taken, as img_suffix='.jpg' does not name how they end: "
        '2 in .jpeg such as x.jpeg, 1 in .webp such as sub/z.webp')
    report = check(tmp_path)
    assert len(lines) == 1 and text in report.to_text() and set(report.totals) == {('warning', 'images not taken')}


def test_a_label_without_an_image_of_any_suffix_is_named(tmp_path):
    put(tmp_path, 'images/a.jpg', 'labels/a.png', 'labels/b.PNG')
    report = check(tmp_path, img_suffix=('.jpg', '.tif'))
    problem, = report.problems
    assert problem.kind == 'label without image' and 'images/b.jpg or ' in problem.message
    assert problem.path.endswith('b.PNG') and 'images/b.tif is not there' in problem.message


@pytest.mark.parametrize('suffix', [3, (), ('.jpg', None), None])
def test_what_is_no_suffix_is_a_sentence(tmp_path, suffix):
    with pytest.raises(InputError, match=r"img_suffix=.*: give how the names end, '.jpg', or several"):
        FolderDataset(**settings(tmp_path, img_suffix=suffix))


class OneOfMany(BaseSegDataset):
    def load_data_list(self):
        return super().load_data_list()[:1]


class Own(FolderDataset, OneOfMany):
    """A base class that lists in its own way is asked."""


def test_a_base_class_lists_in_its_own_way(tmp_path):
    put(tmp_path, 'images/a.jpg', 'images/b.jpg', 'labels/a.png', 'labels/b.png')
    assert pairs(tmp_path, Own) == [('images/a.jpg', 'labels/a.png')]


def mask(root, *labels):
    for folder in ('images', 'labels'):
        (root / folder).mkdir()
    for i, values in enumerate(labels):
        array = np.array([values], np.uint8).repeat(2, 0)
        Image.fromarray(array).save(root / f'labels/{i:03}.png')
        Image.fromarray(array).save(root / f'images/{i:03}.jpg')


@pytest.mark.parametrize('labels,options,left', [
    ([[0, 255], [0, 0]], {}, 'only the class a'), ([[0, 0], [255, 255]], {}, 'only the class a'),
    ([[0, 255]], dict(reduce_zero_label=True), 'nothing'),
    ([[0, 255], [0, 1]], {}, None), ([[0, 0]], {}, None), ([[255, 255]], {}, None), ([[0, 1]], {}, None),
    ([[0, 255]], dict(metainfo=dict(classes=('a', ))), None), ([[0, 255]], dict(test_mode=True), None),
    ([[0, 255]], dict(lazy_init=True), None), ([[0, 255]], dict(ignore_index=0), None),
    ([[0, 255]], dict(pipeline=STEPS[:1]), None)])
def test_masks_of_0_and_255_leave_one_class(tmp_path, lines, labels, options, left):
    mask(tmp_path, *labels)
    FolderDataset(**settings(tmp_path, **options))
    assert len(lines) == (left is not None)
    for level, text in lines:
        assert level == logging.WARNING
        assert text.startswith(f'{tmp_path}/labels: the first {len(labels)} labels hold 0 and 255 only')
        assert f'which leaves {left}: if 255 is a class, change it to 1' in text


def test_masks_that_cannot_be_read_are_said_later(tmp_path, lines):
    mask(tmp_path, [0, 255], [0, 255])
    (tmp_path / 'labels/000.png').write_bytes(b'')
    FolderDataset(**settings(tmp_path))
    assert len(lines) == 1
