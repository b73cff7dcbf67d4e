"""Runs the README's commands, line by line, on a clean clone.

    python tests/scripts/readme_on_a_clean_clone.py FOLDER

Clones the last commit into FOLDER, which must not exist, and runs every line of the README's bash blocks there in one
shell, the installation and the demo included, as a newcomer would who copies them; then its Python blocks. `make test`
is left out (--test runs it, too). Stops at the first line that fails. Takes about ten minutes on two cores.
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


def read_blocks(path: Path) -> List[Tuple[str, str]]:
    """The language and the text of each block of code."""
    return re.findall(r'^```(\w+)\n(.*?)^```$', path.read_text(), re.MULTILINE | re.DOTALL)


def commands(blocks: List[Tuple[str, str]], language: str) -> List[str]:
    """Each command of the blocks of a language, continued lines joined."""
    text = ''.join(block for name, block in blocks if name == language).replace('\\\n', ' ')
    return [line for line in text.splitlines() if line.strip()]


def as_script(blocks: List[Tuple[str, str]], leave_out: str = '') -> str:
    """A shell script of the bash blocks, then the Python blocks, without the commands that begin with ``leave_out``."""
    script = ['set -e -o pipefail']
    for line in commands(blocks, 'bash'):
        if not leave_out or not line.startswith(leave_out):
            script += [f'echo {shlex.quote("$ " + line)}',
                       SERVE % line.partition('#')[0] if 'tools/app.py' in line else line]
    for name, block in blocks:
        if name == 'python':
            script += [f'echo {shlex.quote(block)}', f'python -c {shlex.quote(block)}']
    return '\n'.join(script)


def parse_args():
    parser = argparse.ArgumentParser(description="Run the README's commands on a clean clone")
    parser.add_argument('folder', help='where to clone to')
    parser.add_argument('--test', action='store_true', help='run make test, too')
    return parser.parse_args()


def main():
    args = parse_args()
    subprocess.run(['git', 'clone', '--quiet', ROOT, args.folder], check=True)
    blocks = read_blocks(Path(args.folder) / 'README.md')
    script = as_script(blocks, '' if args.test else 'make test')
    sys.exit(subprocess.run(['bash', '-c', script], cwd=args.folder).returncode)


if __name__ == '__main__':
    main()
