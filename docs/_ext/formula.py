"""Formulas of docstrings, which are written in Unicode, as MathML.

    loss = Σ_k w_k t̃_k (1 − p_k)^γ (−log p_k) + z · lse²

What stands behind `_` and `^` is set lower and higher, a sum has its index
below, lines with a "=" are aligned there, and words stay words. A name whose
end is long, as `y_true`, is no letter with an index.
"""

import re
from xml.sax.saxutils import escape

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Signs of a block that is code, or a table of options.
NOT_A_FORMULA = ("keras", "model.", '"', "`")
LONGEST_INDEX = 3
DIGITS = "⁰¹²³⁴⁵⁶⁷⁸⁹⁻"
HIGHER = str.maketrans(DIGITS, "0123456789−")
ACCENT = "\u0300-\u036f"  # as that of t̃
TOKEN = re.compile(
    r"(?P<space>\s+)"
    rf"|(?P<base>[^\W\d_](?:[^\W_{DIGITS}]|[{ACCENT}])*|[\d.,]*\d|½|\S)"
    r"(?:_(?:\{(?P<braced>[^}]*)\}|(?P<name>[^\W\d]\w*)))?"
    rf"(?:\^(?P<power>\w+)|(?P<digits>[{DIGITS}]+))?"
)
SIGNS = ("−", "∓")
# A letter is italic by itself, but ij and t̃ are more than one.
LETTERS = '<mi class="letters">{}</mi>'
OPERATORS = set("=+−-·/≤≥≠<>,")


def formulas(text):
    """Markdown in which blocks that are formulas are MathML."""
    return BLOCK.sub(_block, text)


def _block(match):
    language, lines = match.groups()
    if language or any(sign in lines for sign in NOT_A_FORMULA):
        return match[0]
    rows = "".join(_row(line) for line in lines.splitlines() if line)
    # No blank line: it would end the block of HTML.
    return (
        '<div class="math"><math display="block">'
        f'<mtable class="aligned">{rows}</mtable></math></div>'
    )


def _row(line):
    left, equals, right = line.partition(" = ")
    if not equals or not re.fullmatch(r"\S+", left.strip()):
        # No name before the "=": a word, or the rest of the line above.
        return f"<mtr><mtd></mtd><mtd>{_set(line)}</mtd></mtr>"
    right = f"<mo>=</mo>{_set(right)}"
    return f"<mtr><mtd>{_set(left)}</mtd><mtd>{right}</mtd></mtr>"


def _set(text):
    """The elements of a piece of a line, in one row."""
    made, before, gap = [], "", 0
    for match in TOKEN.finditer(text.strip()):
        if match["space"]:
            gap = len(match["space"])
            continue
        if gap > 1:
            made.append('<mspace width="1.5em"/>')
        elif gap and before not in OPERATORS and match[0] not in OPERATORS:
            made.append('<mspace width="0.3em"/>')
        if match[0] in SIGNS and (not before or before in "(=["):
            made.append(f'<mo form="prefix">{match[0]}</mo>')
        else:
            made.append(_element(match))
        before, gap = match[0], 0
    return f"<mrow>{''.join(made)}</mrow>"


def _element(match):
    base, name, index = match["base"], match["name"] or "", match["braced"]
    if base == "Σ":
        base, index = "∑", index or name
    elif name:
        # y_true is a name, class_vectors_k one with an index.
        *names, last = [base, *name.split("_")]
        is_index = len(last) <= LONGEST_INDEX
        base = "_".join(names if is_index else [*names, last])
        index = last if is_index else None
    made = _leaf(base)
    if index:
        tag = "munder" if base == "∑" else "msub"
        letters = index.isalpha() and len(index) <= LONGEST_INDEX
        below = LETTERS.format(index) if letters else _set(index)
        made = f"<{tag}>{made}{below}</{tag}>"
    power = match["power"] or (match["digits"] or "").translate(HIGHER)
    return f"<msup>{made}{_set(power)}</msup>" if power else made


def _leaf(text):
    if re.fullmatch(r"[\d.,]*\d|½", text):
        return f"<mn>{text}</mn>"
    if "_" in text:
        return f"<mtext>{text}</mtext>"
    if re.fullmatch(f"\\w[{ACCENT}]+", text):
        return LETTERS.format(text)
    if text[0].isalpha():
        return f"<mi>{text}</mi>"
    if text in "|‖":
        return f'<mo stretchy="false" lspace="0" rspace="0">{text}</mo>'
    # Brackets of one size: nothing in them is tall but sums.
    return f'<mo stretchy="false">{escape(text)}</mo>'
