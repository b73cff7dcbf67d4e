"""The checker of data sets, against NumPy, MMSegmentation and layouts as people have them."""
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from mmengine.config import Config
from mmseg.datasets import ADE20KDataset
from mmseg.datasets.transforms import LoadAnnotations
from PIL import Image

from mmseg_inceptionnext.cli import run_tool
from mmseg_inceptionnext.datasets import check_dataset, make_toy_ade20k
from mmseg_inceptionnext.datasets.check.report import MOST_EXAMPLES
from mmseg_inceptionnext.datasets.check.samples import mapped_values

from utils import ROOT, TOY

STEPS = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
NAMES = ('a', 'b', 'c', 'd')


def config(root, kind='ADEChallengeDataset', split='training', **options):
    prefix = dict(img_path=f'images/{split}', seg_map_path=f'annotations/{split}')
    dataset = dict(dict(type=kind, data_root=str(root), data_prefix=prefix, pipeline=STEPS, serialize_data=False),
                   **options)
    return Config(dict(train_dataloader=dict(dataset=dataset)))


def check(*args, **options):
    return check_dataset(config(*args, **options), ['train'])[0]


def write(root, labels, folder='training', suffixes=('.jpg', '.png')):
    """Writes labels of one row of values each, and images of their size."""
    for name in ('images', 'annotations'):
        (root / name / folder).mkdir(parents=True, exist_ok=True)
    for i, values in enumerate(labels):
        label = np.array(values, np.uint8)[None].repeat(2, 0)
        Image.fromarray(label).save(root / f'annotations/{folder}/{i}{suffixes[1]}')
        Image.fromarray(np.dstack([label] * 3)).save(root / f'images/{folder}/{i}{suffixes[0]}')


def kinds(report):
    return set(report.totals)


@pytest.mark.parametrize('reduce_zero_label', [False, True])
@pytest.mark.parametrize('label_map', [None, {0: 1, 1: 0, 3: 255, 5: 2, 254: 9, 255: 4}])
def test_values_are_mapped_as_mmsegmentation_does(tmp_path, reduce_zero_label, label_map):
    Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).save(tmp_path / 'all.png')
    results = LoadAnnotations()(dict(seg_map_path=str(tmp_path / 'all.png'), reduce_zero_label=reduce_zero_label,
                                     label_map=label_map, seg_fields=[]))
    np.testing.assert_array_equal(mapped_values(reduce_zero_label, label_map), results['gt_seg_map'].ravel())


def test_classes_are_counted_as_by_numpy(toy_root):
    report = check(toy_root)
    labels = [np.array(Image.open(path)) for path in sorted((toy_root / 'annotations/training').glob('*.png'))]
    assert report.samples == len(labels) == 6 and not report.problems
    classes = ADE20KDataset.METAINFO['classes']
    expected = [(i, name, sum(int((label == i + 1).sum()) for label in labels),
                 sum(bool((label == i + 1).any()) for label in labels)) for i, name in enumerate(classes)]
    data = report.to_dict()
    assert [tuple(row.values()) for row in data['classes']] == expected
    never = [name for _, name, pixels, _ in expected if not pixels]
    assert data['never'] == never and len(never) >= 137
    text = report.to_text()
    assert f'{len(never)} of 150 classes never occur: {never[0]}, {never[1]}' in text
    others = sum(int((label == 0).sum()) for label in labels)
    assert f'no class: {others} pixels ({100 * others / sum(label.size for label in labels):.2f} %)' in text
    sky = expected[2]
    assert [cell.strip() for cell in text.split('| sky ')[1].split('\n')[0].split('|')[1:4:2]] == [
        str(sky[2]), str(sky[3])]


def test_processes_find_the_same(toy_root, tmp_path):
    shutil.copytree(toy_root, tmp_path / 'data')
    for number in (1, 4):
        (tmp_path / f'data/images/training/toy_training_0000{number}.jpg').write_bytes(b'')
    alone, shared = (check_dataset(config(tmp_path / 'data'), ['train'], jobs)[0] for jobs in (1, 2))
    assert alone.to_dict() == shared.to_dict() and alone.count('error') == 2


def test_memory_does_not_grow_with_the_dataset(tmp_path):
    peaks = []
    for count in (30, 300):
        root = tmp_path / str(count)
        write(root, [np.arange(1, 120)])
        Image.fromarray(np.zeros((200, 119, 3), np.uint8)).save(root / 'images/training/0.jpg')
        for i in range(1, count):
            for kind, suffix in (('images', 'jpg'), ('annotations', 'png')):
                os.link(root / f'{kind}/training/0.{suffix}', root / f'{kind}/training/{i}.{suffix}')
        check(root)
        tracemalloc.start()
        report = check(root)  # every label is of another size than its image
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert report.count('error') == count and len(report.problems) == MOST_EXAMPLES
        assert f'... and {count - MOST_EXAMPLES} more' in report.to_text()
    assert peaks[1] - peaks[0] < 270 * 2000, 'an image has 71400 bytes, the names of a pair some hundreds'


@pytest.mark.parametrize('labels,reduce_zero_label,words', [
    ([[0, 1, 2, 3]], True, 'the value 0 (25.0 % of the pixels) is ignored, and the last class, d, never occurs'),
    ([[0, 255], [0, 0]], False, 'if 255 is a class, change it to 1'),
    ([[0, 255], [0, 0]], True, 'no pixel of any label is of a class; the files hold the values 0, 255'),
    ([[0, 1, 2, 3, 4]], True, None),  # as it should be
    ([[0, 1, 2]], True, None),  # a few images of a data set: the last classes are not among them
    ([[1, 2, 3]], True, None),
    ([[0, 1, 2, 3]], False, None),
    ([[0, 1, 2, 255]], False, None),
    ([[0, 0, 0, 0]], False, None),
])
def test_a_reduce_zero_label_that_looks_wrong_is_a_question(tmp_path, labels, reduce_zero_label, words):
    write(tmp_path, labels)
    report = check(tmp_path, 'BaseSegDataset', reduce_zero_label=reduce_zero_label,
                   metainfo=dict(classes=NAMES, palette=[[i] * 3 for i in range(4)]))
    asked = [problem.message for problem in report.problems if problem.path == str(tmp_path)]
    assert not asked if words is None else len(asked) >= 1 and words in asked[0]


def test_labels_of_ade20k_that_are_taken_as_they_are_are_a_question(tmp_path):
    write(tmp_path, [[0, 1, 2, 3]])
    for kind in ('ADE20KDataset', 'ADEChallengeDataset'):
        for reduce_zero_label in (False, True):
            report = check(tmp_path, kind, reduce_zero_label=reduce_zero_label)
            asked = any('the files of ADE20K count classes from 1' in problem.message for problem in report.problems)
            assert asked is not reduce_zero_label


def test_a_subset_of_the_classes_asks_nothing(tmp_path):
    write(tmp_path, [[0, 1, 2, 3, 10, 255]])
    report = check(tmp_path, 'CamVidDataset', metainfo=dict(classes=('building', 'pole')))
    rows = report.to_dict()['classes']
    assert not report.problems and [(row['pixels'], row['images']) for row in rows] == [(2, 1), (2, 1)]


def test_suffixes_that_match_nothing_are_answered_with_those_there(tmp_path):
    write(tmp_path, [[1], [2]], suffixes=('.jpeg', '.png'))
    write(tmp_path, [[1]], suffixes=('.webp', '.png'))
    report = check(tmp_path)
    problem, = report.problems
    assert kinds(report) == {('error', 'no data')} and report.samples == 0
    assert '.jpg, which is img_suffix; there are 2 in .jpeg, 1 in .webp' in problem.message
    assert 'no file ends in .jpg, which is img_suffix' in check(tmp_path, 'ADE20KDataset').to_text()
    report = check(tmp_path, 'CamVidDataset', img_suffix='.jpeg', seg_map_suffix='_L.png')
    assert kinds(report) == {('error', 'image without label'), ('warning', 'images not taken')}
    assert report.count('error') == 2 and '1 images are not taken' in report.to_text()


def test_images_and_labels_may_share_a_folder(tmp_path):
    write(tmp_path, [[1, 2]])
    (tmp_path / 'annotations/training/0.png').rename(tmp_path / 'images/training/0_L.png')
    prefix = dict(img_path='images/training', seg_map_path='images/training')
    report = check(tmp_path, 'CamVidDataset', seg_map_suffix='_L.png', data_prefix=prefix)
    assert report.samples == 1 and not report.problems
    (tmp_path / 'images/training/0_L.png').unlink()
    report = check(tmp_path, 'CamVidDataset', seg_map_suffix='_L.png', data_prefix=prefix)
    assert kinds(report) == {('error', 'image without label')}


def full_archive(root, name):
    folders = {
        'ADE20K_2021_17_01': ['images/ADE/training/urban/street'],
        'ADE20K_2016_07_26': ['images/training/s/street', 'images/validation/s/street'],
    }[name]
    for folder in folders:
        (root / name / folder).mkdir(parents=True)
        for suffix in ('.jpg', '_seg.png', '_parts_1.png'):
            Image.new('RGB', (4, 4)).save(root / name / folder / f'ADE_train_00000001{suffix}')
    return root / name


@pytest.mark.parametrize('name', ['ADE20K_2021_17_01', 'ADE20K_2016_07_26'])
def test_the_full_ade20k_is_told_from_that_of_the_challenge(tmp_path, name):
    root = full_archive(tmp_path, name)
    for given in (root, tmp_path, tmp_path / 'ADEChallengeData2016'):
        report = check(given)
        assert report.count('error') and f'{root} is the full ADE20K' in report.to_text()
        assert 'ADEChallengeData2016.zip' in report.to_text()


def test_a_challenge_archive_beside_the_full_one_is_fine(tmp_path):
    full_archive(tmp_path, 'ADE20K_2021_17_01')
    make_toy_ade20k(str(tmp_path / 'ADEChallengeData2016'), 1, 1)
    assert not check(tmp_path / 'ADEChallengeData2016').problems
    assert 'full ADE20K' not in check(tmp_path / 'elsewhere/data', 'CamVidDataset').to_text()


def test_a_list_of_names_is_followed(tmp_path):
    write(tmp_path, [[1, 2], [3, 4], [5, 6]])
    (tmp_path / 'names.txt').write_text('0\n2\n9\n')
    report = check(tmp_path, ann_file='names.txt')
    assert report.samples == 3 and kinds(report) == {('error', 'unreadable image'), ('error', 'image without label')}
    report = check(tmp_path, ann_file='absent.txt')
    assert kinds(report) == {('error', 'no data')} and 'absent.txt' in report.to_text()


def test_joined_and_repeated_datasets_are_checked_one_by_one(tmp_path):
    for name in 'ab':
        write(tmp_path / name, [[1, 2]])
    one, two = (config(tmp_path / name).train_dataloader.dataset for name in 'ab')
    cfg = Config(dict(train_dataloader=dict(dataset=dict(
        type='RepeatDataset', times=3, dataset=dict(type='ConcatDataset', datasets=[one, two])))))
    reports = check_dataset(cfg, ['train'])
    assert [report.name for report in reports] == [f'train: ADEChallengeDataset in {tmp_path / name}' for name in 'ab']
    assert [report.samples for report in reports] == [1, 1]


def test_the_classes_of_the_model_are_compared(tmp_path):
    write(tmp_path, [[1, 2]])
    cfg = config(tmp_path)
    for heads, expected in ((dict(num_classes=150), 0), (dict(num_classes=19), 1),
                            ([dict(num_classes=19), dict(num_classes=150)], 1), (dict(type='X'), 0)):
        cfg.model = dict(decode_head=heads)
        report, = check_dataset(cfg, ['train'])
        assert report.count('error') == expected
    cfg.model = dict(decode_head=dict(num_classes=150), auxiliary_head=dict(num_classes=11))
    text = check_dataset(cfg, ['train'])[0].to_text()
    assert 'model.auxiliary_head.num_classes: is 11, but the dataset names 150 classes' in text


@pytest.mark.parametrize('model,names', [
    (dict(decode_head=dict(type='X')), ['model.decode_head']),
    (dict(decode_head=dict(ignore_index=199)), []),
    (dict(decode_head=dict(ignore_index=None)), []),  # the masked binary cross-entropy
    (dict(decode_head=dict(ignore_index=199), auxiliary_head=[dict(ignore_index=199), dict(type='X')]),
     ['model.auxiliary_head.1']),
    (dict(decode_head=[dict(type='X'), dict(ignore_index=199)]), ['model.decode_head.0']),
])
def test_what_the_dataset_ignores_the_heads_must_ignore(tmp_path, model, names):
    write(tmp_path, [[1, 2, 200]])  # 199 after reduce_zero_label
    cfg = config(tmp_path, ignore_index=199)
    cfg.model = model
    report, = check_dataset(cfg, ['train'])
    assert [problem.path for problem in report.problems] == [f'{name}.ignore_index' for name in names]
    for problem in report.problems:
        assert problem[:2] == ('error', 'ignore_index') and 'is 255, but train_dataloader.dataset' in problem.message
        assert 'seg_pad_val' in problem.message


def test_what_a_joined_dataset_ignores_is_named(tmp_path):
    write(tmp_path, [[1, 2]])
    one, two = (dict(config(tmp_path, ignore_index=value).train_dataloader.dataset) for value in (255, 7))
    cfg = Config(dict(model=dict(decode_head=dict(type='X')), train_dataloader=dict(dataset=dict(
        type='ConcatDataset', datasets=[one, two]))))
    reports = check_dataset(cfg, ['train'])
    assert [report.count('error') for report in reports] == [0, 1]
    assert 'but train_dataloader.dataset.datasets.1.ignore_index is 7' in reports[1].to_text()


@pytest.mark.parametrize('kind', ['IoUMetric', 'ExactIoUMetric'])
def test_what_the_validation_set_ignores_the_metric_must_ignore(tmp_path, kind):
    write(tmp_path, [[1, 2, 200]])
    cfg = config(tmp_path, ignore_index=199)
    cfg.val_dataloader = cfg.pop('train_dataloader')
    cfg.model = dict(decode_head=dict(type='X'))  # no loss is computed here
    for evaluator in (dict(type=kind), [dict(type='Other'), dict(type=kind)]):
        cfg.val_evaluator = evaluator
        report, = check_dataset(cfg, ['val'])
        problem, = report.problems
        assert problem.path == f'val_evaluator{".1" * isinstance(evaluator, list)}.ignore_index'
        assert problem.message.startswith('is 255, but val_dataloader.dataset.ignore_index is 199')
    cfg.val_evaluator = dict(type=kind, ignore_index=199)
    assert not check_dataset(cfg, ['val'])[0].problems


def splits_config(root, **values):
    """A config whose splits have these values of reduce_zero_label; several join datasets, None leaves it out."""
    cfg = {}
    for split, several in values.items():
        parts = [config(root, **({} if value is None else dict(reduce_zero_label=value))).train_dataloader.dataset
                 for value in several]
        dataset = parts[0] if len(parts) == 1 else dict(type='ConcatDataset', datasets=parts)
        cfg[f'{split}_dataloader'] = dict(dataset=dataset)
    return Config(cfg)


@pytest.mark.parametrize('values,others', [
    (dict(train=[False], val=[None], test=[True]), ['val_dataloader.dataset', 'test_dataloader.dataset']),
    (dict(train=[None], val=[True], test=[False]), ['test_dataloader.dataset']),
    (dict(train=[True], val=[False, False]), ['val_dataloader.dataset.datasets.1']),
    (dict(train=[True], val=[None]), []),
    (dict(train=[True, False], val=[True], test=[False]), []),  # data of two kinds are joined
    (dict(train=[False]), []),
])
def test_a_reduce_zero_label_of_one_split_only_is_a_question(tmp_path, values, others):
    write(tmp_path, [[1, 2, 150]])
    cfg = splits_config(tmp_path, **values)
    for splits in (['train'], list(values)):
        problems = [problem for report in check_dataset(cfg, splits) for problem in report.problems
                    if problem.path.endswith('.reduce_zero_label')]
        assert [(problem.level, problem.path) for problem in problems] == [
            ('warning', 'train_dataloader.dataset.reduce_zero_label')] * len(others)
        assert all(f'{other}.reduce_zero_label is ' in problem.message for problem, other in zip(problems, others))


def test_a_split_that_is_not_asked_for_may_be_of_any_kind(tmp_path):
    write(tmp_path, [[1, 2]])
    cfg = config(tmp_path)
    without_labels = dict(cfg.train_dataloader.dataset, reduce_zero_label=False,
                          data_prefix=dict(img_path='images/training'))
    for loader in (None, dict(), dict(dataset=dict(type='NoSuchDataset')), dict(dataset=without_labels)):
        cfg.test_dataloader = loader
        assert not check_dataset(cfg, ['train'])[0].problems


@pytest.mark.parametrize('change,words', [
    (dict(train_dataloader=None), 'no train_dataloader'),
    (dict(train_dataloader=dict(batch_size=1)), r'train_dataloader has no dataset: add dataset=dict\(type='),
    (dict(train_dataloader=dict(dataset=3)), 'train_dataloader.dataset is 3: '),
    (dict(train_dataloader=dict(dataset=dict(type='RepeatDataset', dataset=[]))),
     r'train_dataloader.dataset.dataset is \[\]: '),
    (dict(train_dataloader=3), 'train_dataloader has no dataset'),
    (dict(type='NoSuchDataset'), 'cannot be built'),
    (dict(unknown=1), 'cannot be built'),
    (dict(pipeline=[]), 'LoadImageFromFile'),
    (dict(type='BaseSegDataset'), r'names no classes: add metainfo=dict\(classes='),
])
def test_what_cannot_be_checked_is_said(tmp_path, change, words):
    write(tmp_path, [[1, 2]])
    cfg = config(tmp_path)
    for key, value in change.items():
        (cfg if key == 'train_dataloader' else cfg.train_dataloader.dataset)[key] = value
    with pytest.raises(ValueError, match=words):
        check_dataset(cfg, ['train'])


def test_real_images_are_whole(camvid, ade20k_sample):
    for root, kind, split, count in ((camvid, 'CamVidDataset', 'val', 101), (ade20k_sample, 'ADEChallengeDataset',
                                                                            'validation', 3)):
        report = check(root, kind, split)
        assert report.samples == count and not report.problems


@pytest.fixture
def tool(monkeypatch, capsys):
    """Runs the tool in this process: exit code, standard output and what ``sys.exit`` says."""
    spec = importlib.util.spec_from_file_location('check_dataset_tool', ROOT / 'tools/check_dataset.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def call(*args):
        monkeypatch.setattr('sys.argv', ['check_dataset.py', *map(str, args)])
        with pytest.raises(SystemExit) as end:
            run_tool(module.main)
        captured = capsys.readouterr()
        return end.value.code, captured.out, captured.err
    return call


def test_the_command_line(tool, toy_root, tmp_path):
    options = ('--jobs', 1, '--cfg-options', f'data_root={tmp_path}/data')
    shutil.copytree(toy_root, tmp_path / 'data')
    code, text, progress = tool(ROOT / TOY, *options)
    assert not code and 'train: ADEChallengeDataset' in text and 'val: ADEChallengeDataset' in text
    assert '0 errors, 0 warnings' in text and '6/6' in progress and '3/3' in progress
    code, text, _ = tool(ROOT / TOY, '--split', 'train', *options)
    assert not code and 'val: ' not in text
    (tmp_path / 'data/images/validation/toy_validation_00000.jpg').write_bytes(b'')
    code, text, _ = tool(ROOT / TOY, '--json', *options)
    assert code == 1
    train, val = json.loads(text)
    assert (train['samples'], train['errors'], val['samples'], val['errors']) == (6, 0, 3, 1)
    problem, = val['problems']
    assert problem['level'] == 'error' and problem['examples'][0]['message'] == 'is empty'
    assert tool(ROOT / TOY, '--split', 'val', *options)[0] == 1
    code, text, _ = tool(tmp_path / 'absent.py')
    assert 'absent.py: no such config file' in str(code)


def test_a_setting_of_one_split_is_compared_with_the_others_by_the_command_line(tool, toy_root):
    def run(*settings):
        return tool(ROOT / TOY, '--split', 'train', '--jobs', 1, '--cfg-options', f'data_root={toy_root}', *settings)

    code, text, _ = run('train_dataloader.dataset.reduce_zero_label=False')
    assert not code and 'train_dataloader.dataset.reduce_zero_label: is False, but val_dataloader' in text
    code, text, _ = run('train_dataloader.dataset.ignore_index=199')
    assert code == 1 and 'model.decode_head.ignore_index: is 255, but train_dataloader.dataset.ignore_index' in text


@pytest.mark.parametrize('name,content,words', [
    ('syntax.py', 'a = (', 'SyntaxError'),
    ('base.py', "_base_ = './nowhere.py'", 'nowhere.py'),
    ('config.txt', 'a = 1', 'a config is a file that ends in .py, .json, .yaml or .yml'),
    ('loader.py', 'train_dataloader = dict(batch_size=1)', 'train_dataloader has no dataset'),
])
def test_a_config_that_is_none_gets_a_sentence(tool, tmp_path, name, content, words):
    (tmp_path / name).write_text(content)
    code, text, _ = tool(tmp_path / name)
    assert isinstance(code, str) and words in code and '\n' not in code and not text  # exit code 1


@pytest.mark.slow
def test_json_is_all_there_is_on_standard_output(toy_root):
    options = ['--json', '--jobs', '2', '--cfg-options', f'data_root={toy_root}']
    result = subprocess.run([sys.executable, 'tools/check_dataset.py', TOY, *options], cwd=ROOT, capture_output=True,
                            text=True, timeout=300)
    assert result.returncode == 0, result.stderr[-3000:]
    assert [report['samples'] for report in json.loads(result.stdout)] == [6, 3]
