"""Running the numbered notebooks so that the results can be trusted in the morning.

`steps` reads what notebooks declare; `preflight` looks for trouble before any work; `manifest`
tells what is still valid; `warm` starts the process that kernels are forked from, of which
`forking` is the text; `kernel` and `execution` run one notebook and judge it; `session` is one
profile's run; `side_by_side` says which notebook begins when; `outcomes` reports; `faults`
lists everything that can end a run, with its exit status; `exclusive` and `signals` keep two
runs, and an interruption, from doing harm; `memory` watches a kernel's memory; `within` is what
a kernel is asked; `progress` is what the terminal and the log show.

May import: study and the rooms below it, but nothing that needs torch.
"""
