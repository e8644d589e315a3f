"""The tools of Simpang: the `simpang` command and the rigs on which nodes and gateways are tested."""
