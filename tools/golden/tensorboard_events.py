"""Records as TensorBoard writes them, for tensorboard.test.ts: `pip install tensorboard==2.21.0`, then `python tensorboard_events.py`"""

import io

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

for event in (
    Event(wall_time=1.5, file_version="brain.Event:2"),
    Event(wall_time=1.5, step=300, summary=Summary(value=[
        Summary.Value(tag="train/loss", simple_value=2.5), Summary.Value(tag="load/expert_0", simple_value=0.25)])),
):
    out = io.BytesIO()
    RecordWriter(out).write(event.SerializeToString())
    print(out.getvalue().hex())
