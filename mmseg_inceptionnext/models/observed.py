"""Which modules hand their results to each other, and to nothing else: seen in a forward pass, not told by names."""
from collections import Counter, defaultdict
from typing import Any, Callable, Iterable, Iterator, Optional, Tuple

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten


class Observed(TorchDispatchMode):
    """Runs a function once and watches modules in it.

    The order in which modules are registered says nothing about the order in which they run, how often, and what else
    takes their results. So every operation is looked at: which of the results and of the parameters it takes, and
    within which of the modules.

    Args:
        modules: to watch, without modules in them. Those that are hooked are left out, see :func:`is_hooked`.
        model: all that runs; what hooks of its modules see counts as taken.
        run: the function.
    """

    def __init__(self, modules: Iterable[nn.Module], model: nn.Module, run: Callable[[], Any]) -> None:
        super().__init__()
        modules = [module for module in modules if not is_hooked(module)]
        hooked = [module for module in model.modules() if is_hooked(module)]
        self._calls = Counter()
        self._spoiled = set()  # modules whose parameters or buffers something else takes
        self._inputs, self._takers = defaultdict(set), defaultdict(set)  # None stands for anything else
        self._makers, self._results = {}, []  # results are kept: another tensor would get the id of one that is freed
        self._owners = {id(x): module for module in modules for x in (*module.parameters(), *module.buffers())}
        self._running: Optional[nn.Module] = None
        handles = [hook for module in modules for hook in (
            module.register_forward_pre_hook(self._before), module.register_forward_hook(self._after))]
        handles += [module.register_forward_hook(lambda _, *values: self._take(values)) for module in hooked]
        try:
            with self:
                returned = run()
            self._take(returned)
        finally:
            for handle in handles:
                handle.remove()
            self._makers, self._results = {}, []

    def pairs(self) -> Iterator[Tuple[nn.Module, nn.Module]]:
        """Modules of which the first gave its results to the second alone, which took nothing else."""
        for second, makers in self._inputs.items():
            first, = makers if len(makers) == 1 else (None, )
            if (first is not None and self._takers[first] == {second} and self._calls[first] == self._calls[second]
                    and not self._spoiled & {first, second}):
                yield first, second

    def ran_once(self, module: nn.Module) -> bool:
        """Whether a module ran once, and nothing else took its parameters."""
        return self._calls[module] == 1 and module not in self._spoiled

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self._take((args, kwargs))
        return function(*args, **(kwargs or {}))

    def _take(self, values: Any) -> None:
        for x in tree_flatten(values)[0]:
            if id(x) in self._makers:
                self._takers[self._makers[id(x)]].add(self._running)
            if self._owners.get(id(x), self._running) is not self._running:
                self._spoiled.add(self._owners[id(x)])

    def _before(self, module: nn.Module, args: tuple) -> None:
        self._calls[module] += 1
        self._inputs[module].add(self._makers.get(id(args[0])) if args else None)
        self._running = module

    def _after(self, module: nn.Module, args: tuple, result: Tensor) -> None:
        self._running = None
        self._makers[id(result)] = module
        self._results.append(result)


def is_hooked(module: nn.Module) -> bool:
    """Whether something looks at what a module takes or gives, or changes it, as weight normalisation does."""
    return bool(module._forward_hooks or module._forward_pre_hooks or 'forward' in vars(module))
