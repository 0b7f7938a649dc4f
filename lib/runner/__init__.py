"""Running the numbered notebooks so that the results can be trusted in the morning.

- `steps` reads what notebooks declare; `preflight` looks for trouble before any work
- `manifest` knows which results are still valid
- `warm` starts the process that kernels are forked from; `forking` is the text that it runs
- `kernel` and `execution` run one notebook and judge it; `session` is one profile's run
- `side_by_side` decides which notebook begins when
- `outcomes` reports; `faults` lists everything that can end a run, with its exit status
- `exclusive` and `signals` protect a run from a second one and from interruptions
- `memory` watches a kernel's memory; `within` is the text that the preflight runs in a kernel
- `progress` is what the terminal and the log show

May import: study and the rooms below it, but nothing that needs torch.
"""
