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

ROOT = Path(__file__).resolve().parents[2]


def parse_args():
    parser = argparse.ArgumentParser(description="Run the README's commands on a clean clone")
    parser.add_argument('folder', help='where to clone to')
    parser.add_argument('--test', action='store_true', help='run make test, too')
    return parser.parse_args()


def main():
    args = parse_args()
    subprocess.run(['git', 'clone', '--quiet', ROOT, args.folder], check=True)
    readme = (Path(args.folder) / 'README.md').read_text()
    blocks = re.findall(r'^```(\w+)\n(.*?)^```$', readme, re.MULTILINE | re.DOTALL)
    lines = ''.join(block for name, block in blocks if name == 'bash').replace('\\\n', ' ').splitlines()
    if not args.test:
        lines = [line for line in lines if not line.startswith('make test')]
    script = ['set -e -o pipefail']
    for line in lines:
        served = 'tools/app.py' in line  # a page runs until it is stopped
        script += [f'echo {shlex.quote("$ " + line)}',
                   f'timeout --signal=INT 30 {line} || [ $? = 124 ]' if served else line]
    for block in (block for name, block in blocks if name == 'python'):
        script += [f'echo; python -c {shlex.quote(block)}']
    sys.exit(subprocess.run(['bash', '-c', '\n'.join(script)], cwd=args.folder).returncode)


if __name__ == '__main__':
    main()
