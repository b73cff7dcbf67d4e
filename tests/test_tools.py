"""The command lines, from drawn or real images to files on disk."""
import csv
import json
import re
import shutil
from pathlib import Path

import cv2
import mmseg
import numpy as np
import pytest
import torch
from PIL import Image

from mmseg_inceptionnext.cli import run_tool as run_main
from mmseg_inceptionnext.config import load_config
from mmseg_inceptionnext.errors import CheckpointError, ConfigError, UserError

from utils import ROOT, SHORT, TOY, load_model, mean_of_views, poison, printed_miou, run_tool, save_checkpoint

UPERNET = 'configs/upernet_inceptionnext_t_ade20k.py'
TOOLS = sorted(str(path.relative_to(ROOT)) for path in (ROOT / 'tools').glob('*.py'))


def numpy_confusion(predictions, annotations, num_classes=150):
    """Labels by predictions, over PNGs of predictions (from 0) and of annotations (from 1)."""
    confusion = np.zeros((num_classes, num_classes), np.int64)
    names = sorted(path.name for path in annotations.glob('*.png'))
    assert names
    for name in names:
        label = np.array(Image.open(annotations / name)).astype(int) - 1
        prediction = np.array(Image.open(predictions / name))
        assert prediction.shape == label.shape
        np.add.at(confusion, (label[label >= 0], prediction[label >= 0]), 1)
    return confusion


def numpy_miou(predictions, annotations):
    """mIoU in percent."""
    confusion = numpy_confusion(predictions, annotations)
    union = confusion.sum(0) + confusion.sum(1) - confusion.diagonal()
    return 100 * (confusion.diagonal()[union > 0] / union[union > 0]).mean()


@pytest.mark.parametrize('tool', TOOLS)
def test_every_tool_explains_itself(tool):
    text = run_tool(tool, '--help').stdout
    assert text.startswith(f'usage: {Path(tool).name} ') and re.search(r'^  -h, --help', text, re.MULTILINE)


@pytest.mark.parametrize('error,code', [
    (UserError('what, and the fix'), 'what, and the fix'),
    (ConfigError('of a config'), 'of a config'),
    (CheckpointError('of a checkpoint'), 'of a checkpoint'),
    (FileNotFoundError(2, 'No such file or directory', 'photo.jpg'), 'photo.jpg: No such file or directory'),
    (KeyboardInterrupt(), 130),
])
def test_what_a_user_can_do_something_about_is_said(error, code):
    with pytest.raises(SystemExit) as caught:
        run_main(lambda: fail(error))
    assert caught.value.code == code


@pytest.mark.parametrize('kind', [ValueError, RuntimeError, KeyError, OSError])
def test_what_is_a_fault_of_ours_keeps_its_traceback(kind):
    error = kind('of ours')
    with pytest.raises(kind) as caught:
        run_main(lambda: fail(error))
    assert caught.value is error and caught.traceback[-1].name == 'fail'


def fail(error):
    raise error


def test_a_process_ends_as_it_is_said():
    """A sentence, and nothing else, on standard error; standard output is for results."""
    result = run_tool('tools/get_complexity.py', 'absent.py', check=False)
    assert result.returncode == 1 and result.stdout.strip().splitlines()[-1] == 'absent.py: no such config file'
    assert 'Traceback' not in result.stdout


def test_training_says_what_it_does(trained):
    text = (trained / 'printed.txt').read_text()
    assert (trained / 'iter_2.pth').is_file() and list(trained.glob('best_mIoU_iter_2.pth'))
    assert 'the recipe has 6, this run has 6' in text
    assert 'Iter(train) [2/2]' in text and 0 <= printed_miou(text) <= 100


@pytest.mark.slow
def test_training_resumes(trained, toy_root, tmp_path):
    (tmp_path / 'last_checkpoint').write_text(str(shutil.copy(trained / 'iter_2.pth', tmp_path)))
    options = ('train_dataloader.batch_size=3', 'train_cfg.max_iters=3')
    text = run_tool('tools/train.py', TOY, '--work-dir', tmp_path, '--resume', '--auto-scale-lr', '--cfg-options',
                    f'data_root={toy_root}', *SHORT, *options).stdout
    assert 'Iter(train) [3/3]' in text and 'Iter(train) [1/3]' not in text
    assert 'the recipe has 6, this run has 3' in text and 'scaled by 0.5' in text


@pytest.mark.slow
def test_every_tool_says_what_it_refuses_and_how_to_trust_it(trained, toy_root, tmp_path):
    bad, mark = tmp_path / 'iter_2.pth', tmp_path / 'mark'
    poison(trained / 'iter_2.pth', bad, mark)
    (tmp_path / 'last_checkpoint').write_text(str(bad))
    image = toy_root / 'images/validation/toy_validation_00000.jpg'
    options = ['--work-dir', tmp_path, '--cfg-options', f'data_root={toy_root}', *SHORT]
    commands = [
        ['tools/train.py', TOY, '--resume', *options, 'train_cfg.max_iters=3'],
        ['tools/train.py', TOY, *options, 'model.backbone.init_cfg.type=Pretrained',
         f'model.backbone.init_cfg.checkpoint={bad}'],
        ['tools/test.py', TOY, bad, *options],
        ['tools/infer.py', bad, image, '--out-dir', tmp_path / 'out'],
    ]
    for command in commands:
        result = run_tool(*command, check=False)
        assert result.returncode == 1 and 'Traceback' not in result.stdout, result.stdout[-3000:]
        last = result.stdout.strip().splitlines()[-1]
        assert last.startswith(f'{bad} holds posix.system') and '--trust-checkpoint' in last
        assert not mark.exists()
    run_tool(*commands[-1], '--trust-checkpoint')
    assert mark.exists() and (tmp_path / 'out/toy_validation_00000.png').is_file()


@pytest.mark.slow
def test_starting_from_a_checkpoint_says_what_fits(trained, toy_root, tmp_path):
    """``load_from`` another number of classes: the rest is loaded; of a stranger's file nothing would be."""
    content = torch.load(trained / 'iter_2.pth', weights_only=False)
    content['state_dict']['decode_head.conv_seg.weight'] = torch.zeros(7, 64, 1, 1)
    torch.save(content, tmp_path / 'other.pth')
    options = ['--work-dir', tmp_path, '--cfg-options', f'data_root={toy_root}', *SHORT, 'train_cfg.max_iters=1']
    text = run_tool('tools/train.py', TOY, *options, f'load_from={tmp_path}/other.pth').stdout
    total = len(content['state_dict'])
    assert f'{total - 1}/{total} tensors from {tmp_path}/other.pth' in text
    assert 'decode_head.conv_seg.weight (7, 64, 1, 1), the model has (150, 64, 1, 1)' in text
    content['state_dict'] = {f'net.{key}': value for key, value in content['state_dict'].items()}
    torch.save(content, tmp_path / 'other.pth')
    for resume in ([], ['--resume']):
        result = run_tool('tools/train.py', TOY, *options, f'load_from={tmp_path}/other.pth', *resume, check=False)
        assert result.returncode == 1 and f'0 of its {total} tensors match' in result.stdout
        assert 'Traceback' not in result.stdout


@pytest.mark.slow
def test_training_in_mixed_precision(toy_root, tmp_path):
    """The losses of the two iterations are those of float32 to the precision of bfloat16, and not the same."""
    losses = {}
    for name, amp in (('float32', []), ('bfloat16', ['--amp', 'bf16'])):
        run_tool('tools/train.py', TOY, '--work-dir', tmp_path / name, *amp, '--cfg-options', f'data_root={toy_root}',
                 *SHORT, 'randomness.seed=0')
        scalars, = (tmp_path / name).rglob('scalars.json')
        lines = map(json.loads, scalars.read_text().splitlines())
        losses[name] = [line['loss'] for line in lines if 'loss' in line]
    assert len(losses['float32']) == 2 and losses['bfloat16'] != losses['float32']
    assert losses['bfloat16'] == pytest.approx(losses['float32'], rel=0.02)


def test_a_file_in_the_place_of_a_folder_is_explained(tmp_path):
    (tmp_path / 'file').write_text('')
    for command, words in ((['tools/train.py', TOY, '--work-dir', tmp_path / 'file'], 'file is a file; give a folder'),
                           (['tools/make_toy_ade20k.py', '--out', tmp_path / 'file'], f'{tmp_path}/file')):
        result = run_tool(*command, check=False)
        assert result.returncode == 1 and words in result.stdout and 'Traceback' not in result.stdout


def test_options_that_the_config_cannot_serve_are_explained(tmp_path):
    (tmp_path / 'bare.py').write_text(f"_base_ = '{ROOT / TOY}'\nauto_scale_lr = dict(_delete_=True)\n")
    result = run_tool('tools/train.py', tmp_path / 'bare.py', '--work-dir', tmp_path, '--auto-scale-lr', check=False)
    assert result.returncode == 1 and 'auto_scale_lr = dict(base_batch_size=16)' in result.stdout
    (tmp_path / 'bare.py').write_text(f"_base_ = '{ROOT}/configs/_base_/default_runtime.py'\n")
    result = run_tool('tools/test.py', tmp_path / 'bare.py', 'none.pth', '--protocol', 'ms', check=False)
    assert result.returncode == 1 and 'tta_pipeline' in result.stdout and 'Traceback' not in result.stdout
    for seeds in ('0,0', '0,-1', 'a'):
        result = run_tool('tools/train.py', TOY, f'--seeds={seeds}', check=False)
        assert result.returncode == 2 and f'argument --seeds: {seeds}: ' in result.stdout


def test_a_missing_dataset_is_explained(tmp_path):
    result = run_tool('tools/train.py', UPERNET, '--work-dir', tmp_path, '--cfg-options', f'data_root={tmp_path}/ade',
                      check=False)
    assert result.returncode == 1
    for part in (f'{tmp_path}/ade/images/training is not a folder', 'ADEChallengeData2016.zip', '--data-root DIR',
                 'python tools/make_toy_ade20k.py', 'fpn_inceptionnext_a_toy.py'):
        assert part in result.stdout
    assert 'Traceback' not in result.stdout


def test_evaluation_equals_numpy_over_inferred_images(trained, toy_root, tmp_path):
    checkpoint = trained / 'iter_2.pth'
    text = run_tool('tools/test.py', TOY, checkpoint, '--work-dir', tmp_path / 'test', '--out', tmp_path / 'out',
                    '--show-dir', tmp_path / 'show', '--cfg-options', f'data_root={toy_root}').stdout
    run_tool('tools/infer.py', checkpoint, toy_root / 'images/validation', '--out-dir', tmp_path / 'infer',
             '--no-fuse')
    expected = numpy_miou(tmp_path / 'infer', toy_root / 'annotations/validation')
    metrics = json.loads((tmp_path / 'test/metrics.json').read_text())
    assert metrics['mIoU'] == pytest.approx(expected, abs=1e-9)
    assert printed_miou(text) == pytest.approx(expected, abs=1e-4)
    assert f'mIoU {expected:.2f}' in text.splitlines()[-1] and 'protocol ss (mode whole; ' in text.splitlines()[-1]
    assert metrics['protocol'] == dict(name='ss', mode='whole', scales=[], flip=False, views=1,
                                       alignment='resized to multiples of 32')
    confusion = numpy_confusion(tmp_path / 'infer', toy_root / 'annotations/validation')
    np.testing.assert_array_equal(np.load(tmp_path / 'test/confusion.npy'), confusion)
    with open(tmp_path / 'test/per_class.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    absent = np.flatnonzero(confusion.sum(0) + confusion.sum(1) == 0)
    assert len(rows) == 150 and 100 < len(absent) < 150
    assert metrics['absent_classes'] == [rows[i]['class'] for i in absent]
    assert all(metrics[f'IoU/{rows[i]["class"]}'] is None and rows[i]['IoU'] == '' for i in absent)
    for i in np.flatnonzero(confusion.sum(1)):
        accuracy = 100 * confusion[i, i] / confusion[i].sum()
        assert metrics[f'Acc/{rows[i]["class"]}'] == pytest.approx(accuracy, abs=1e-9)
        assert float(rows[i]['Acc']) == pytest.approx(accuracy, abs=1e-9)
    assert Image.open(tmp_path / 'test/confusion.png').size > (500, 500)
    for path in (tmp_path / 'out').glob('*.png'):  # --out writes the dataset's own values, 0 other
        ids = np.array(Image.open(tmp_path / 'infer' / path.name))
        np.testing.assert_array_equal(np.array(Image.open(path)), ids + 1)
    assert len(list((tmp_path / 'out').glob('*.png'))) == 3
    assert len(list((tmp_path / 'show').rglob('*.png'))) == 3
    assert list(tmp_path.glob('test/*/*.log'))


@pytest.mark.slow
def test_weights_that_do_not_fit_are_not_evaluated(trained, toy_root, tmp_path):
    checkpoint = torch.load(trained / 'iter_2.pth', weights_only=False)
    checkpoint['state_dict'] = {f'other.{key}': value for key, value in checkpoint['state_dict'].items()}
    torch.save(checkpoint, tmp_path / 'renamed.pth')
    for name, words in (('renamed.pth', 'do not fit the model'), ('absent.pth', 'no such checkpoint file')):
        result = run_tool('tools/test.py', TOY, tmp_path / name, '--work-dir', tmp_path, '--cfg-options',
                          f'data_root={toy_root}', check=False)
        assert result.returncode == 1 and words in result.stdout and 'Traceback' not in result.stdout
    assert not (tmp_path / 'metrics.json').exists()


@pytest.mark.slow
def test_evaluation_with_tta_averages_the_softmax_of_six_views(toy_root, tmp_path):
    checkpoint = save_checkpoint(TOY, tmp_path / 'random.pth')
    text = run_tool('tools/test.py', TOY, checkpoint, '--work-dir', tmp_path, '--protocol', 'ms', '--out',
                    tmp_path / 'out', '--cfg-options', f'data_root={toy_root}').stdout
    assert 'protocol ms' in text.splitlines()[-1] and '6 views' in text.splitlines()[-1]
    assert json.loads((tmp_path / 'metrics.json').read_text())['protocol']['name'] == 'ms'
    model = load_model(TOY, checkpoint)
    paths = sorted((toy_root / 'images/validation').glob('*.jpg'))
    assert len(paths) == 3
    for path in paths:
        width, height = Image.open(path).size
        sizes = [(int(width * scale + 0.5), int(height * scale + 0.5)) for scale in (0.75, 1.0, 1.25)]
        expected = mean_of_views(*model, path, sizes, divisor=32)
        written = np.array(Image.open(tmp_path / 'out' / f'{path.stem}.png'))
        assert len(np.unique(expected)) > 3 and (expected == written - 1).mean() > 0.999


@pytest.mark.slow
def test_images_without_labels_are_predicted(trained, toy_root, tmp_path):
    """In ADE20K's submission format, into a folder that is printed."""
    source = toy_root / 'images/validation'
    shutil.copytree(source, tmp_path / 'photos')
    text = run_tool('tools/test.py', TOY, trained / 'iter_2.pth', '--work-dir', tmp_path / 'work', '--no-gt',
                    tmp_path / 'photos').stdout
    out = tmp_path / 'work/predictions'
    assert f'3 predictions in {out}' in text.splitlines()[-1]
    run_tool('tools/infer.py', trained / 'iter_2.pth', source, '--out-dir', tmp_path / 'infer', '--no-fuse')
    assert sorted(path.name for path in out.iterdir()) == sorted(f'{path.stem}.png' for path in source.iterdir())
    for path in out.iterdir():
        image = Image.open(path)
        assert image.mode == 'L'
        np.testing.assert_array_equal(np.array(image), np.array(Image.open(tmp_path / 'infer' / path.name)) + 1)
    assert not (tmp_path / 'work/metrics.json').exists() and 'got empty' not in text


@pytest.mark.slow
def test_stock_tools_need_only_the_config(toy_root, tmp_path):
    package = Path(mmseg.__file__).parent  # a wheel keeps the tools inside the package, a checkout beside it
    stock = next(path for path in (package / '.mim/tools/train.py', package.parent / 'tools/train.py')
                 if path.is_file())
    loaders = [f'{name}_dataloader.dataset.data_root={toy_root}' for name in ('train', 'val', 'test')]
    text = run_tool(stock, ROOT / TOY, '--work-dir', tmp_path, '--cfg-options', *loaders, *SHORT, cwd=tmp_path).stdout
    assert 'Iter(train) [2/2]' in text and (tmp_path / 'iter_2.pth').is_file()


@pytest.mark.slow
def test_inference_reports_bad_files_and_goes_on(trained, toy_root, tmp_path):
    good = toy_root / 'images/validation/toy_validation_00001.jpg'
    (tmp_path / 'text.jpg').write_text('not an image')
    (tmp_path / 'empty.png').write_bytes(b'')
    result = run_tool('tools/infer.py', trained / 'iter_2.pth', tmp_path / 'text.jpg', tmp_path / 'missing.jpg',
                      tmp_path / 'empty.png', good, '--out-dir', tmp_path / 'out', check=False)
    assert result.returncode == 1 and 'Traceback' not in result.stdout
    for words in ('3 of 4', f'{tmp_path}/text.jpg: ', f'{tmp_path}/missing.jpg: ', f'{tmp_path}/empty.png: '):
        assert words in result.stdout
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == [
        'toy_validation_00001.png', 'toy_validation_00001_overlay.jpg']


@pytest.mark.slow
def test_inference_takes_the_config_from_the_command_line(toy_root, tmp_path):
    checkpoint = save_checkpoint(TOY, tmp_path / 'bare.pth', with_meta=False)
    image = toy_root / 'images/validation/toy_validation_00000.jpg'
    result = run_tool('tools/infer.py', checkpoint, image, '--out-dir', tmp_path / 'out', check=False)
    assert result.returncode == 1 and 'bare.pth holds no config' in result.stdout and '--config' in result.stdout
    run_tool('tools/infer.py', checkpoint, image, '--out-dir', tmp_path / 'out', '--config', TOY, '--opacity', '1')
    mask = np.array(Image.open(tmp_path / 'out/toy_validation_00000.png'))
    assert mask.shape == cv2.imread(str(image)).shape[:2] and mask.dtype == np.uint8


def annotate(source, target, change):
    """Copies a data set and writes new annotations, made from the old one and the file's name."""
    shutil.copytree(source / 'images', target / 'images')
    folder = target / 'annotations/validation'
    folder.mkdir(parents=True)
    for path in (source / 'annotations/validation').glob('*.png'):
        Image.fromarray(change(np.array(Image.open(path)), path.name)).save(folder / path.name)


@pytest.mark.slow
def test_upernet_on_real_images_equals_numpy(ade20k_sample, tmp_path):
    """Real labels, perfect predictions, and labels of which the prediction never says one class."""
    checkpoint = save_checkpoint(UPERNET, tmp_path / 'upernet.pth')
    inferred = tmp_path / 'infer'
    run_tool('tools/infer.py', checkpoint, ade20k_sample / 'images/validation', '--out-dir', inferred, '--no-fuse')
    sizes = {path.name: Image.open(path).size for path in inferred.glob('*.png')}
    assert sorted(sizes.values()) == [(400, 300), (500, 364), (683, 512)]

    def prediction(name):
        return np.array(Image.open(inferred / name)).astype(np.uint8)

    seen = np.unique(np.concatenate([prediction(name).ravel() for name in sizes]))
    assert len(seen) > 3
    absent = np.setdiff1d(np.arange(150), seen)[0]

    def perfect(label, name):
        return np.where(label == 0, 0, prediction(name) + 1).astype(np.uint8)

    def partly(label, name):  # the upper third is a class that is never predicted, the left half is right
        new = perfect(label, name)
        new[:, label.shape[1] // 2:] = label[:, label.shape[1] // 2:]
        new[:label.shape[0] // 3] = absent + 1
        return new

    roots = {'real': ade20k_sample, 'perfect': tmp_path / 'perfect', 'partly': tmp_path / 'partly'}
    annotate(ade20k_sample, roots['perfect'], perfect)
    annotate(ade20k_sample, roots['partly'], partly)
    mious = {}
    for name, root in roots.items():
        text = run_tool('tools/test.py', UPERNET, checkpoint, '--work-dir', tmp_path / 'work', '--cfg-options',
                        f'data_root={root}', 'test_dataloader.num_workers=0',
                        'test_dataloader.persistent_workers=False').stdout
        mious[name] = printed_miou(text)
        assert mious[name] == pytest.approx(numpy_miou(inferred, root / 'annotations/validation'), abs=1e-4)
    assert mious['perfect'] == 100 and 0 < mious['partly'] < 100 and mious['real'] < 100


def test_complexity_prints_every_part():
    text = run_tool('tools/get_complexity.py', UPERNET, '--shape', 512, 2048).stdout
    rows = {m[0]: (float(m[1]), float(m[2])) for m in re.findall(r'\| (\w+)\s+\|\s+([\d.]+) \|\s+([\d.]+) \|', text)}
    assert list(rows) == ['backbone', 'decode_head', 'auxiliary_head', 'total']
    assert rows['total'] == (56.40, 932.8) and rows['auxiliary_head'][1] == 0
    assert np.sum(list(rows.values())[:-1], axis=0) == pytest.approx(rows['total'], abs=0.2)


def test_the_whole_config_is_printed_with_its_options(tmp_path):
    text = run_tool('tools/print_config.py', TOY, '--data-root', '/data', '--cfg-options', 'norm_cfg.type=BN').stdout
    (tmp_path / 'printed.py').write_text(text)
    expected = load_config(str(ROOT / TOY), {'data_root': '/data', 'norm_cfg.type': 'BN'})
    assert load_config(str(tmp_path / 'printed.py'), work_dir=expected.work_dir).to_dict() == expected.to_dict()
    assert expected.model.backbone.norm_cfg.type == 'BN' and expected.val_dataloader.dataset.data_root == '/data'


def test_toy_data_from_the_command_line(tmp_path):
    text = run_tool('tools/make_toy_ade20k.py', '--out', tmp_path / 'a', '--num-train', 2, '--num-val', 1).stdout
    assert '2 training and 1 validation' in text
    assert len(list((tmp_path / 'a').rglob('*.jpg'))) == len(list((tmp_path / 'a').rglob('*.png'))) == 3
