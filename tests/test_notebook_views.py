"""The bar of long work in a notebook: held to what a real kernel shows."""

from pathlib import Path

import nbformat
from nbclient import NotebookClient

from dwf.notebooks import NotebookBar, facts_html, in_notebook, table_html

CELL = """
import time
from dwf.metrics import Progress
with Progress("train zoo <iris>", 10, unit="networks") as progress:
    for done in range(9):
        progress.update(done, accuracy=f"{done} %")
        time.sleep(0.05)
    progress.stop_here()
"""


def test_a_notebook_shows_one_bar_that_ends_full(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    where = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources=where).execute()
    (shown,) = notebook.cells[0].outputs
    assert shown.output_type == "display_data"
    assert "<progress value='8' max='8'>" in shown.data["text/html"]
    assert "train zoo &lt;iris&gt;" in shown.data["text/html"]
    assert shown.data["text/plain"].startswith("train zoo <iris> 100%")
    assert "networks/s" in shown.data["text/plain"] and "accuracy 8 %" in shown.data["text/plain"]


ZOO = """
import dwf
zoo = dwf.train_zoo(dwf.load_settings("zoo/iris_mlp", count=6, shard=3), ".", name="z")
zoo
"""


def test_a_zoo_that_is_trained_in_a_notebook_shows_a_bar_and_then_itself(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(ZOO)])
    where = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources=where).execute()
    bar, shown = (out.data["text/html"] for out in notebook.cells[0].outputs if "data" in out)
    assert "train zoo z <progress value='6' max='6'></progress> 100%" in bar
    assert "<b>zoo z</b>" in shown.replace("zoos/z", "z")


def test_elsewhere_there_is_no_notebook():
    assert not in_notebook()
    bar = NotebookBar("work", 3, done=0)  # before it is shown, nothing is
    bar.update(0, completed=1, rate="2/s")
    bar.stop()


def test_tables_are_html_with_their_text_as_text():
    assert "<b>zoo a&amp;b</b>" in facts_html("zoo a&b", {"rows": "<3"})
    table = table_html("report", ["networks", "n"], rows=[("a<b", "2")], words=("Fine.",))
    assert "<td style='text-align:left'>a&lt;b</td><td>2</td>" in table
    assert "<th>n</th>" in table and "<p>Fine.</p>" in table
