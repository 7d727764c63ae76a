"""The verdicts that there are, in words. Which ones a claim gets is decided by `evidence.rules`.

A claim has two: on its direction (a sign or a form), and on the size of its number, beside the published one.
"""

import dataclasses

REPRODUCED, NOT_REPRODUCED = "reproduced", "not reproduced"
NOT_DECIDABLE, NOT_RUN = "not decidable at this scale", "not run yet"
DIRECTIONS = (REPRODUCED, NOT_REPRODUCED, NOT_DECIDABLE, NOT_RUN)

AGREES, DIFFERS = "agrees", "differs"
NOT_DECIDED, NONE_PUBLISHED = "not decided", "none published"
SIZES = (AGREES, DIFFERS, NOT_DECIDED, NONE_PUBLISHED, NOT_RUN)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judgement:
    """A verdict with its reason in a line: the number that decides it, or why there is none."""

    verdict: str
    reason: str = ""
