"""The report: tables, marks, headline, figures and page of what was measured."""

from dwf.evaluation.report.analysed import Analysed
from dwf.evaluation.report.asked import asked_against_drawn
from dwf.evaluation.report.columns import accuracy_cell, number_cell, share_cell
from dwf.evaluation.report.figures import (
    HELD_OUT_COLOUR,
    SAMPLE_COLOURS,
    SAMPLE_MARKERS,
    STYLE,
    draw_figures,
    look_of,
    save_figures,
    scatter_networks,
)
from dwf.evaluation.report.fits import read_fit
from dwf.evaluation.report.headline import ONE_NETWORK, STEPS, headline
from dwf.evaluation.report.marks import marked
from dwf.evaluation.report.page import (
    beginning,
    bullets,
    details,
    figure,
    hardware,
    paragraphs,
    table,
    whole_page,
    write_page,
)
from dwf.evaluation.report.reconstructed import ReconstructedSet, reconstructed_set
from dwf.evaluation.report.reconstruction import (
    Reconstruction,
    print_reconstruction,
    write_reconstruction,
)
from dwf.evaluation.report.report import Report, markdown_table
from dwf.evaluation.report.seeds import SeedGroup, seed_groups
from dwf.evaluation.report.sets import NetworkSet, network_set, plain, statistics

__all__ = [
    "HELD_OUT_COLOUR",
    "ONE_NETWORK",
    "SAMPLE_COLOURS",
    "SAMPLE_MARKERS",
    "STEPS",
    "STYLE",
    "Analysed",
    "NetworkSet",
    "ReconstructedSet",
    "Reconstruction",
    "Report",
    "SeedGroup",
    "accuracy_cell",
    "asked_against_drawn",
    "beginning",
    "bullets",
    "details",
    "draw_figures",
    "figure",
    "hardware",
    "headline",
    "look_of",
    "markdown_table",
    "marked",
    "network_set",
    "number_cell",
    "paragraphs",
    "plain",
    "print_reconstruction",
    "read_fit",
    "reconstructed_set",
    "save_figures",
    "scatter_networks",
    "seed_groups",
    "share_cell",
    "statistics",
    "table",
    "whole_page",
    "write_page",
    "write_reconstruction",
]
