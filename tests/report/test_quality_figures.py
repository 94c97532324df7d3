import numpy as np

from monai_synth.report import quality_figures


def test_more_classifiers_than_colors_are_all_drawn(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(quality_figures, "save_figure", lambda figure, path: drawn.append(figure) or path)
    names = [f"arm {number}" for number in range(len(quality_figures.COLORS) + 2)]
    curve = np.array([0, 1, 1]), np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    quality_figures.draw_reliability({name: curve for name in names}, tmp_path / "curves.png")
    (axes,) = drawn[0].axes
    quality_figures.plt.close(drawn[0])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == names
