import pandas as pd

from headstart.report.plots import confusion_figure, history_figure


def test_curves_show_every_stage_with_training_and_validation():
    history = pd.DataFrame(
        {
            "stage": ["probe"] * 3 + ["fine-tuning"] * 2,
            "train_accuracy": [0.5, 0.6, 0.7, 0.8, 0.9],
            "validation_accuracy": [0.4, 0.5, 0.6, 0.7, 0.8],
            "train_loss": [3, 2, 1, 0.9, 0.8],
            "validation_loss": [3, 2, 1.5, 1.4, 1.3],
        }
    )
    figure = history_figure(history)
    accuracy, loss = figure.axes
    drawn = [line for line in accuracy.lines if len(line.get_xdata()) > 1 and line.get_marker() == "o"]
    assert [list(line.get_ydata()) for line in drawn] == [[50, 60, 70], [40, 50, 60], [80, 90], [70, 80]]
    assert [list(line.get_xdata()) for line in drawn] == [[1, 2, 3], [1, 2, 3], [4, 5], [4, 5]]
    assert [text.get_text() for text in accuracy.texts] == ["probe (strengths)", "fine-tuning (epochs)"]
    assert [text.get_text() for text in accuracy.get_legend().get_texts()] == ["training", "validation"]
    assert loss.get_ylabel() == "cross-entropy loss"


def test_a_small_confusion_matrix_has_names_and_counts():
    figure = confusion_figure([[3, 1], [0, 2]], ["$a", "b" * 40])
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.texts] == ["3", "1", "2"]
    assert [label.get_text() for label in axes.get_yticklabels()] == [r"\$a", "b" * 23 + "…"]
    figure.draw_without_rendering()


def test_a_confusion_matrix_has_readable_names():
    axes = confusion_figure([[1, 0], [0, 1]], ["n02085782-Japanese_spaniel", "n02087046-toy_terrier"]).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["Japanese spaniel", "toy terrier"]


def test_a_large_confusion_matrix_stays_a_picture():
    counts = [[int(row == column) for column in range(120)] for row in range(120)]
    figure = confusion_figure(counts, [f"class {number}" for number in range(120)])
    assert len(figure.axes[0].texts) == 0
    assert max(figure.get_size_inches()) < 20
