"""Rules that were fixed before any result: thresholds that statistics and figures share."""

FEWEST_IMAGES = 12  # with fewer there is no bootstrap interval
