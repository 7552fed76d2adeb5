# %% [markdown]
# # Your own statistics
#
# normlab decides claims by intervals. You may prefer another test, an effect size or a Bayesian
# estimate. This notebook hands the results of an experiment to four packages that offer them:
# statsmodels, rliable, baycomp and autorank. Where they compute what normlab computes, the numbers
# are the same. It takes about a minute on two cores and downloads nothing.
#
# `pip install statsmodels rliable baycomp autorank pandas` installs what it needs.

# %%
from pathlib import Path

import numpy as np

import normlab

config = Path("statistics.yaml")
_ = config.write_text("""\
data: {name: shapes, train_examples: 1200, test_examples: 500, size: 12}
model: {name: convnet, widths: [8, 16]}
optimizer: {name: sgd, momentum: 0.9}
schedule: {name: cosine_decay_schedule, init_value: 0.1}
train: {epochs: 5, batch_size: 50}
sweep:
  norm: [identity, batch_norm, {name: group_norm, groups: 4}]
  seed: 0..6
""")
runs = normlab.run(config)

# %% [markdown]
# ## A tidy table
#
# `frame()` has a row for each run. `curves()` has one for each evaluation, and `probes()` one for
# each number that the probes found. A table of seeds by arms is one call away.

# %%
frame = runs.frame()
frame[["arm", "seed", "test_accuracy", "test_loss"]].head()

# %%
table = frame.pivot(index="seed", columns="arm", values="test_accuracy")
table

# %% [markdown]
# ## statsmodels: intervals, equivalence, corrections
#
# normlab pairs arms by seed if their runs share data, network and training, as here. Student's t of
# the differences then gives the interval, and statsmodels finds the same. An accuracy is a count of
# test images, so its values are known to within one image. normlab widens its interval by that,
# here by less than a thousandth of it.

# %%
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import DescrStatsW, ttost_paired

arms = ["batch_norm", "group_norm(groups=4)", "identity"]
batch, group, none = (table[arm].to_numpy() for arm in arms)
theirs = DescrStatsW(batch - none).tconfint_mean()

compared = normlab.compare(runs, baseline="identity")
ours = {arm.name: arm for arm in compared.arms}
np.testing.assert_allclose(ours["batch_norm"].difference.interval, theirs, rtol=1e-3)

losses = frame.pivot(index="seed", columns="arm", values="test_loss")
of_loss = {arm.name: arm for arm in normlab.compare(runs, measure="final(test_loss)").arms}
np.testing.assert_allclose(
    of_loss["batch_norm"].difference.interval,
    DescrStatsW(losses["batch_norm"] - losses["identity"]).tconfint_mean(),
    rtol=1e-9,
)
theirs

# %% [markdown]
# "Matches within 0.05" is an equivalence test by two one-sided tests. Its p-value at 2.5% a side
# decides as normlab's 95% interval does.

# %%
p, *_ = ttost_paired(batch, group, -0.05, 0.05)
low, high = DescrStatsW(batch - group).tconfint_mean()
assert (p < 0.025) == (low > -0.05 and high < 0.05)
p

# %% [markdown]
# Several comparisons need a correction. Holm's is the one that normlab uses for its claims.

# %%
p_values = [DescrStatsW(one - none).ttest_mean(0)[1] for one in (batch, group)]
multipletests(p_values, method="holm")[1]

# %% [markdown]
# ## rliable: interquartile means
#
# rliable comes from reinforcement learning, where single runs may fail. It leaves out the
# best and the worst quarter of the runs. The report's column `interquartile_mean` is the same.

# %%
from rliable import metrics

middle = {arm: metrics.aggregate_iqm(table[arm].to_numpy()[:, None]) for arm in table}
for arm in table:
    np.testing.assert_allclose(ours[arm].middle, middle[arm], rtol=1e-9)
middle

# %% [markdown]
# ## baycomp: the probability that one is better
#
# A region of practical equivalence, here one point of accuracy, stands for "no difference that
# matters". The three numbers are the probabilities that batch normalisation is better than none, as
# good, and worse.

# %%
import baycomp

baycomp.two_on_multiple(batch, none, rope=0.01, random_state=0)

# %% [markdown]
# ## autorank: all arms in one call
#
# autorank looks at the data and chooses a test for them. Its rows must be independent units, such
# as seeds of one experiment or data sets of several.

# %%
from autorank import autorank

result = autorank(table, alpha=0.05, verbose=False, order="descending")
result.rankdf[["meanrank", "mean", "magnitude"]]
