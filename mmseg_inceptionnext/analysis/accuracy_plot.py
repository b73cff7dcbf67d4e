"""The paper's figure 1: accuracy against throughput."""
from typing import Dict, Sequence, Tuple


def draw_accuracy(families: Dict[str, Sequence[Tuple[str, float, float]]], mode: str, measure: str, title: str,
                  path: str) -> None:
    """Draws one line for each family of models, from its lowest accuracy to its highest.

    Args:
        families: by name, the models of each: size (a label), measured images a second, the paper's accuracy.
        mode: what was timed, ``infer`` or ``train``.
        measure: what the accuracy is, with its unit.
        title: what the throughput was measured on.
        path: the picture to write; its suffix says which kind.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter
    figure = Figure(figsize=(7, 5), layout='constrained')
    axes = figure.add_subplot()
    for family, models in families.items():
        sizes, speeds, accuracies = zip(*sorted(models, key=lambda model: model[2]))
        axes.plot(speeds, accuracies, 'o-', label=family)
        for size, *place in zip(sizes, speeds, accuracies):
            axes.annotate(size, place, (5, 5), textcoords='offset points')
    axes.set(xlabel=f'images / s, {mode}, measured', ylabel=f"{measure}, the paper's", xscale='log')
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter('{x:g}')
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_title(title, fontsize='small')
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)
