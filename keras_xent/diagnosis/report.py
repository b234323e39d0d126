"""What a diagnosis says: findings, and the report that holds them."""

import dataclasses
import textwrap
from collections.abc import Mapping, Sequence

from keras_xent.diagnosis import codes

ERROR, WARNING = "error", "warning"

# Said in every sentence that speaks of them: who asks what is wrong may not
# know the word.
LOGITS = "logits (scores of any size, before softmax or sigmoid)"

_WIDTH = 79


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a model, its loss or its labels.

    Attributes:
        code: What it is, one of a fixed list: made to be tested for.
        severity: `"error"` (the training cannot be right) or `"warning"`.
        where: The output, layer or metric that it was seen at.
        summary: What is wrong, in a sentence.
        evidence: The numbers it was seen by, a dictionary.
        cause: How this usually comes about.
        cure: What to do, as code.

    Raises:
        ValueError: If the code is not one of the list.

    Example:

    >>> from keras_xent.diagnosis import Finding
    >>> finding = Finding("all-masked", "error", "output 'dense'",
    ...     "No row counts.", {"rows": 32, "rows that count": 0},
    ...     "Every sample weight is 0.", "model.fit(x, y)")
    >>> print(finding)
    error [all-masked] at output 'dense'
      No row counts.
      Seen: rows 32, rows that count 0
      Likely cause: Every sample weight is 0.
      More: https://OWNER.github.io/keras_xent/diagnose#all-masked
      Cure:
        model.fit(x, y)
    """

    code: str
    severity: str
    where: str
    summary: str
    evidence: dict
    cause: str
    cure: str

    def __post_init__(self):
        if self.code not in codes.CODES:
            raise ValueError(
                f"`code` must be one of {', '.join(codes.CODES)}. Received: "
                f"code={self.code!r}"
            )

    def __str__(self):
        seen = ", ".join(f"{k} {_shown(v)}" for k, v in self.evidence.items())
        parts = [
            _filled(f"{self.severity} [{self.code}] at {self.where}", "", "  "),
            _paragraph(self.summary),
            _paragraph(f"Seen: {seen}"),
            _paragraph(f"Likely cause: {self.cause}"),
            f"  More: {codes.address(self.code)}",
            "  Cure:",
            textwrap.indent(textwrap.dedent(self.cure).strip(), "    "),
        ]
        return "\n".join(parts)


class Report:
    """What `keras_xent.diagnose` has found. It prints as text.

    Args:
        findings: The findings, the gravest first.
        checked: The codes that were looked for.
        unchecked: The codes that could not be looked for, each with why.
        rows: How many rows the model was run on.
        labels: How many rows of labels were looked at.
        loss: The loss of these rows in training; None where it was not reached.

    Attributes:
        findings, checked, unchecked, rows, labels, loss: As above.
        errors, warnings: The findings of each severity.

    Example:

    >>> from keras_xent.diagnosis import Report
    >>> report = Report([], checked=["all-masked"], unchecked={}, rows=32,
    ...     labels=32, loss=0.5)
    >>> report
    keras_xent.diagnose: nothing wrong seen (32 rows, loss 0.5)
    Looked for: all-masked.
    >>> report.raise_if_errors() is report
    True
    """

    def __init__(
        self,
        findings: Sequence[Finding],
        checked: Sequence[str],
        unchecked: Mapping[str, str],
        rows: int,
        labels: int,
        loss: float | None,
    ) -> None:
        order = [ERROR, WARNING]
        self.findings = tuple(
            sorted(findings, key=lambda found: order.index(found.severity))
        )
        self.checked = tuple(checked)
        self.unchecked = dict(unchecked)
        self.rows, self.labels, self.loss = rows, labels, loss

    @property
    def errors(self) -> tuple[Finding, ...]:
        return tuple(f for f in self.findings if f.severity == ERROR)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        return tuple(f for f in self.findings if f.severity == WARNING)

    def raise_if_errors(self) -> "Report":
        """Raises ValueError with the text if there is an error; else itself."""
        if self.errors:
            raise ValueError(str(self))
        return self

    def __str__(self):
        parts = [self._title()]
        parts += [str(finding) for finding in self.findings]
        if not self.findings:
            parts[0] += "\n" + _filled(
                "Looked for: " + ", ".join(self.checked) + "."
            )
        reasons = {}
        for code, why in self.unchecked.items():
            reasons.setdefault(why, []).append(code)
        parts += [
            _filled(f"Not looked for, because {why}: {', '.join(codes)}.")
            for why, codes in reasons.items()
        ]
        joint = "\n\n" if self.findings else "\n"
        return joint.join(parts)

    __repr__ = __str__

    def _title(self):
        counts = [
            f"{len(found)} {name}{'s' * (len(found) != 1)}"
            for name, found in (
                (ERROR, self.errors),
                (WARNING, self.warnings),
            )
            if found
        ]
        seen = [f"{self.rows} row{'s' * (self.rows != 1)}"]
        if self.labels != self.rows:
            seen.append(f"labels of {self.labels}")
        if self.loss is not None:
            seen.append(f"loss {_shown(self.loss)}")
        found = ", ".join(counts) or "nothing wrong seen"
        return f"keras_xent.diagnose: {found} ({', '.join(seen)})"


def _shown(value):
    """A number with four digits, the rest as Python shows it."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_shown, value)) + "]"
    return str(value)


def _filled(text, first="", others=""):
    return textwrap.fill(
        text,
        _WIDTH,
        initial_indent=first,
        subsequent_indent=others,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _paragraph(text):
    return _filled(text, "  ", "  ")
