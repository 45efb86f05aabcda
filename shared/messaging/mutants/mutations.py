"""Where the code can be changed, and into what: Cosmic Ray's operators, and statements left out."""

import ast
from collections.abc import Iterator
from pathlib import Path

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator
from mutant import Mutant

# Left out: numbers (time-outs and sizes, where any value near it is as good), and the operators that meet nothing but
# the | of annotations.
_OPERATORS = (
    *(
        f"ReplaceComparisonOperator_{change}"
        for change in (
            "Eq_NotEq",
            "NotEq_Eq",
            "Is_IsNot",
            "IsNot_Is",
            "Gt_LtE",
            "Gt_GtE",
            "Lt_GtE",
            "Lt_LtE",
            "GtE_Lt",
            "GtE_Gt",
            "LtE_Gt",
            "LtE_Lt",
        )
    ),
    "ReplaceBinaryOperator_Add_Sub",
    "ReplaceBinaryOperator_Sub_Add",
    "ReplaceAndWithOr",
    "ReplaceOrWithAnd",
    "ReplaceTrueWithFalse",
    "ReplaceFalseWithTrue",
    "ReplaceUnaryOperator_Delete_Not",
    "ReplaceContinueWithBreak",
    "ReplaceBreakWithContinue",
    "AddNot",
    "ExceptionReplacer",
    "ZeroIterationForLoop",
)
_EXEMPT = "# no mutant:"
# A column is compared with what the migrations make, how a dataclass is made is no decision of the running code, a log
# line is for people, and a failpoint for tests.
_LEFT_ALONE = ("Column(", "@dataclass", "log.", "failpoint(")


def mutants_of(module: Path, root: Path) -> Iterator[Mutant]:
    code = (root / module).read_text()
    exempt = {
        number
        for number, line in enumerate(code.splitlines(), 1)
        if _EXEMPT in line or line.strip().startswith(_LEFT_ALONE)
    }
    seen = {code}
    for name, line, changed in (*_by_operators(code), *_left_out(code)):
        if line not in exempt and changed not in seen and _compiles(changed):
            seen.add(changed)
            yield Mutant(module, f"{name}, line {line}", changed)


def _by_operators(code: str) -> Iterator[tuple[str, int, str]]:
    tree = get_ast(code)
    for name in _OPERATORS:
        operator = get_operator(f"core/{name}")()
        positions = (start for node in ast_nodes(tree) for start, _ in operator.mutation_positions(node))
        for occurrence, (line, _) in enumerate(positions):
            try:
                changed = mutate_code(code, operator, occurrence)
            except AttributeError:  # the replacer of exceptions knows no dotted names
                continue
            if changed is not None:
                yield name, line, changed


def _left_out(code: str) -> Iterator[tuple[str, int, str]]:
    """Calls whose result nobody takes, raises, and assignments to attributes: each replaced by ``pass``."""
    lines = code.splitlines(keepends=True)
    for node in ast.walk(ast.parse(code)):
        call = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call | ast.Await)
        attribute = isinstance(node, ast.Assign | ast.AugAssign) and isinstance(
            node.targets[0] if isinstance(node, ast.Assign) else node.target, ast.Attribute | ast.Subscript
        )
        if call or attribute or isinstance(node, ast.Raise):
            first, last = node.lineno - 1, node.end_lineno or node.lineno
            kept = lines[first][: node.col_offset] + "pass\n"
            yield "left out", node.lineno, "".join([*lines[:first], kept, *lines[last:]])


def _compiles(code: str) -> bool:
    try:
        compile(code, "mutant", "exec")
    except SyntaxError:
        return False
    return True
