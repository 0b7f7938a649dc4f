"""Running the numbered notebooks so that the results can be trusted in the morning.

`steps` reads what notebooks declare; `preflight` looks for trouble before any work;
`manifest` tells what is still valid; `kernel` and `execution` run one notebook and judge
it; `session` runs them all; `outcomes` reports; `faults` lists everything that can end a
run, with its exit status; `exclusive` and `signals` keep two runs, and an interruption,
from doing harm; `memory` watches a kernel's memory; `within` is what a kernel is asked;
`progress` is what the terminal and the log show.

May import: study and the rooms below it, but nothing that needs torch.
"""
