"""Weights, gradients and the optimizer's state shared out among processes, by PyTorch's FSDP."""
from typing import Optional

from mmengine._strategy import FSDPStrategy
from mmengine.device import get_device
from mmengine.dist import is_main_process
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import OptimWrapper
from mmengine.registry import STRATEGIES
from torch import contiguous_format, device, nn
from torch.distributed.fsdp import FullOptimStateDictConfig, FullyShardedDataParallel
from torch.distributed.fsdp.wrap import ModuleWrapPolicy

from .atomic import temporary_beside, write_atomically
from .errors import ConfigError
from .runner import NO_GPU, start_gloo


@STRATEGIES.register_module()
class ResumableFSDPStrategy(FSDPStrategy):
    """MMEngine's ``FSDPStrategy`` for ``FlexibleRunner``, in which training resumes and weights decay as in the recipe.

    MMEngine's own hands the optimizer's state to PyTorch 2.1 and newer in the old order of arguments, so that no run
    resumes; and it sets the optimizer up when every parameter is a flat shard already, so that ``flat_decay_mult=0.``
    ends all weight decay. Here the stages of the backbone are shards of their own, what is around them is another, and
    parameters keep their names. Checkpoints are whole and atomic, for any number of processes, and their weights load
    everywhere. On CPUs, where PyTorch 2.1 cannot do it, processes talk by gloo, and SyncBN is reverted to BatchNorm.
    Averaged weights (EMAHook) cannot be had: the hook would average shards.

    Args:
        model_wrapper: settings of ``MMFullyShardedDataParallel``, such as ``sharding_strategy``.
        **kwargs: of ``FSDPStrategy``.

    Raises:
        ConfigError: if no launcher has started processes.
    """

    def __init__(self, *, model_wrapper: Optional[dict] = None, **kwargs) -> None:
        super().__init__(model_wrapper=model_wrapper, state_dict_cfg='full', **kwargs)
        if not self.distributed:
            raise ConfigError(f'{type(self).__name__} shares a model out among processes, and there is one: start some '
                              'by tools/dist_train.sh CONFIG GPUS, or take runner_type and strategy out of the config')
        if get_device() == 'cpu':  # where PyTorch takes moving to the CPU for a copy: Adam's moments came out the same
            self.optim_state_dict_config = FullOptimStateDictConfig(rank0_only=True, offload_to_cpu=False)

    def _setup_distributed(self, launcher: str = 'pytorch', backend: str = 'nccl', **kwargs) -> None:
        if get_device() == 'cpu':
            start_gloo(kwargs.get('timeout'))
        else:
            super()._setup_distributed(launcher, backend, **kwargs)

    def _init_model_weights(self, model: nn.Module) -> nn.Module:
        """Draws them as without shards: on the device, in the memory format that the model takes there."""
        return super()._init_model_weights(model.to(get_device()))

    def _wrap_model(self, model: nn.Module) -> nn.Module:
        from mmseg_inceptionnext.models.backbones.metanext import MetaNeXtStage  # which loads through this package
        self.model_wrapper = dict(
            dict(type='MMFullyShardedDataParallel', auto_wrap_policy=ModuleWrapPolicy({MetaNeXtStage})),
            **self.model_wrapper or {})
        if get_device() == 'cpu':
            self.logger.warning(NO_GPU)
            model = revert_sync_batchnorm(model)
            self.model_wrapper['device_id'] = device('cpu')
        # PyTorch reads an optimizer's state into flat shards in the order of indices, but shares weights out in that of
        # memory: the moments of channels-last weights would be shuffled by a resuming
        return super()._wrap_model(model.to(memory_format=contiguous_format))

    def build_optim_wrapper(self, optim_wrapper: dict, model: Optional[nn.Module] = None) -> OptimWrapper:
        """Sets the optimizer up while the parameters have their own shapes."""
        with FullyShardedDataParallel.summon_full_params(model, writeback=False):
            return super().build_optim_wrapper(optim_wrapper, model)

    def save_checkpoint(self, filename: str, **kwargs) -> None:
        """Writes it whole or not at all, see :func:`write_atomically`."""
        temporary = temporary_beside(filename)  # where MMEngine, which takes no backend here, may write as it does
        super().save_checkpoint(temporary, **kwargs)
        if is_main_process():
            with open(temporary, 'rb') as file:
                write_atomically(file.read(), filename)

    def model_state_dict(self) -> dict:
        """Plain tensors: the marks that FSDP leaves on them would be saved too, as a call that safe reading refuses."""
        state = super().model_state_dict()
        for tensor in state.values():
            tensor.__dict__.clear()
        return state

    def optim_state_dict(self) -> dict:
        """The state of the whole optimizer on the main process, by the names of the parameters."""
        return FullyShardedDataParallel.optim_state_dict(self.model, self.optim_wrapper.optimizer)

    def load_optim_state_dict(self, state_dict: dict) -> None:
        """Takes what :meth:`optim_state_dict` gives, from any number of processes."""
        self.optim_wrapper.optimizer.load_state_dict(FullyShardedDataParallel.optim_state_dict_to_load(
            model=self.model, optim=self.optim_wrapper.optimizer, optim_state_dict=state_dict))
