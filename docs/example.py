# %% [markdown]
# # From a folder of photographs to an inspector
#
# Train on photographs of sound parts, read the metrics, export for the line, inspect one part. The parts here are drawn by a
# program, so that nothing has to be downloaded; `data` may be any folder with your images.

# %%
from pathlib import Path
from tempfile import mkdtemp

import inspect_kd
from inspect_kd.datasets.drawn import draw_sample

work = Path(mkdtemp(prefix="inspect-kd-example-"))
data = draw_sample(work / "parts", seed=0, size=64, train=10, test_good=3, per_kind=1)

# %% [markdown]
# Train. `embedded` is the small model whose encoder comes with the package; leave out `model` for the default. The few steps here
# keep the example short: leave out `settings` for a real training.

# %%
few_steps = {"data.size": 64, "fit.steps": 20, "distill.supervise.steps": 20, "distill.variants": 2}
run = inspect_kd.train(data, model="embedded", settings=few_steps, out=work / "runs", name="example")
print(run.report)
print(run.metrics["mean"])

# %% [markdown]
# Measure the artifact again, on the parts that the training held out or on any other data set.

# %%
evaluation = run.evaluate()
print(evaluation.decisions())

# %% [markdown]
# Export. The file is written only if its scores, maps and decisions match the trained model's.

# %%
artifact = run.export("onnx", output=work / "line" / "part.onnx")
print(artifact)

# %% [markdown]
# Inspect. This needs only ONNX Runtime and the file.

# %%
inspector = inspect_kd.Inspector(artifact)
inspection = inspector(next(data.glob("*/test/*/*.png")))
print(inspection.decision, round(inspection.score, 3), len(inspection.regions), inspection.heatmap.shape)

# %% [markdown]
# Open a run again by its folder.

# %%
print(inspect_kd.open_run(run.path).recipe.name)
