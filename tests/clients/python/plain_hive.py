"""A hive in plain Python: registers, then pushes a snapshot of rows each second. Nothing else is asked of a hive."""
import threading
import time
import uuid

PERIOD_SECONDS = 1
STREAM_SECONDS = 60


class PlainHive:
    """One session; `rows` may be replaced at any time and is what the next snapshot says."""

    def __init__(self, queen, hive_id, gpus=()):
        self.queen = queen
        self.hive = queen.message(
            "Hive",
            id=hive_id,
            hostname="plain",
            advertise="127.0.0.1",
            version="0",
            boot_id=str(uuid.uuid4()),
            slice="plain.slice",
            operational_status=queen.number("OperationalStatus", "OPERATIONAL_STATUS_READY"),
            health_status=queen.number("HealthStatus", "HEALTH_STATUS_HEALTHY"),
            gpus=gpus,
        )
        self.rows = []
        self.stopping = threading.Event()

    def register(self):
        self.born = time.monotonic()
        self.session = self.queen.call("HiveService/Register", hive=self.hive, journal_id="plain").session
        return self

    def row(self, slot, instance, group="py", model=None, **stats):
        spec = self.queen.message(
            "WorkerSpec",
            hive=self.hive.id,
            group=group,
            instance=instance,
            pid=1000 + slot,
            origin=self.queen.number("Origin", "ORIGIN_STARTED"),
            **({"model": model, "model_names": [model]} if model else {}),
        )
        spec.start_time.GetCurrentTime()
        stats = {"activity": self.queen.number("Activity", "ACTIVITY_IDLE")} | stats
        return self.queen.message(
            "WorkerRow",
            slot=slot,
            spec=spec,
            state=self.queen.number("WorkerState", "WORKER_STATE_RUNNING"),
            stats=self.queen.message("ProcessStats", **stats),
        )

    def frames(self):
        sequence = 0
        while not self.stopping.is_set():
            sequence += 1
            frame = self.queen.message(
                "PushTelemetryRequest",
                session=self.session,
                sequence=sequence,
                monotonic_ms=int((time.monotonic() - self.born) * 1000),
                snapshot=self.queen.message("Snapshot", rows=self.rows, last=True),
            )
            frame.sampled_at.GetCurrentTime()
            yield frame
            self.stopping.wait(PERIOD_SECONDS)

    def push(self):
        """Starts the stream; its result is the queen's summary."""
        call, _ = self.queen.method("HiveService/PushTelemetry")
        self.stream = call.future(self.frames(), timeout=STREAM_SECONDS)
        return self.stream

    def end(self):
        """Ends the stream and gives the summary back."""
        self.stopping.set()
        return self.stream.result(timeout=STREAM_SECONDS)
