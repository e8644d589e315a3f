"""`simpang demo`: the real firmware, gateway and broker on this machine, with simulated sensors and air."""
