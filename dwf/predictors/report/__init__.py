"""The report of an experiment on predictors: figures, tables, pictures, page; and transfer."""

from dwf.predictors.report.figures import draw_predictions
from dwf.predictors.report.report import Report
from dwf.predictors.report.transfer import write_transfer
from dwf.predictors.report.write import write_report

__all__ = ["Report", "draw_predictions", "write_report", "write_transfer"]
