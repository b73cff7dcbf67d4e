"""python no_rename.py PROGRAM...: runs a Python program for which the kernel refuses to rename files."""
import ctypes
import errno
import platform
import runpy
import struct
import sys

CALLS = dict(x86_64=(82, 264, 316), aarch64=(38, 276))[platform.machine()]  # rename, renameat, renameat2
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06  # of the kernel's packet filters
ALLOW, FAIL = 0x7fff0000, 0x00050000 | errno.EPERM


def refuse_to_rename() -> None:
    """From here on, in this process and those that it starts."""
    steps = [(LOAD, 0, 0, 0)]  # the number of the system call
    steps += [(JUMP_IF_EQUAL, len(CALLS) - i, 0, call) for i, call in enumerate(CALLS)]
    steps += [(RETURN, 0, 0, ALLOW), (RETURN, 0, 0, FAIL)]
    code = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *step) for step in steps))
    program = ctypes.create_string_buffer(struct.pack('HxxxxxxP', len(steps), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    for call in ((PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0)):
        if libc.prctl(*call):
            raise OSError(ctypes.get_errno(), 'prctl')


if __name__ == '__main__':
    refuse_to_rename()
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name='__main__')
