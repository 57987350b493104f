"""The report: tables, marks, headline, figures and page of what was measured."""

from dwf.evaluation.report.analysed import Analysed
from dwf.evaluation.report.asked import asked_against_drawn
from dwf.evaluation.report.columns import (
    COLUMNS,
    PROFILE_COLUMNS,
    Column,
    accuracy_cell,
    cells,
    headings,
    hints,
    number_cell,
    share_cell,
    shown,
)
from dwf.evaluation.report.drawing import (
    INK,
    STYLE,
    Draw,
    Width,
    files_of,
    legend_below,
    legend_beside,
    name_rows,
    panels,
    per_line,
    save_figures,
)
from dwf.evaluation.report.figures import (
    HELD_OUT_COLOUR,
    LINE_COLOURS,
    ORIGINAL_COLOUR,
    SAMPLE_COLOURS,
    SAMPLE_MARKERS,
    draw_figures,
    look_of,
    scatter_networks,
)
from dwf.evaluation.report.fits import read_fit
from dwf.evaluation.report.headline import ONE_NETWORK, STEPS, headline
from dwf.evaluation.report.html import (
    beginning,
    bullets,
    details,
    figure,
    legend,
    paragraphs,
    table,
    whole_page,
)
from dwf.evaluation.report.index import INDEX, renew_index, write_index
from dwf.evaluation.report.intervals import share_interval, share_with_interval
from dwf.evaluation.report.marks import MARKS, accuracy_error, mark, marked, percent
from dwf.evaluation.report.page import write_page
from dwf.evaluation.report.reconstructed import ReconstructedSet, reconstructed_set
from dwf.evaluation.report.reconstruction import (
    Reconstruction,
    print_reconstruction,
    write_reconstruction,
)
from dwf.evaluation.report.record import Record, save_timing
from dwf.evaluation.report.report import Report, markdown_table
from dwf.evaluation.report.schema import Schema, validate_report
from dwf.evaluation.report.seeds import SeedGroup, seed_groups
from dwf.evaluation.report.sets import NetworkSet, network_set, plain, row_kinds, statistics
from dwf.evaluation.report.words import LEGEND, PROFILE_TEXT

__all__ = [
    "COLUMNS",
    "HELD_OUT_COLOUR",
    "INDEX",
    "INK",
    "LEGEND",
    "LINE_COLOURS",
    "MARKS",
    "ONE_NETWORK",
    "ORIGINAL_COLOUR",
    "PROFILE_COLUMNS",
    "PROFILE_TEXT",
    "SAMPLE_COLOURS",
    "SAMPLE_MARKERS",
    "STEPS",
    "STYLE",
    "Analysed",
    "Column",
    "Draw",
    "NetworkSet",
    "ReconstructedSet",
    "Reconstruction",
    "Record",
    "Report",
    "Schema",
    "SeedGroup",
    "Width",
    "accuracy_cell",
    "accuracy_error",
    "asked_against_drawn",
    "beginning",
    "bullets",
    "cells",
    "details",
    "draw_figures",
    "figure",
    "files_of",
    "headings",
    "headline",
    "hints",
    "legend",
    "legend_below",
    "legend_beside",
    "look_of",
    "mark",
    "markdown_table",
    "marked",
    "name_rows",
    "network_set",
    "number_cell",
    "panels",
    "paragraphs",
    "per_line",
    "percent",
    "plain",
    "print_reconstruction",
    "read_fit",
    "reconstructed_set",
    "renew_index",
    "row_kinds",
    "save_figures",
    "save_timing",
    "scatter_networks",
    "seed_groups",
    "share_cell",
    "share_interval",
    "share_with_interval",
    "shown",
    "statistics",
    "table",
    "validate_report",
    "whole_page",
    "write_index",
    "write_page",
    "write_reconstruction",
]
