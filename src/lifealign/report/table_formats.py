"""A comparison for the terminal, in Markdown, in LaTeX and as CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.cells import cell_len
from rich.console import RenderableType
from rich.table import Table

from lifealign.experiments.bootstrap import STATISTICS
from lifealign.experiments.comparison import Comparison
from lifealign.report.printing import plain, printable
from lifealign.report.tables import captions, tables
from lifealign.storage.files import write_text

CSV_COLUMNS = ("order", "metric", "label", "statistic", "mean", "sd", "seeds", "difference", "low", "high")

LATEX = str.maketrans(
    {
        **{character: f"\\{character}" for character in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "|": r"\textbar{}",
        "<": "$<$",
        ">": "$>$",
        "±": r"$\pm$",
        "[": "{[}",  # at the start of a row, the \\ before it would read it as an option
    }
)


def terminal(comparison: Comparison) -> list[RenderableType]:
    """Tables for rich; the meaning of the columns is explained once, at the end."""
    shown: list[RenderableType] = []
    for table in tables(comparison):
        grid = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        longest = max(cell_len(printable(row[0])) for row in table.rows)
        grid.add_column(plain(table.header[0]), no_wrap=True, min_width=longest)
        for name in table.header[1:]:
            grid.add_column(plain(name), justify="right")
        for row in table.rows:
            label, *numbers = row
            grid.add_row(plain(label), *(plain(number.replace(" ± ", "±")) for number in numbers))  # 80 columns are few
        shown += [plain(table.title, "bold"), grid, *(plain(f"{note}\n", "yellow") for note in table.notes)]
    return [*shown, *(plain(line, "dim") for line in captions(comparison))]


def markdown(comparison: Comparison) -> str:
    """Tables in GitHub's Markdown; the meaning of the columns is explained once, at the end."""
    blocks = []
    for table in tables(comparison):
        rule = ["---", *["---:"] * (len(table.header) - 1)]
        lines = [[_markdown(cell) for cell in row] for row in (table.header, *table.rows)]
        grid = [f"| {' | '.join(line)} |" for line in (lines[0], rule, *lines[1:])]
        blocks += [f"**{_markdown(table.title)}**", "\n".join(grid), *(_markdown(note) for note in table.notes)]
    return "\n\n".join([*blocks, *(_markdown(line) for line in captions(comparison))]) + "\n"


def latex(comparison: Comparison) -> str:
    r"""Tables for LaTeX with ``\usepackage{booktabs}``; each caption explains its columns."""
    floats = [r"% needs \usepackage{booktabs}"]
    for table in tables(comparison):
        header, *rows = (f"{' & '.join(_latex_row(row))} \\\\" for row in (table.header, *table.rows))
        lines = [
            r"\begin{table}",
            r"\centering",
            f"\\caption{{{' '.join([f'{table.title}.', *table.caption, *table.notes]).translate(LATEX)}}}",
            f"\\begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}",
            *[r"\toprule", header, r"\midrule", *rows, r"\bottomrule"],
            r"\end{tabular}",
            r"\end{table}",
        ]
        floats.append("\n".join(lines))
    return "\n\n".join(floats) + "\n"


def csv_text(comparison: Comparison) -> str:
    """Every number, unrounded, one row per order, metric, label and statistic.

    Shares are fractions (0.5, not 50 per cent), margins are in nats. For general text the metric is ``general_text``,
    and the change is relative to the base model's perplexity. For ``retention`` they are shares. For costs the metric
    is ``cost``, in the units of the table, which are in the names of the statistics. A number that does not exist is
    an empty field. With several orders, those over all of them have the order ``all``, and the number of blocks in
    place of seeds.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for order in comparison.orders:
        for table in order.metrics:
            for row in table.rows:
                for name in STATISTICS:
                    difference = row.differences.get(name)
                    interval = (difference.difference, difference.low, difference.high) if difference else ("", "", "")
                    mean, sd = row.statistics[name] or ("", "")
                    place = (order.order, table.metric, row.label, name)
                    writer.writerow((*place, mean, sd, "" if row.seeds is None else len(row.seeds), *interval))
        for general in order.general:
            seeds = "" if general.seeds is None else len(general.seeds)
            for name, estimate in (("perplexity", general.perplexity), ("change", general.change)):
                mean, sd = estimate or ("", "")
                writer.writerow((order.order, "general_text", general.label, name, mean, sd, seeds, "", "", ""))
        for kept in order.retention:
            figures = {"refused": kept.refused, "worst_loss": kept.worst, "worst_accepted_loss": kept.worst_kept}
            for figure, value in figures.items():
                writer.writerow((order.order, "retention", kept.label, figure, value, "", len(kept.seeds), "", "", ""))
        for cost in order.costs:
            for figure, value in cost.figures.items():
                writer.writerow((order.order, "cost", cost.label, figure, value, "", len(cost.seeds), "", "", ""))
    for blocks in comparison.blocks:
        for label, test in blocks.tests.items():
            ends = ("" if end is None else end for end in (test.low, test.high))
            where = ("all", blocks.metric, label)
            writer.writerow((*where, "last", "", "", test.blocks, test.difference, *ends))
            for name, value in (("last_p", test.p), ("last_p_holm", test.adjusted)):
                writer.writerow((*where, name, value, "", test.blocks, "", "", ""))
    return text.getvalue()


def _markdown(text: str) -> str:
    return re.sub(r"([\\`*_~$|<>])", r"\\\1", text.rstrip())


def _latex_row(cells: Sequence[str]) -> list[str]:
    label, *numbers = (cell.rstrip().translate(LATEX) for cell in cells)
    return [label, *(re.sub(r"(?<!\w)-(?=\d)", "$-$", number) for number in numbers)]


def write_tables(comparison: Comparison, folder: Path) -> list[Path]:
    """Writes a comparison's tables as CSV, Markdown and LaTeX; returns the files."""
    texts = {"csv": csv_text(comparison), "md": markdown(comparison), "tex": latex(comparison)}
    paths = [folder / f"comparison.{ending}" for ending in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        write_text(path, text)
    return paths
