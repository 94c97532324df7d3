"""Each overlay of `configs/datasets` reads a miniature of the layout that its data set is published in."""

import zlib
from pathlib import Path

import numpy as np
import pytest
from monai.bundle import ConfigParser
from PIL import Image

from monai_synth.data import check, prompts_of, scan
from monai_synth.data.image_groups import groups_of
from monai_synth.data.labelled_files import read_annotations

OVERLAYS = Path(__file__).resolve().parents[2] / "configs" / "datasets"


def save(path, mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(zlib.crc32(path.name.encode())).integers(0, 255, (36, 36, len(mode)), np.uint8)
    Image.fromarray(pixels, mode).save(path)


def lc25000(folder):
    root = folder / "lung_colon_image_set"
    for tissue, classes in {"colon": {"aca": "ca", "n": "n"}, "lung": {"aca": "aca", "n": "n", "scc": "scc"}}.items():
        for name, short in classes.items():
            for index in (1, 2):
                save(root / f"{tissue}_image_sets" / f"{tissue}_{name}" / f"{tissue}{short}{index}.jpeg")
    return root


def nct_crc(folder):
    for name in ("ADI", "BACK", "DEB", "LYM", "MUC", "MUS", "NORM", "STR", "TUM"):
        for end in ("AAAFLCLY", "AAICEQFN"):
            save(folder / "NCT-CRC-HE-100K" / name / f"{name}-{end}.tif")
    return folder / "NCT-CRC-HE-100K"


def matek19(folder):
    lines = []
    for name in "BAS EBO EOS KSC LYA LYT MMZ MOB MON MYB MYO NGB NGS PMB PMO".split():
        for index in (1, 2):
            save(folder / "AML-Cytomorphology" / name / f"{name}_{index:04d}.tiff", "RGBA")
            lines.append(f"{name}/{name}_{index:04d}.tiff {name} nan nan")
    (folder / "annotations.dat").write_text("\n".join(lines) + "\n")
    (folder / "abbreviations.txt").write_text("BAS Basophil\n")
    return folder


def acevedo20(folder):
    names = "basophil eosinophil erythroblast ig lymphocyte monocyte neutrophil platelet".split()
    for name in names:
        for index in (1, 2):
            save(folder / "PBC_dataset_normal_DIB" / name / f"{name[:2].upper()}_{index}.jpg")
    return folder


def mll23(folder):
    names = ConfigParser.load_config_file(OVERLAYS / "mll23.yaml")["class_map"]
    for name in names:
        for index in (1, 2):
            save(folder / name / name / f"{name}_{index}.TIF")
        (folder / name / "__MACOSX" / name).mkdir(parents=True)
        (folder / name / "__MACOSX" / name / f"._{name}_1.TIF").write_bytes(b"resource fork")
    return folder


def bmc(folder):
    for name in ConfigParser.load_config_file(OVERLAYS / "bmc.yaml")["class_map"]:
        for part in ("0001-1000", "1001-2000"):
            save(folder / "BM_cytomorphology_data" / name / part / f"{name}_{part[:4]}.jpg")
    return folder / "BM_cytomorphology_data"


LAYOUTS = {
    "lc25000_colon": lc25000,
    "lc25000_lung": lc25000,
    "nct_crc": nct_crc,
    "nct_crc_colon": nct_crc,
    "matek19": matek19,
    "matek19_shared": matek19,
    "acevedo20": acevedo20,
    "acevedo20_shared": acevedo20,
    "mll23": mll23,
    "mll23_shared": mll23,
    "bmc": bmc,
    "bmc_shared": bmc,
}
SHARED = ["basophil", "eosinophil", "lymphocyte", "monocyte", "neutrophil"]


def overlay(name):
    content = ConfigParser.load_config_file(OVERLAYS / f"{name}.yaml")
    return content, {key: content.get(key) for key in ("class_map", "annotations")}


def test_every_overlay_has_its_layout():
    assert sorted(LAYOUTS) == sorted(path.stem for path in OVERLAYS.glob("*.yaml"))


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_published_layout_is_read_as_it_is(tmp_path, name):
    content, options = overlay(name)
    source = LAYOUTS[name](tmp_path)
    records, names = scan(source, find_duplicates=False, **options)
    classes = {target for target in options["class_map"].values() if target}
    assert set(names) == classes
    counts = {target: 2 * list(options["class_map"].values()).count(target) for target in classes}
    assert {target: sum(r["class_name"] == target for r in records) for target in classes} == counts
    assert len(set(prompts_of(names, content["prompts"], "a slide, {phrase}").values())) == len(names)
    if name.endswith("_shared"):
        assert names == SHARED


def test_the_folder_above_is_searched_and_two_candidates_are_refused(tmp_path):
    source = nct_crc(tmp_path)
    _, options = overlay("nct_crc_colon")
    assert len(scan(tmp_path, find_duplicates=False, **options)[0]) == len(scan(source, **options)[0]) == 4
    save(tmp_path / "CRC-VAL-HE-7K" / "TUM" / "TUM-x.tif")
    with pytest.raises(ValueError, match="TUM: is a class folder in several places: .*CRC-VAL-HE-7K"):
        scan(tmp_path, **options)


def test_missing_and_unknown_classes_are_told(tmp_path):
    source = acevedo20(tmp_path) / "PBC_dataset_normal_DIB"
    (source / "ig").rename(source / "artefact")
    _, options = overlay("acevedo20")
    findings = {finding.path: finding for finding in check(source, **options)}
    assert "is in the class map, for 'immature_granulocyte', but" in findings["ig"].message
    assert findings["artefact"].message == "is not in the class map and is left out."
    assert (findings["ig"].level, findings["artefact"].level) == ("error", "warning")
    records, _ = scan(source, class_map={"neutrophil": "cell", "gone": "cell", "platelet": "platelet", "ig": None})
    assert {record["class_name"] for record in records} == {"cell", "platelet"}


def test_labels_come_from_the_annotations_and_not_from_the_folders(tmp_path):
    matek19(tmp_path)
    table = tmp_path / "annotations.dat"
    table.write_text(table.read_text().replace("BAS/BAS_0001.tiff BAS", "BAS/BAS_0001.tiff EOS"))
    _, options = overlay("matek19")
    records, _ = scan(tmp_path, find_duplicates=False, **options)
    (moved,) = [record for record in records if record["image"].endswith("BAS_0001.tiff")]
    assert moved["class_name"] == "eosinophil"
    (tmp_path / "AML-Cytomorphology" / "MON" / "MON_0002.tiff").unlink()
    with pytest.raises(ValueError, match="MON/MON_0002.tiff: stands in annotations.dat but is not there"):
        scan(tmp_path, **options)
    table.unlink()
    with pytest.raises(ValueError, match="annotations.dat: is not in .*name it with --annotations"):
        scan(tmp_path, **options)


def test_annotations_have_commas_or_blanks_and_a_heading_or_none(tmp_path):
    path = tmp_path / "table"
    for text in ("a/1.png x\n\nb/2.png y nan\n", "image,class,who\na/1.png,x,me\n'b/2.png',y,you\n".replace("'", '"')):
        path.write_text(text)
        assert read_annotations(path) == [("a/1.png", "x"), ("b/2.png", "y")]
    path.write_text("a/1.png x\nb/2.png\n")
    with pytest.raises(ValueError, match="line 2, is 'b/2.png'. A line names an image and its class"):
        read_annotations(path)


def test_original_tiles_come_from_the_table_of_lc25000_clean(tmp_path):
    source = lc25000(tmp_path)
    rows = ["stem,filename,label,tissue,local_cluster_label,group_id"]
    for name, short in (("aca", "ca"), ("n", "n")):
        rows += [f"colon{short}{i},colon{short}{i}.jpeg,colon_{name},colon,0,{7 if name == 'n' else i}" for i in (1, 2)]
    (source / "lc25000_image_groups.csv").write_text("\n".join(rows))
    _, options = overlay("lc25000_colon")
    records, _ = scan(source, **options)
    assert [record["group"] for record in records] == ["1", "2", "7", "7"]
    (source / "lc25000_image_groups.csv").write_text("\n".join(rows[:-1]))
    with pytest.raises(ValueError, match="colonn2.jpeg: is missing in lc25000_image_groups.csv"):
        scan(source, **options)


def test_clusters_that_are_counted_in_each_class_stay_apart(tmp_path):
    for name in ("colon_aca", "colon_n"):
        (tmp_path / f"{name}.csv").write_text(f"cluster_label,img_path\n0,./LC25000/{name}/x.jpeg\n")
    tables = [str(tmp_path / "colon_aca.csv"), "colon_n.csv"]
    findings = []
    images = ["colon_image_sets/colon_aca/x.jpeg", "colon_image_sets/colon_n/x.jpeg"]
    assert groups_of(images, tmp_path, tables, findings) == ["colon_aca_0", "colon_n_0"] and not findings
    groups_of(images, tmp_path, "gone.csv", findings)
    assert "does not exist. Name the table of groups" in findings[0].message
