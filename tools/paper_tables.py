"""Rebuilds the paper's tables with counts made now: python tools/paper_tables.py [--table 6]"""
import argparse
import os.path as osp
import sys

from prettytable import PrettyTable
from tqdm import tqdm

from mmseg_inceptionnext.analysis import paper_tables as paper
from mmseg_inceptionnext.cli import run_tool

CONFIGS = osp.join(osp.dirname(osp.dirname(osp.abspath(__file__))), 'configs')


def parse_args():
    parser = argparse.ArgumentParser(
        description="Print the paper's tables: params and MACs counted now beside the paper's; columns that need "
        'training or its machines are the paper\'s. Exit code 1 if a count differs without a known reason')
    parser.add_argument('--table', type=int, nargs='+', choices=paper.NUMBERS, default=paper.NUMBERS,
                        help='which (default: all)')
    return parser.parse_args()


def main():
    args = parse_args()
    tables = [paper.paper_table(number, CONFIGS) for number in tqdm(args.table, desc='counting', leave=False)]
    for table in tables:
        text = PrettyTable(align='r')
        text.field_names = [f'{name}{" " * i}' for i, name in enumerate([*table.columns, ''])]  # they must differ
        text.align[text.field_names[0]] = 'l'
        text.add_rows([[*row.cells, '*' * bool(row.difference)] for row in table.rows])
        print(table.title, text, sep='\n')
        for row in table.rows:
            if row.difference:
                print(f'* {row.cells[0]}: {row.difference}. {row.reason or "NO REASON KNOWN"}')
            elif row.reason:
                print(f'  {row.cells[0]}: {row.reason}')
    wrong = paper.unexplained(tables)
    print(f'{sum(len(table.rows) for table in tables)} rows, {len(wrong)} that differ without a known reason')
    sys.exit(bool(wrong))


if __name__ == '__main__':
    run_tool(main)
