"""The largest numbers that the package accepts, for programs that check their own options before they call it."""

# Beyond 31 bits, two seeds could be one.
MAX_SEED = 2**31 - 1
# Steps are counted by int32.
MAX_STEPS = 2**31 - 1
# Runs of one sweep.
MAX_RUNS = 2**24
# Of a model that is saved; no sensible model has more, and a stranger's file may claim to.
MAX_LAYERS = 100
# Of a search: the folders of rounds have four digits, and settings are saved as text, whose size is limited.
MAX_ROUNDS = MAX_BATCH = 9_999
