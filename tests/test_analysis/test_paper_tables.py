"""The paper's tables agree with what is counted, and a difference does not pass in silence."""
import pytest

from mmseg_inceptionnext.analysis import paper, paper_tables

from utils import ROOT, run_tool

CONFIGS = str(ROOT / 'configs')


@pytest.mark.parametrize('number', [
    pytest.param(number, marks=[pytest.mark.slow] * (number in (4, 6, 7, 8))) for number in paper_tables.NUMBERS])
def test_counts_are_the_papers(number):
    table = paper_tables.paper_table(number, CONFIGS)
    assert len(table.rows) == {1: 8, 2: 3, 3: 5, 4: 12, 5: 3, 6: 9, 7: 14, 8: 11, 9: 13}[number]
    assert not paper_tables.unexplained([table])
    assert all(len(row.cells) == len(table.columns) for row in table.rows)
    differing = {row.cells[0] for row in table.rows if row.difference}
    known = {4: {'Swin-T'}, 7: {'PVT-Small', 'PVT-Medium', 'PVT-Large', 'PoolFormer-S24', 'PoolFormer-S36'}}
    assert differing == known.get(number, set())


@pytest.mark.parametrize('change,words', [
    (dict(params='28.2'), '28.06 M parameters, the paper has 28.2'),
    (dict(macs='4.3'), '4.19 G MACs, the paper has 4.3')])
def test_a_difference_is_flagged(monkeypatch, change, words):
    table = paper.TABLES[3]
    entries = [table.entries[0], table.entries[1]._replace(**change)]
    monkeypatch.setitem(paper.TABLES, 3, table._replace(entries=entries))
    found = paper_tables.unexplained([paper_tables.paper_table(3, CONFIGS)])
    assert [(row.cells[0], row.difference) for row in found] == [('InceptionNeXt-T', words)]




def test_from_the_command_line():
    text = run_tool('tools/paper_tables.py', '--table', 2, 5).stdout
    assert 'Table 2' in text and 'MetaNeXt-Attn' in text and '6 rows, 0 that differ without a known reason' in text
