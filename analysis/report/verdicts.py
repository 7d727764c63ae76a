"""What can come out of a claim."""

REPRODUCED, NOT_REPRODUCED = "reproduced", "not reproduced"
NOT_DECIDABLE, NOT_RUN = "not decidable at this scale", "not run yet"
