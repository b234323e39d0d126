"""Formulas as MathML, which browsers set by themselves: no script, no font."""

import xml.sax.saxutils

from docutils import nodes
from docutils.utils.math import latex2mathml


def setup(app):
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    app.config.html_math_renderer = "mathml"
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def inline(translator, node):
    translator.body.append(mathml(node.astext()))
    raise nodes.SkipNode


def block(translator, node):
    formula = mathml(node.astext(), as_block=True)
    translator.body.append(f'<div class="math">{formula}</div>\n')
    raise nodes.SkipNode


def mathml(formula, as_block=False):
    """The MathML of a formula in TeX, which goes along for who copies it."""
    text = xml.sax.saxutils.quoteattr(formula.strip())
    made = latex2mathml.tex2mathml(formula, as_block=as_block)
    return made.replace("<math ", f"<math alttext={text} ", 1)
