"""Runs the commands of the README and of docs/, page by page, on a clean clone.

    python tests/scripts/readme_on_a_clean_clone.py FOLDER

Clones the last commit into FOLDER, which must not exist, and runs every bash and Python block there as a newcomer would
who copies them, the installation and the demo included: each page in one shell. `make test` is left out (--test runs
it, too). Stops at the first line that fails. Takes about fifteen minutes on two cores.
"""
import argparse
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import List, Tuple

ROOT = Path(__file__).resolve().parents[2]
# A page is served until it is stopped: here as soon as it is there.
SERVE = ("%s > page.log 2>&1 & until grep 'the page is at' page.log; do sleep 0.2; kill -0 $! || cat page.log; done; "
         'kill $!; wait $!')


def pages(root: Path) -> List[Path]:
    """The README and the pages of docs/."""
    return [root / 'README.md', *sorted((root / 'docs').glob('*.md'))]


def read_blocks(path: Path) -> List[Tuple[str, str]]:
    """The language and the text of each block of code."""
    return re.findall(r'^```(\w+)\n(.*?)^```$', path.read_text(), re.MULTILINE | re.DOTALL)


def commands(block: str) -> List[str]:
    """Each command of a block for a shell, continued lines joined."""
    return [line for line in block.replace('\\\n', ' ').splitlines() if line.strip()]


def as_script(blocks: List[Tuple[str, str]], leave_out: str = '') -> str:
    """A shell script of the bash and Python blocks, without the commands that begin with ``leave_out``.

    Python blocks whose first line names a file are parts of a project: ``tests/test_docs.py`` runs those of extend.md.
    """
    lines = []
    for language, block in blocks:
        if language == 'bash':
            lines += [line for line in commands(block) if not leave_out or not line.startswith(leave_out)]
        elif language == 'python' and not re.match(r'# \S+/\S+\.py\n', block):
            lines.append(f'python -c {shlex.quote(block)}')
    script = ['set -e -o pipefail']
    for line in lines:
        script += [f'echo {shlex.quote("$ " + line)}',
                   SERVE % line.partition('#')[0] if 'tools/app.py' in line else line]
    return '\n'.join(script)


def parse_args():
    parser = argparse.ArgumentParser(description='Run the commands of the README and of docs/ on a clean clone')
    parser.add_argument('folder', help='where to clone to')
    parser.add_argument('--test', action='store_true', help='run make test, too')
    return parser.parse_args()


def main():
    args = parse_args()
    subprocess.run(['git', 'clone', '--quiet', ROOT, args.folder], check=True)
    for page in pages(Path(args.folder)):
        script = as_script(read_blocks(page), '' if args.test else 'make test')
        result = subprocess.run(['bash', '-c', script], cwd=args.folder)
        if result.returncode:
            sys.exit(f'{page}: exit code {result.returncode}')


if __name__ == '__main__':
    main()
