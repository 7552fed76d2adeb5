# %% [markdown]
# # From a config to a conclusion
#
# A question, an experiment written as YAML with its claims, the runs, and what may be concluded
# from them. It takes about a minute on two cores and downloads nothing.
#
# The question: on a small convolutional network, does batch normalisation reach a higher test
# accuracy than none, and does it differ from group normalisation?

# %%
from pathlib import Path

import normlab

# %% [markdown]
# ## The config
#
# Each section names something to call; `sweep` says what varies. The claims stand in the same
# file: each has a measure, two arms, and an expectation that an interval will decide. They are
# written down before the first step, and every run notes their hashes, so that a claim made up
# afterwards is shown as such.

# %%
config = Path("conclusion.yaml")
config.write_text("""\
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
# Finished runs are kept: called again, this cell returns at once, and after an interruption it
# goes on where it was.

# %%
runs = normlab.run(config)
runs

# %% [markdown]
# `normlab.load("runs/conclusion")` reads the same from disk, tomorrow or on another machine.

# %%
runs = normlab.load("runs/conclusion")
len(runs), runs.runs[0].config["train"], runs.runs[0].metrics[-1]

# %% [markdown]
# ## What they amount to
#
# Each arm against a baseline: the mean over seeds with its 95% interval, the difference to the
# baseline with its own, the chance that one run beats the other, and the price. The verdicts on
# the claims stand above.

# %%
comparison = normlab.compare(runs, baseline="batch_norm")
comparison

# %% [markdown]
# A verdict is *supported* if the interval lies wholly where the claim wants it, *refuted* if it
# lies wholly outside, and *undecided* otherwise. An undecided claim is no failure: it says what
# five seeds cannot tell, and how many could.

# %%
for verdict in comparison.verdicts:
    print(f"{verdict.outcome}: {verdict.claim.says} ({verdict.why})")

# %% [markdown]
# ## Pictures
#
# Plain matplotlib figures: restyle them as you like.

# %%
figure = comparison.plot("curves", metric="train_loss")
figure.axes[0].set_title("training loss: mean over seeds, 95% interval of the mean", fontsize=10)
figure

# %%
comparison.plot("price")

# %% [markdown]
# ## Another measure, another answer
#
# "Faster" is a measure of its own. A run that never reaches the target is not left out, and not
# made up for with a number: it is known to need more steps than it had, and ranks use just that.

# %%
normlab.compare(runs, baseline="batch_norm", measure="steps_to(test_accuracy, 0.5)")

# %% [markdown]
# ## On to other tools
#
# Where pandas is installed, `frame()` hands out tables. From the command line,
# `normlab report runs/conclusion` writes the whole as one page.

# %%
try:
    frame = runs.frame()[["arm", "seed", "test_accuracy", "train_seconds"]]
except normlab.UserError as error:  # pandas is optional
    frame = str(error)
frame
