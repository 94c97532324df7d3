from pathlib import Path

from monai.bundle import ConfigWorkflow

from monai_synth.bundle.study import _Runs
from monai_synth.bundle.study_plan import plan

CONFIGS = Path(__file__).resolve().parents[2] / "bundles" / "colon" / "configs"


def runs_of(folder, grid, arms, **settings):
    workflow = ConfigWorkflow(str(CONFIGS / "study.json"), logging_file=False)
    workflow.parser.update({"output_dir": str(folder), "grid": grid, "arms": arms, **settings})
    return _Runs(workflow, folder, plan(grid, arms, folder))


def test_sample_grids_are_drawn_where_the_study_or_an_arm_asks_for_them(tmp_path):
    arms = {"plain": {"mixing": "synthetic"}, "watched": {"mixing": "synthetic", "sample_every": 7}}

    def asked(**settings):
        runs = runs_of(tmp_path, {"seed": [0]}, arms, **settings)
        return [runs.nested(cell).parser["sample_every"] for cell in runs.cells]

    assert asked() == [0, 7]
    assert asked(sample_every=5) == [5, 7]
