"""``python -m mmseg_inceptionnext``: versions, devices and whether they fit; exit code 1 if not."""
import sys

from mmseg_inceptionnext.stack import report


def main() -> int:
    text, fits = report()
    print(text)
    return 0 if fits else 1


if __name__ == '__main__':
    sys.exit(main())
