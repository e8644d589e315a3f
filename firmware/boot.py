# Runs first at every start, before main.py. It stays empty on purpose: a mistake in this file cannot be
# mended over the link, and a console that a technician can reach is worth more than anything done here.
