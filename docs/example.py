# ---
# A walk through the steps of the Keras example "Image classification via fine-tuning with EfficientNet", each one
# call. Run it as a script, or open it as a notebook (the `# %%` lines are cells in VS Code, PyCharm and Jupytext).
# `PHOTOS` may be a folder, a table, or a dataset by name: the example's own is `stanford-dogs`.
# ---

# %% [markdown]
# ## What is trained on
# The example loads Stanford Dogs and its label names, and resizes to the network's resolution. Here a folder with a
# folder per class will do; photos are resized as they are read.

# %%
import headstart
from headstart.network.backbones import BACKBONES
from headstart.network.summary import summary_text

PHOTOS, RUN = "digits", "example-run"
SETTINGS = {}  # for example {"image_size": 64} to be quick

# %% [markdown]
# ## The variants and their resolutions
# B0 to B7 take photos of 224, 240, 260, 300, 380, 456, 528 and 600 pixels.

# %%
{name: BACKBONES[name].image_size for name in ("b0", "b1", "b2", "b3", "b4", "b5", "b6", "b7")}

# %% [markdown]
# ## Samples with their labels, and augmented views of one photo

# %%
samples = headstart.show_samples(PHOTOS)
samples

# %%
views = headstart.show_views(PHOTOS, augmentation="example")
views

# %% [markdown]
# ## The model, without its top
# `include_top=False` removes pool, dropout and the dense layer for ImageNet's classes; a new top takes their place.

# %%
print(summary_text(BACKBONES["b0"], unfreeze=1, num_classes=120))

# %% [markdown]
# ## From scratch
# All weights are random and all train, as with `weights=None`. It takes long and ends low: there is far too little to
# learn from. (The example trains 40 epochs.)

# %%
scratch = headstart.train(PHOTOS, f"{RUN}/scratch", weights="none", epochs=2, **SETTINGS)
headstart.plot_history(scratch)

# %% [markdown]
# ## Transfer with a frozen network
# A new head on the frozen network's features: BatchNorm, Dropout, Dense; Adam at 1e-2, 25 epochs. The network runs once
# over the photos, not in every epoch.

# %%
frozen = headstart.train(
    PHOTOS, f"{RUN}/frozen", head="example", unfreeze=0, augmentation="example", resize_policy="squash", **SETTINGS
)
headstart.plot_history(frozen)

# %% [markdown]
# ## Fine-tuning the top blocks
# The last block and the head convolution train at 1e-4, BatchNorm stays frozen.

# %%
tuned = headstart.train(
    PHOTOS,
    f"{RUN}/tuned",
    head="example",
    unfreeze=1,
    optimiser="adam",
    learning_rate=1e-4,
    head_learning_rate=1e-4,
    epochs=10,
    batch_size=64,
    augmentation="example",
    resize_policy="squash",
    **SETTINGS,
)
headstart.plot_history(tuned)

# %% [markdown]
# ## Headstart's own way, and all of it side by side
# `headstart compare PHOTOS` does the above in one command; this is the last arm alone.

# %%
run = headstart.train(PHOTOS, f"{RUN}/headstart", **SETTINGS)
{name: each.metrics["test"]["accuracy"] for name, each in [("frozen", frozen), ("tuned", tuned), ("headstart", run)]}

# %% [markdown]
# ## The classifier in use

# %%
classifier = headstart.load(f"{RUN}/headstart/classifier")
classifier
