"""The verdicts that there are, in words. Which one a claim gets is decided by `evidence.rules`."""

REPRODUCED, NOT_REPRODUCED = "reproduced", "not reproduced"
NOT_DECIDABLE, NOT_RUN = "not decidable at this scale", "not run yet"
