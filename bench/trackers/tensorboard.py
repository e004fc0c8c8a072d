"""TensorBoard: event files in RESULTS/<suite>/tensorboard/<job id>, written without torch or TensorFlow."""

from __future__ import annotations

import time
from collections.abc import Mapping

from bench.records import safe_files
from bench.trackers import Run, Tracker


class TensorBoard(Tracker):
    """Log to a folder of the run's own."""

    package = "tensorboard"

    def __init__(self, run: Run) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        root = run.folder / "tensorboard"
        safe_files.own_folder(root)
        safe_files.own_folder(root / run.name)
        self.id = run.name
        self._writer = EventFileWriter(str(root / run.name))
        if run.known_as is None:  # what an earlier run of this name left is not shown
            start = SessionLog(status=SessionLog.START)
            self._writer.add_event(Event(wall_time=time.time(), step=0, session_log=start))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        figures = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._writer.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=figures)))

    def finish(self, complete: bool) -> None:
        self._writer.close()
