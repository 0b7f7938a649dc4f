"""The human ceiling: how well people agree with one another, by which scores are divided."""

# Harmonization's constant: the average inter-rater alignment of ClickMe's players.
HUMAN_CEILING = 0.6575315343478081

# If it is a split-half reliability, a perfect model can reach its root once it is corrected
# to full length by Spearman and Brown: 135 % of the ceiling.
SPEARMAN_BROWN = (2 * HUMAN_CEILING / (1 + HUMAN_CEILING)) ** 0.5
