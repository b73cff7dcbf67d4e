"""Which files are segmented, and where their results go."""
import os

import numpy as np
import pytest
from PIL import Image

from mmseg_inceptionnext.inference import ResultWriter, SegmentationResult
from mmseg_inceptionnext.inference.inputs import list_images, plan_outputs


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b'')
    return str(path)


def test_files_and_folders_are_planned(tmp_path):
    single = touch(tmp_path / 'one/a.jpg')
    nested = touch(tmp_path / 'many/sub/b.PNG')
    touch(tmp_path / 'many/notes.txt')
    out = str(tmp_path / 'out')
    assert plan_outputs([single, str(tmp_path / 'many')], out) == {single: f'{out}/a', nested: f'{out}/sub/b'}


def test_a_file_named_twice_is_taken_once_but_links_to_it_are_files(tmp_path):
    image = touch(tmp_path / 'in/a.jpg')
    (tmp_path / 'in/b.jpg').symlink_to(image)
    inputs = [str(tmp_path / 'in'), image, str(tmp_path / 'in/../in/b.jpg')]
    assert list(plan_outputs(inputs, str(tmp_path / 'out')).values()) == [f'{tmp_path}/out/a', f'{tmp_path}/out/b']


def test_results_inside_an_input_folder_are_not_inputs(tmp_path):
    image = touch(tmp_path / 'a.jpg')
    touch(tmp_path / 'out/a_overlay.jpg')
    touch(tmp_path / 'out/a.png')
    assert list(plan_outputs([str(tmp_path)], str(tmp_path / 'out'))) == [image]


def write_results(folder, num_classes=3):
    """All kinds of images that are written, and the names of the videos."""
    image = np.zeros((4, 5, 3), np.uint8)
    names = tuple(map(str, range(num_classes)))
    dtype = np.uint8 if num_classes <= 256 else np.uint16
    result = SegmentationResult(image, np.zeros((4, 5), dtype), names, [[1, 2, 3]] * num_classes,
                                np.ones((num_classes, 4, 5), np.float32))
    folder.mkdir(parents=True)
    ResultWriter(['index', 'color', 'overlay', 'prob', 'conf']).write(result, str(folder / 'a'))
    return [*folder.iterdir(), *(folder / touch(folder / f'film_{kind}.mp4') for kind in ('color', 'overlay'))]


@pytest.mark.parametrize('num_classes', [3, 300])
def test_results_of_an_earlier_run_are_left_out(tmp_path, capsys, num_classes):
    photos = tmp_path / 'photos'
    results = write_results(photos / 'results/deep', num_classes)
    kept = [touch(photos / 'a.png'), touch(photos / 'results/own.jpg')]
    Image.new('RGB', (4, 4)).save(photos / 'b.jpg', comment='a photo')
    out = str(photos / 'results2')
    for source in (photos, f'{photos}/**/*'):
        assert set(plan_outputs([str(source)], out)) == {*kept, f'{photos}/b.jpg'}
        line, = capsys.readouterr().err.splitlines()
        assert line == (f'{source}: 6 results of an earlier run are left out, such as {photos}/results/deep/a.png; to '
                        'segment them, name the files themselves')
    named = sorted(str(path) for path in results if path.suffix != '.npz')
    assert sorted(plan_outputs(named, out, endings=[''])) == named and not capsys.readouterr().err
    assert sorted(plan_outputs(['-'], out, named, endings=[''])) == named
    with pytest.raises(ValueError, match='no image or video in .*deep'):
        plan_outputs([str(photos / 'results/deep')], out)


def test_pipes_in_a_folder_are_not_opened(tmp_path):
    image = touch(tmp_path / 'in/a.jpg')
    os.mkfifo(tmp_path / 'in/pipe.jpg')
    assert list(plan_outputs([str(tmp_path / 'in')], str(tmp_path / 'out'))) == [image, f'{tmp_path}/in/pipe.jpg']
    assert list(plan_outputs([f'{tmp_path}/in/*'], str(tmp_path / 'out'))) == [image]
    with pytest.raises(ValueError, match='--out-dir .*pipe.jpg is a file; give a folder'):
        plan_outputs([image], str(tmp_path / 'in/pipe.jpg'))


@pytest.mark.parametrize('names,inputs,out,words', [
    (['x/a.jpg', 'y/a.jpg'], ['x/a.jpg', 'y/a.jpg'], 'out', 'would both be written to .*out/a.png'),
    (['x/a.jpg', 'x/a.png'], ['x'], 'out', 'would both be written to'),
    (['x/a.png'], ['x'], 'x', 'could overwrite'),  # a result over its input
    (['x/a.jpg', 'x/a.png'], ['x/a.jpg'], 'x', 'could overwrite'),  # and over the label beside it
])
def test_nothing_is_overwritten(tmp_path, names, inputs, out, words):
    for name in names:
        touch(tmp_path / name)
    with pytest.raises(ValueError, match=f'{words}.* nothing was done: choose another --out-dir'):
        plan_outputs([str(tmp_path / name) for name in inputs], str(tmp_path / out))


@pytest.mark.parametrize('source', ['', '*.jpg'])
def test_no_image_at_all_is_an_error(tmp_path, source):
    touch(tmp_path / 'notes.txt')
    with pytest.raises(ValueError, match=r'no image or video in .*\.jpg .*\.mp4'):
        plan_outputs([str(tmp_path / source)], 'out')


def test_patterns_keep_the_folders_below_their_fixed_part(tmp_path):
    deep, flat = touch(tmp_path / 'in/x/deep/a.jpg'), touch(tmp_path / 'in/x/b.png')
    touch(tmp_path / 'in/x/deep/a.txt')
    out = str(tmp_path / 'out')
    assert plan_outputs([f'{tmp_path}/in/**/*'], out) == {flat: f'{out}/x/b', deep: f'{out}/x/deep/a'}
    assert plan_outputs([f'{tmp_path}/in/x/d*/?.jpg'], out) == {deep: f'{out}/deep/a'}
    odd = touch(tmp_path / 'in/[1].jpg')  # a file of this name comes before the pattern
    assert plan_outputs([odd], out) == {odd: f'{out}/[1]'}


def test_patterns_do_not_follow_links_that_lead_round(tmp_path):
    image, deep = touch(tmp_path / 'in/a.jpg'), touch(tmp_path / 'in/x/[y]/b.jpg')
    touch(tmp_path / 'in/.hidden/c.jpg')
    for name in ('one', 'two'):
        (tmp_path / 'in' / name).symlink_to('.')
    for pattern in ('**/*.jpg', '**', '**/**/*'):
        assert sorted(plan_outputs([f'{tmp_path}/in/{pattern}'], str(tmp_path / 'out'))) == [image, deep]
    assert list(plan_outputs([f'{tmp_path}/**/x/**/b.*'], str(tmp_path / 'out'))) == [deep]


def test_patterns_without_a_folder_begin_here(tmp_path, monkeypatch):
    touch(tmp_path / 'in/a.jpg')
    monkeypatch.chdir(tmp_path)
    for pattern in ('**/*.jpg', 'in/**', '*/a.jpg', './**/a.jpg'):
        (path, target), = plan_outputs([pattern], 'out').items()
        assert (path.removeprefix('./'), target) == ('in/a.jpg', 'out/a' if pattern == 'in/**' else 'out/in/a')


def test_listed_files_keep_the_folders_below_the_one_they_share(tmp_path):
    paths = [touch(tmp_path / 'in/x/a.jpg'), touch(tmp_path / 'in/y/a.jpg')]
    out = str(tmp_path / 'out')
    planned = plan_outputs(['-'], out, [f'{path}\n' for path in paths] + ['\n'])
    assert planned == {paths[0]: f'{out}/x/a', paths[1]: f'{out}/y/a'}
    with pytest.raises(ValueError, match='standard input, which - reads, names no file'):
        plan_outputs(['-'], out, ['\n'])


def test_the_results_need_a_folder(tmp_path):
    with pytest.raises(ValueError, match='--out-dir .*a.jpg is a file; give a folder'):
        plan_outputs([touch(tmp_path / 'a.jpg')], str(tmp_path / 'a.jpg'))


def test_every_kind_of_result_is_kept_apart(tmp_path):
    paths = [touch(tmp_path / 'in/a.jpg'), touch(tmp_path / 'in/a_color.jpg')]
    assert len(plan_outputs(paths, str(tmp_path / 'out'))) == 2
    with pytest.raises(ValueError, match=r'a_color.jpg and .*a.jpg would both be written to .*a_color.png'):
        plan_outputs(paths, str(tmp_path / 'out'), endings=['.png', '_color.png'])


def test_each_source_of_images_names_some(tmp_path):
    image = touch(tmp_path / 'in/a.jpg')
    film = touch(tmp_path / 'in/film.mp4')
    assert list_images([str(tmp_path / 'in'), image]) == [image, image]
    for source in (film, f'{tmp_path}/in/*.mp4'):
        with pytest.raises(ValueError, match=r'no image, only videos; files that end in \.jpg .* are taken'):
            list_images([image, source])
