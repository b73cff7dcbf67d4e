"""What the tables say of what was measured."""
import json

from mmseg_inceptionnext.analysis.benchmark import Row
from mmseg_inceptionnext.analysis.benchmark_tables import comparison_table, to_json
from mmseg_inceptionnext.analysis.measure import Kernels
from mmseg_inceptionnext.analysis.variants import STOCK_SETTINGS, Settings, Variant, classifier_variants

MIB = 2**20


def cells(text):
    columns, rule, *rows = ([cell.strip() for cell in line.split('|')[1:-1]] for line in text.strip().splitlines())
    assert set(''.join(rule)) <= set(':-')
    return [dict(zip(columns, row)) for row in rows]


def test_ratios_are_to_the_first_of_each_part(tmp_path):
    rows = []
    for amp, factor in (('fp32', 1), ('bf16', 0.5)):
        settings = STOCK_SETTINGS['predict']._replace(amp=amp, batch_size=4)
        for name, times, memory in (('stock', [.2, .1, .6], 8), ('ours', [.05, .1, .01], 2)):
            rows.append(Row(Variant(name, name, 'a.py'), settings, [factor * each for each in times], int(3e9),
                            Kernels(7, .004), memory * MIB))
    first, second, third, fourth = cells(comparison_table(rows, markdown=True))
    assert first == {
        '': 'predict, 512 x 512 in, 512 x 683 out, batch 4, fp32', 'model': 'stock', 'median ms': '200.00',
        'min-max ms': '100.00-600.00', 'img/s': '20.00', 'speed': '1.00x', 'GMACs': '3.0', 'GMAC/s': '15',
        'kernels': '7', 'busy ms': '4.00', 'peak MiB': '8', 'memory': '1.00x'}
    assert (second[''], second['speed'], second['memory'], second['img/s']) == ('', '4.00x', '0.25x', '80.00')
    assert (third['speed'], third['median ms'], fourth['speed']) == ('1.00x', '100.00', '4.00x')
    assert third[''].endswith('bf16')
    to_json(rows, tmp_path / 'rows.json')
    found = json.loads((tmp_path / 'rows.json').read_text())
    assert 'float32 and bfloat16' in found['machine'] and len(found['rows']) == 4
    assert found['rows'][3]['settings']['amp'] == 'bf16' and found['rows'][3]['times'] == [.025, .05, .005]
    assert found['rows'][3]['kernels'] == dict(count=7, seconds=.004)


def test_classifiers_beside_the_paper():
    """Formats are compared with the same format; without memory there is no column of it, and slow ones are in s."""
    variants = classifier_variants(['inception_next_tiny', 'convnext_tiny', 'resnet18'], 'both')
    times = dict(nchw=[4., 8., 2.], nhwc=[2., 5., 1.])
    rows = [Row(variant, Settings('train', 128, (224, 224)), [times[variant.memory_format][i // 2]])
            for i, variant in enumerate(variants)]
    found = cells(comparison_table(rows, markdown=True))
    assert [(row['format'], row['speed'], row['A100 img/s'], row['A100 speed'], row['top-1']) for row in found] == [
        ('nchw', '1.00x', '901', '1.00x', '82.3'), ('nhwc', '1.00x', '901', '1.00x', '82.3'),
        ('nchw', '0.50x', '575', '0.64x', '82.1'), ('nhwc', '0.40x', '575', '0.64x', '82.1'),
        ('nchw', '2.00x', '', '', ''), ('nhwc', '2.00x', '', '', '')]
    assert found[0]['median s'] == '4.000' and 'memory' not in found[0] and 'GMACs' not in found[0]
