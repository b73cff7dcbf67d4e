"""How the programs in ``tools/`` end."""
import sys
from typing import Callable

from .errors import UserError


def run_tool(main: Callable[[], None]) -> None:
    """Runs a tool.

    An error that the user can do something about becomes its message and exit code 1, Ctrl-C exit code 130. Everything
    else is a fault of ours, and keeps its traceback.
    """
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
    except OSError as error:
        if error.filename is None:
            raise
        sys.exit(f'{error.filename}: {error.strerror}')  # a file or folder that the user named
    except KeyboardInterrupt:
        sys.exit(130)
