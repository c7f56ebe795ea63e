"""The decision boundary of a network, and a film of it during training."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnbackend.errors import ArgumentError
from nnbackend.model.model import Model, as_model
from nnbackend.model.tables import code_table
from nnbackend.network.network import Network
from nnbackend.persistence.atomic_file import atomic_write
from nnbackend.plots.figures import INK, PALETTE, as_date_axis, bare, new_figure, save
from nnbackend.plots.plane import Plane, plane_of
from nnbackend.training.callbacks import Callback
from nnbackend.training.history import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from nnbackend.training.run import Run

FINE = 160  # points of the grid along each side
POINTS = 1500  # rows drawn at most
MARKS = "osD^vPX*"  # a shape for each class beside its colour
MARGIN = 0.08


def decision_boundary(
    model: Model | Network,
    x: Any,
    y: Any,
    path: str | os.PathLike[str],
    *,
    columns: Sequence[str] | None = None,
    features: tuple[int, int] | None = None,
    names: Sequence[str] | None = None,
    title: str = "",
) -> None:
    """Draw the predicted class at every point of a plane of two columns, and the rows x (n, n_in).

    The other columns are those of a typical row of x, the nearest to the medians and the most
    frequent levels; a line above the picture names their values.
    columns: the names of the two, of numbers or dates; by default the first two such columns.
    features: the positions of two features of x, instead of names.
    names: of the columns of an array.  x: rows as for `Model.predict`, or features of a table.
    y: class codes (n,).
    Raises: ArgumentError for a model with no or too many classes, or for invalid columns.
    """
    known = as_model(model)
    n_classes = _check(known)
    rows = np.asarray(code_table(x, known.preprocessing.columns))
    plane = plane_of(known, rows, columns=columns, features=features, names=names)
    save(_draw(known, n_classes, rows, np.asarray(y), plane, title), path)


class BoundaryFilm(Callback):
    """Films the decision boundary during training: a frame before the first epoch and after each.

    every: epochs between frames.  columns, features, names: as for `decision_boundary`.
    Call `save(path)` afterwards; the film is a GIF.
    """

    def __init__(
        self,
        x: Any,
        y: Any,
        *,
        columns: Sequence[str] | None = None,
        features: tuple[int, int] | None = None,
        every: int = 1,
        names: Sequence[str] | None = None,
    ) -> None:
        self.x, self.y, self.every = np.asarray(x), np.asarray(y), every
        self.columns, self.features, self.names = columns, features, names
        self._frames: list[Any] = []
        self._plane: Plane | None = None

    def on_train_begin(self, trainer: Run) -> None:
        self._take(_model_of(trainer), "before training")

    def on_epoch_end(self, trainer: Run, row: Row) -> bool | None:
        epoch = trainer.state.epoch
        if epoch % self.every == 0:
            self._take(_model_of(trainer), f"epoch {epoch}, training loss {row['train_loss']:.3f}")
        return None

    def save(self, path: str | os.PathLike[str], *, seconds: float = 6.0) -> None:
        """Write the film, which lasts some seconds and pauses on its last frame.

        Raises: ArgumentError before any training, or for a suffix other than .gif.
        """
        target = Path(path)
        if target.suffix.lower() != ".gif":
            raise ArgumentError(f"A film must be a .gif file. Received: {str(target)!r}.")
        if not self._frames:
            raise ArgumentError(
                "A film needs frames. Received: none. Pass it to train's callbacks."
            )
        each = max(40, round(1000 * seconds / len(self._frames)))
        content = io.BytesIO()
        self._frames[0].save(
            content, format="GIF", save_all=True, append_images=self._frames[1:], loop=0,
            duration=[each] * (len(self._frames) - 1) + [each + 1500],
        )  # fmt: skip
        atomic_write(target, content.getvalue())

    def _take(self, model: Model, title: str) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from PIL import Image

        n_classes = _check(model)
        if self._plane is None:
            self._plane = plane_of(
                model, self.x, columns=self.columns, features=self.features, names=self.names
            )
        figure = _draw(model, n_classes, self.x, self.y, self._plane, title)
        figure.set_dpi(90)
        # The same place in every frame: a search for the best one takes longer than drawing.
        figure.set_layout_engine("none")
        figure.axes[0].set_position((0.15, 0.2, 0.82, 0.68 if self._plane.note else 0.73))
        canvas: Any = FigureCanvasAgg(figure)
        canvas.draw()
        picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
        self._frames.append(picture.quantize(96))


def _model_of(run: Run) -> Model:
    return Model.from_parts(run.net, run.data.preprocessing)


def _draw(
    model: Model, n_classes: int, x: np.ndarray, y: np.ndarray, plane: Plane, title: str
) -> Figure:
    from matplotlib.colors import ListedColormap

    figure = new_figure(5.2, 4.8)
    axes = figure.subplots()
    points = plane.values(x)
    is_known = ~np.isnan(points).any(axis=1)
    points, y = points[is_known], y[is_known]
    xs, ys = (_span(values) for values in points.T)
    leads = _leads(model, plane.features(*(g.ravel() for g in np.meshgrid(xs, ys))))
    codes, sure = leads.argmax(axis=1), np.clip(leads.max(axis=1), 0.0, 1.0)
    shade = ListedColormap(PALETTE[:n_classes])(codes.reshape(FINE, FINE))
    # Paler where the network is less certain.
    strength = 0.08 + 0.42 * sure.reshape(FINE, FINE, 1)
    picture = 1.0 - strength * (1.0 - shade[..., :3])
    extent = (xs[0], xs[-1], ys[0], ys[-1])
    axes.imshow(picture, origin="lower", extent=extent, aspect="auto", interpolation="bilinear")
    for code in range(n_classes - 1):  # the lines between the classes
        lead = leads[:, code].reshape(FINE, FINE)
        if lead.min() < 0 < lead.max():
            axes.contour(xs, ys, lead, levels=[0.0], colors=INK, linewidths=1.0)
    labels = model.classes or tuple(range(n_classes))
    _draw_rows(axes, points[:POINTS], y[:POINTS], labels)
    axes.set_xlim(extent[0], extent[1])
    axes.set_ylim(extent[2], extent[3])
    _name_axes(axes, plane, title or "Predicted class at every point")
    figure.legend(loc="outside lower center", frameon=False, ncols=min(n_classes, 6))
    return figure


def _name_axes(axes: Any, plane: Plane, title: str) -> None:
    for axis, column in zip((axes.xaxis, axes.yaxis), plane.columns, strict=True):
        axis.set_label_text(column.name)
        if column.is_date:
            as_date_axis(axis)
    n_lines = len(plane.note.splitlines())
    axes.set_title(title, fontsize=11, loc="left", pad=6.0 + 9.5 * n_lines)
    axes.text(
        0.0, 1.012, plane.note, transform=axes.transAxes, fontsize=7.5, va="bottom", color=INK
    )
    bare(axes)


def _draw_rows(axes: Any, x: np.ndarray, y: np.ndarray, labels: Sequence[Any]) -> None:
    """Draw rows (n, 2) of class codes (n,), with a colour and a mark for each class."""
    for code, label in enumerate(labels):
        part = x[y == code]
        axes.scatter(
            part[:, 0], part[:, 1], s=22, color=PALETTE[code], marker=MARKS[code],
            edgecolors="white", linewidths=0.6, label=str(label),
        )  # fmt: skip


def _check(model: Model) -> int:
    """Return the number of classes. Raises: ArgumentError for none, or more than colours."""
    net = model.network
    n_classes = max(net.n_out, 2)
    if not model.is_classifier and net.loss.name != "binary_cross_entropy":
        raise ArgumentError(f"A decision boundary needs a classifier. Received: {net!r}.")
    if n_classes > len(PALETTE):
        raise ArgumentError(
            f"A decision boundary has colours for {len(PALETTE)} classes. Received: {n_classes}. "
            "Draw a confusion matrix instead (--kind confusion), or train on rows of fewer classes."
        )
    return n_classes


def _span(values: np.ndarray) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    room = MARGIN * (high - low or 1.0)
    return np.linspace(low - room, high + room, FINE)


def _leads(model: Model, rows: np.ndarray) -> np.ndarray:
    """Return each class's margin over the best other class, (n, n_classes), at most 1.

    Of two classes it is the distance from the threshold, in parts of the largest one.
    """
    out = model.outputs(rows)
    if model.network.n_out == 1 or model.threshold is not None:
        p, t = out[:, -1:].astype(np.float64), model.threshold or 0.5
        margin = np.where(p > t, (p - t) / (1.0 - t), (p - t) / t)
        return np.concatenate([-margin, margin], axis=1)
    first, second = np.sort(out, axis=1)[:, [-1, -2]].T
    is_first = np.arange(out.shape[1]) == out.argmax(axis=1)[:, None]
    rivals = np.where(is_first, second[:, None], first[:, None])
    return np.asarray(out - rivals)
