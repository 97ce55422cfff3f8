"""Ask DuckDB for the plan of a query: the conditions on each scan of each table.

The plan is made over empty tables with the columns of the views, so that no file is opened.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from lake.model.dataset import Dataset
from lake.query.connection import connect_for_plans
from lake.query.sql_columns import render_view_types
from lake.query.sql_text import ABOUT_TABLES

if TYPE_CHECKING:
    import duckdb

Scans = dict[str, list[list[Mapping[str, Any]]]]

_HAS_CONDITIONS = re.compile(r"\b(where|having|qualify|on)\b", re.IGNORECASE)
# What they give may differ between the plan and the query, and the plan shows their value alone.
_UNSTABLE = re.compile(
    r"\b(age|current_\w*(database|schemas?|setting|catalog|query)|getvariable|in_search_path"
    r"|nextval|pg_catalog|system|txid_current)\b",
    re.IGNORECASE,
)
_ADVICE_ONLY = "optional: "


def find_scans(
    sql: str,
    parameters: Sequence[Any] | None,
    datasets: Mapping[str, Dataset],
    folders: Sequence[str],
    macros: Sequence[str],
) -> Scans:
    """Find the conditions on the scans of a query, by table; no entry: any row may be needed.

    Parameters
    ----------
    datasets
        The tables that the query names.
    folders, macros
        What the query may read, and statements that create macros, as in the connection that runs
        it.

    Returns
    -------
    dict
        For each scan of a table, the conditions on its columns as DuckDB serializes expressions.
        All of them must be met; those that DuckDB cannot show are left out.
    """
    import duckdb

    is_worth_it = _HAS_CONDITIONS.search(sql) and not _UNSTABLE.search(sql)
    if not datasets or not is_worth_it or ABOUT_TABLES.search(sql):
        return {}
    scans: Scans = {}
    with connect_for_plans(folders) as connection, suppress(duckdb.Error):  # the query will say why
        for statement in (*map(_create_table, datasets.values()), *macros):
            connection.execute(statement)
        plan = connection.execute(f"EXPLAIN (FORMAT JSON) {sql}", list(parameters or ()))
        (row,) = plan.fetchall()
        scans = _read_plan(connection, row[1])
    return {table: conditions for table, conditions in scans.items() if any(conditions)}


def _read_plan(connection: duckdb.DuckDBPyConnection, plan: str) -> Scans:
    scans: Scans = {}
    for table, nodes in _walk(json.loads(plan), []):
        read = [condition for texts in nodes for condition in _parse(connection, texts)]
        scans.setdefault(table, []).append(read)
    return scans


def _create_table(dataset: Dataset) -> str:
    # Names come from dataset files, which allow only [a-z0-9_].
    columns = render_view_types(dataset)
    return f'CREATE TEMP TABLE "{dataset.name}" AS SELECT {columns} WHERE false'


def _walk(
    nodes: Sequence[Mapping[str, Any]], above: list[list[str]]
) -> Iterator[tuple[str, list[list[str]]]]:
    """Yield the table of each scan, with the conditions of the scan and of the filters on it.

    A filter on anything else does not count: its columns may have other meanings.
    """
    for node in nodes:
        name, facts = node["name"].strip(), node["extra_info"]
        if name == "SEQ_SCAN":
            table = facts["Table"].rpartition(".")[2].strip('"')
            yield table, [*above, _list_texts(facts.get("Filters"))]
        elif name == "FILTER":
            yield from _walk(node["children"], [*above, _list_texts(facts.get("Expression"))])
        else:
            yield from _walk(node["children"], [])


def _list_texts(texts: str | Sequence[str] | None) -> list[str]:
    listed = [texts] if isinstance(texts, str) else list(texts or ())
    return [text for text in listed if text and not text.startswith(_ADVICE_ONLY)]


def _parse(connection: duckdb.DuckDBPyConnection, texts: Sequence[str]) -> list[Mapping[str, Any]]:
    """Parse the conditions of a node; none if one of them cannot be parsed.

    DuckDB joins them by line breaks, which a string in one of them may have too.
    """
    if not texts:
        return []
    query = f"SELECT {', '.join(texts)}"
    (answer,) = connection.execute("SELECT json_serialize_sql(?)", [query]).fetchone() or ("{}",)
    serialized = json.loads(answer)
    if serialized.get("error", True):
        return []
    expressions: list[Mapping[str, Any]] = serialized["statements"][0]["node"]["select_list"]
    return expressions if len(expressions) == len(texts) else []
