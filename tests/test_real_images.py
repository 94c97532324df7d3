"""The tables of the measure on real images, from the files of a study."""

import sys
from pathlib import Path

from monai_synth.utils import write_json, write_text

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))


def test_the_tables_hold_what_the_study_found(tmp_path, capsys):
    from real_images import print_tables

    folder = tmp_path / "wbc_cells_shots5"
    numbers = "0.8,0.75,0.05,-0.01,0.11,0.2,2 of 5,0.03,0.0,0.06"
    columns = "balanced_accuracy,reference,difference,low,high,p_holm,kept,chosen_difference,chosen_low,chosen_high"
    write_text(folder / "comparison.csv", f"arm,draws,{columns}\nreal + synthetic,5,{numbers}\n")
    rows = ["a,0.001,0.02,0.1", "a,0.003,0.04,0.1", "b,,0.05,0.2", "b,,,"]
    write_text(folder / "distances.csv", "\n".join(["class_name,floor,kid,ceiling", *rows]) + "\n")
    write_json(folder / "run.json", {"began": 1764331200.0, "machine": {"device": "A processor", "threads": 1}})
    print_tables([folder, tmp_path / "not_there_shots5"])
    said = capsys.readouterr().out.splitlines()
    assert (
        "| `wbc_cells`, 5 | real + synthetic | 5 | 0.800 | 0.750 | +0.050 (-0.010 to +0.110) | 0.200 | 2 of 5 "
        "| +0.030 (+0.000 to +0.060) |" in said
    )
    assert "wbc_cells_shots5: begun 2025-11-28, A processor, 1 thread(s)" in said
    assert "| `wbc_cells`, 5 | a | 2.0 | 30.0 | 100.0 | 0.30 |" in said  # means over the draws
    assert "| `wbc_cells`, 5 | b | nan | 50.0 | 200.0 | 0.25 |" in said
