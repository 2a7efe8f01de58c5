"""Serves the page to try a model."""

from functools import partial
from pathlib import Path

from meljax.app import page, server
from meljax.evaluation.memory import check_memory
from meljax.runs.load_model import load_model, warn_if_not_calibrated
from meljax.util import devices
from meljax.util.progress import say, warn
from meljax.workflows.answer import answer_example, answer_file, find_examples


def app(run: Path, host: str, port: int | None, browser: bool) -> None:
    """Serves the page until the process is stopped.

    Args:
      run: directory of a run.
      host: address to listen on.
      port: port to listen on; `None`: the first free one from `server.FIRST_PORT` on.
      browser: whether the page is opened in a browser.

    Raises:
      UserError: the extra is not installed, there is no model, or the address cannot be used.
    """
    page.check_extra()
    devices.set_up()
    trained = load_model(run)
    check_memory(trained.model)
    examples = find_examples(run, trained)
    with server.listen(host, port) as listener, server.uploads():
        blocks = page.layout(
            name=run.absolute().name,
            epoch=trained.epoch,
            kind=trained.model.frontend.kind,
            classes=trained.model.classes,
            answer_file=partial(answer_file, trained),
            examples=[example.text for example in examples],
            answer_example=lambda number: answer_example(trained, examples[number]),
        )
        address = server.address(listener)
        if not server.is_local(listener):
            warn("other machines can use the page too; their browsers block the microphone on it")
        warn_if_not_calibrated(trained)
        say(f"{run}: {address}  (stop with Ctrl-C)")
        server.serve(page.web_app(blocks), listener, address if browser else None)
