"""Results as one HTML page that needs nothing beside it, and tables for a paper.

A report is a list of sections; each is made from what there is, and says what is not there. Names
come from stores and results of other labs: everything but the words of this package is escaped.
"""

from probes.report.files import write_paper
from probes.report.folder import ResultFolder
from probes.report.page import Code, Figure, Note, Report, Section, Table, Text
from probes.report.paper import reproduce
from probes.report.sections import (
    audit_section,
    comparison_section,
    domain_probe_section,
    domains_section,
    leakage_section,
    sizes_section,
    warnings_section,
)
from probes.report.tables import domain_table, latex_table, markdown_table

__all__ = [
    "Code",
    "Figure",
    "Note",
    "Report",
    "ResultFolder",
    "Section",
    "Table",
    "Text",
    "audit_section",
    "comparison_section",
    "domain_probe_section",
    "domain_table",
    "domains_section",
    "latex_table",
    "leakage_section",
    "markdown_table",
    "reproduce",
    "sizes_section",
    "warnings_section",
    "write_paper",
]
