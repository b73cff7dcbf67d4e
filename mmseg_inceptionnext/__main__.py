"""``python -m mmseg_inceptionnext``: versions and devices; exit code 1 where a version was not tested."""
import platform
import sys

import torch

from mmseg_inceptionnext.stack import fix_command, inspect_stack


def main() -> int:
    findings = inspect_stack()
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    print(f'python      {platform.python_version()} ({platform.system()} {platform.machine()})')
    print(*findings, sep='\n')
    print('devices    ', ', '.join([f'cpu ({torch.get_num_threads()} threads)', *gpus]))
    if any(finding.problem for finding in findings):
        print('verdict     does not fit. This installs what it was tested with:\n ', fix_command(findings))
        return 1
    print('verdict     fits')
    return 0


if __name__ == '__main__':
    sys.exit(main())
