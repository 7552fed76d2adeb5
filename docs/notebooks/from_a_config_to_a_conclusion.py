# %% [markdown]
# # From a config to a conclusion
#
# This notebook goes from a question to an experiment in YAML with its claims, to the runs and to a
# conclusion. It takes about a minute on two cores and downloads nothing.
#
# The question is: does a small convolutional network reach a higher test accuracy with batch
# normalisation than without, and does batch normalisation differ from group normalisation?

# %%
from pathlib import Path

import normlab

# %% [markdown]
# ## The config
#
# Each section is a call, and `sweep` lists what varies. The claims are in the same file. Each has a
# measure, two arms, and an expectation that an interval will decide. They are written before the
# first step, and every run records their hashes, so that a later claim is shown as such.

# %%
config = Path("conclusion.yaml")
_ = config.write_text("""\
question: does batch normalisation help a small convolutional network, and more than group norm?
data: {name: shapes, train_examples: 1500, test_examples: 500, size: 12}
model: {name: convnet, widths: [8, 16]}
optimizer: {name: sgd, momentum: 0.9}
schedule: {name: cosine_decay_schedule, init_value: 0.1}
train: {epochs: 8, batch_size: 50}
sweep:
  norm: [identity, batch_norm, {name: group_norm, groups: 4}]
  seed: 0..4
claims:
  - says: batch normalisation is more accurate than none, by 5 points at least
    measure: final(test_accuracy)
    compare: {left: batch_norm, right: identity}
    expect: difference >= 0.05
  - says: group and batch normalisation match within 1 point
    measure: final(test_accuracy)
    compare: {left: group_norm(groups=4), right: batch_norm}
    expect: matches within 0.01
""")

# %% [markdown]
# ## The runs
#
# Finished runs are kept. If this cell is executed again, it returns at once; after an interruption
# it continues.

# %%
runs = normlab.run(config)
runs

# %% [markdown]
# `normlab.load("runs/conclusion")` reads the same from disk, tomorrow or on another machine.

# %%
runs = normlab.load("runs/conclusion")
len(runs), runs.runs[0].config["train"], runs.runs[0].metrics[-1]

# %% [markdown]
# ## The comparison
#
# The first line says which arm won, or that this is not decided. The table compares each arm with
# a baseline: the mean over seeds with its 95% interval, and the difference to the baseline with its
# interval. An arm's name unfolds the rest. The verdicts on the claims are below.

# %%
comparison = normlab.compare(runs, baseline="batch_norm")
comparison

# %% [markdown]
# A verdict is *supported* if the interval lies wholly inside the expected range, *refuted* if it
# lies wholly outside, and *undecided* otherwise. An undecided claim is not a failure: it says that
# five seeds cannot decide, and how many could.

# %%
for verdict in comparison.verdicts:
    print(f"{verdict.outcome}: {verdict.claim.says} ({verdict.why})")

# %% [markdown]
# ## Figures
#
# These are plain matplotlib figures, which you can restyle.

# %%
figure = comparison.plot("curves", metric="train_loss")
figure.axes[0].set_title("training loss: mean over seeds, 95% interval of the mean", fontsize=10)
figure

# %%
comparison.plot("price")

# %% [markdown]
# ## Another measure, another answer
#
# "Faster" is another measure. A run that never reaches the target is neither omitted nor replaced
# by a number: it needs more steps than it had, and ranks use exactly that.

# %%
normlab.compare(runs, baseline="batch_norm", measure="steps_to(test_accuracy, 0.5)")

# %% [markdown]
# ## Other tools
#
# If pandas is installed, `frame()` returns a table. On the command line,
# `normlab report runs/conclusion` writes everything to one page.

# %%
try:
    frame = runs.frame()[["arm", "seed", "test_accuracy", "train_seconds"]]
except normlab.UserError as error:  # pandas is optional
    frame = str(error)
frame
