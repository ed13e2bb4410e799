"""Selections and derived columns by expression, such as "jet_pt > 500 & abs(jet_eta) < 2", evaluated by DuckDB.

An expression may come with a stranger's run, so it is read by DuckDB's parser, and its tree may hold columns, numbers,
comparisons, logic, arithmetic and functions of numbers, and nothing else: no files, no queries, no state. What it gives
for a jet depends on this jet alone: aggregates and random numbers are refused.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from jaxtyping import Shaped

from jetclr.errors import UserError

OPERATORS = ("+", "-", "*", "/", "//", "%", "^", "**", "not", "and", "or")
FUNCTIONS = (
    *("abs", "sqrt", "cbrt", "exp", "ln", "log10", "log2", "pow", "power", "sin", "cos", "tan", "asin", "acos"),
    *(
        "atan",
        "atan2",
        "sinh",
        "cosh",
        "tanh",
        "asinh",
        "acosh",
        "atanh",
        "hypot",
        "radians",
        "degrees",
        "floor",
        "ceil",
    ),
    *("round", "trunc", "sign", "greatest", "least", "pi", "isnan", "isfinite", "isinf", "mod", "fmod", "coalesce"),
)
"""What an expression may call; DuckDB has no `hypot` of its own, and its `log` is not the natural one of NumPy."""
POWERS = ("^", "**")

# Node classes of DuckDB's parser that a formula is made of.
ALLOWED = {"COLUMN_REF", "CONSTANT", "COMPARISON", "CONJUNCTION", "FUNCTION", "OPERATOR", "CASE", "CAST", "BETWEEN"}

# Bitwise operators make no sense for jets, and bind more tightly than comparisons; pandas reads them as here.
LOGIC = {"&&": " AND ", "||": " OR ", "&": " AND ", "|": " OR ", "~": " NOT "}

# To DuckDB NaN is the largest number. Here nothing compares with it, and it differs from everything, as in NumPy.
NAN = "isnan(CAST(left_ AS DOUBLE)) OR isnan(CAST(right_ AS DOUBLE))"
COMPARED, DIFFERENT = f"compared_ AND NOT ({NAN})", f"compared_ OR {NAN}"
DEEPEST = 8
"""Comparisons of comparisons; each of them doubles what is evaluated."""


class Expression:
    """A formula of columns; calling it with columns [J] gives its value for each jet [J].

    `known` are the columns that there are. Raises UserError for a text that is no formula, with the parser's own words,
    or that names a column which is not known. `columns` are those that it needs, in the order of `known`.
    """

    def __init__(self, text: str, known: Sequence[str]) -> None:
        self.text = text
        self._connection = duckdb.connect(
            ":memory:",
            config={
                "enable_external_access": "false",
                "python_enable_replacements": "false",
                "autoload_known_extensions": "false",
                "autoinstall_known_extensions": "false",
                "lock_configuration": "true",
                "threads": "1",
            },
        )
        self._connection.execute("CREATE MACRO hypot(x, y) AS sqrt(x * x + y * y)").fetchall()
        try:
            sql = re.sub(r"&&|\|\||[&|~]", lambda found: LOGIC[found[0]], text)
            # DuckDB takes ^- for one operator.
            tree, used = self._check(re.sub(r"([*/%^<>=])(?=[-+])", r"\1 ", sql))
            self._sql = self._written(self._with_nan(tree))
        except RecursionError:
            raise UserError(f"the expression of {len(text):,} characters is too deeply nested") from None
        if missing := sorted(used - set(known)):
            raise UserError(f"the expression {text!r} uses {', '.join(missing)}; there is {', '.join(known)}")
        self.columns = [name for name in known if name in used]
        if not self.columns:
            raise UserError(f"the expression {text!r} uses no column; there is {', '.join(known)}")
        if len({name.lower() for name in self.columns}) < len(self.columns):
            raise UserError(f"the expression {text!r} uses columns whose names differ in nothing but capital letters")

    def __repr__(self) -> str:
        return f"Expression({self.text!r})"

    def __call__(self, columns: Mapping[str, np.ndarray]) -> Shaped[np.ndarray, " J"]:
        """The value for each jet: booleans, integers or floats. Raises UserError where there is none."""
        self._connection.register("jets", pa.table({name: _wide(columns[name]) for name in self.columns}))
        try:
            (value,) = self._connection.sql(f"{self._sql} FROM jets").fetchnumpy().values()
        except duckdb.Error as error:
            raise UserError(self._refusal(error)) from None
        finally:
            self._connection.unregister("jets")
        if np.ma.is_masked(value):
            raise UserError(f"the expression {self.text!r} has no value for some jets")
        if value.dtype.kind not in "biuf":
            raise UserError(f"the expression {self.text!r} must give a number, or true and false")
        return np.asarray(value)

    def selects(self, columns: Mapping[str, np.ndarray]) -> Shaped[np.ndarray, " J"]:
        """Whether each jet is selected [J], booleans; raises UserError for an expression that is no condition."""
        value = self(columns)
        if value.dtype != np.bool_:
            raise UserError(f"the expression {self.text!r} is a number and not a condition; compare it with something")
        return value

    def _check(self, sql: str) -> tuple[dict[str, Any], set[str]]:
        """The parser's tree and the columns in it, if there is nothing in it that does not belong there."""
        if re.search(r"[;'\"\\]|--|/\*", sql):
            raise UserError(f"the expression {self.text!r} holds quotes, semicolons or comments; write a formula")
        tree = self._tree(f"({sql}\n)")
        if tree.get("error", True):
            raise UserError(f"the expression {self.text!r} cannot be read: {tree.get('error_message', 'no tree')}")
        node = tree["statements"][0]["node"]
        formulas = node.get("select_list", [])
        alone = len(tree["statements"]) == 1 and node["from_table"]["type"] == "EMPTY" and not node["where_clause"]
        # (a, b) is a row of two, and () one of none.
        if not alone or len(formulas) != 1 or formulas[0].get("function_name") == "row":
            raise UserError(f"the expression {self.text!r} is not one formula")
        used: set[str] = set()
        self._walk(formulas[0], used)
        return tree, used

    def _tree(self, formula: str) -> Any:
        """What DuckDB's parser makes of a formula."""
        try:
            answer = self._connection.execute("SELECT json_serialize_sql(?)", [f"SELECT {formula}"]).fetchall()
        except duckdb.Error as error:
            raise UserError(self._refusal(error)) from None
        return json.loads(answer[0][0])

    def _written(self, tree: dict[str, Any]) -> str:
        """The query that a tree stands for."""
        try:
            answer = self._connection.execute("SELECT json_deserialize_sql(?)", [json.dumps(tree)]).fetchall()
        except duckdb.Error as error:
            raise UserError(self._refusal(error)) from None
        return str(answer[0][0])

    def _walk(self, node: Any, used: set[str], comparisons: int = 0) -> None:
        if isinstance(node, list):
            for item in node:
                self._walk(item, used, comparisons)
        if not isinstance(node, dict):
            return
        kind = node.get("class")
        if kind is not None and kind not in ALLOWED:
            raise UserError(f"the expression {self.text!r} holds {str(kind).lower().replace('_', ' ')}, not a formula")
        if kind == "COLUMN_REF":
            used.add(".".join(node["column_names"]))
        elif kind == "FUNCTION":
            self._check_function(node)
        comparisons += kind in ("COMPARISON", "BETWEEN")
        if comparisons > DEEPEST:
            raise UserError(f"the expression {self.text!r} compares comparisons, more than {DEEPEST} deep")
        for value in node.values():
            self._walk(value, used, comparisons)

    def _check_function(self, node: dict[str, Any]) -> None:
        name = node["function_name"]
        if name.lower() not in (*FUNCTIONS, *OPERATORS):
            raise UserError(f"the expression {self.text!r} calls {name!r}; known are {', '.join(FUNCTIONS)}")
        if name in POWERS:
            base = node["arguments"][0]["expression"]
            negated = base.get("function_name") == "-" and len(base["arguments"]) == 1
            negated |= base.get("literal", {}).get("text", "").startswith("-")
            # In parentheses the base would begin after the power.
            if negated and base["query_location"] == node["query_location"]:
                raise UserError(
                    f"the expression {self.text!r} may mean -(x {name} y) or (-x) {name} y; put parentheses there"
                )

    def _with_nan(self, node: Any) -> Any:
        """A tree with every comparison made to see NaN as NumPy does."""
        if isinstance(node, list):
            return [self._with_nan(item) for item in node]
        if not isinstance(node, dict):
            return node
        node = {name: self._with_nan(value) for name, value in node.items()}
        if node.get("class") == "COMPARISON":
            differ = node["type"] in ("COMPARE_NOTEQUAL", "COMPARE_DISTINCT_FROM")
            parts = {"compared_": node, "left_": node["left"], "right_": node["right"]}
            return _filled(self._template(DIFFERENT if differ else COMPARED), parts)
        if node.get("class") == "BETWEEN":
            parts = {"compared_": node, "left_": node["input"], "right_": node["upper"]}
            return _filled(self._template(COMPARED), parts)
        return node

    def _template(self, formula: str) -> Any:
        return self._tree(f"({formula})")["statements"][0]["node"]["select_list"][0]

    def _refusal(self, error: Exception) -> str:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        return f"the expression {self.text!r} cannot be evaluated: {first}"


def _filled(node: Any, parts: Mapping[str, Any]) -> Any:
    """A tree with other trees in the place of the columns that have their names."""
    if isinstance(node, list):
        return [_filled(item, parts) for item in node]
    if not isinstance(node, dict):
        return node
    if node.get("class") == "COLUMN_REF":
        return parts[node["column_names"][0]]
    return {name: _filled(value, parts) for name, value in node.items()}


def _wide(values: Shaped[np.ndarray, " J"]) -> Shaped[np.ndarray, " J"]:
    """Integers as int64, so that 100 times one of 8 bits is a number; halves as float32, which DuckDB knows."""
    if values.dtype == np.float16:
        return values.astype(np.float32)
    return values.astype(np.int64) if values.dtype.kind in "iu" and values.dtype.itemsize < 8 else values
