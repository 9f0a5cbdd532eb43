"""Python grpcio against a running fleet with no generated code: as scheduler, as watcher, as a hive."""
import math
import os
import time
import unittest

import grpc
from fleet import WORKERS
from grpc_health.v1 import health_pb2, health_pb2_grpc

from plain_hive import PlainHive
from queen import DEADLINE_SECONDS, Queen, name

HIVE = os.environ["RBEE_HIVE"]
GIB = 1 << 30
# Two rounds of samples, with room for a busy machine.
VISIBLE_SECONDS = 8
POLL_SECONDS = 0.1


class AgainstTheQueen(unittest.TestCase):
    def setUp(self):
        self.queen = Queen()
        self.addCleanup(self.queen.close)

    def options(self, hive=HIVE, **more):
        return self.queen.message("FindOptions", filter=self.queen.message("Filter", hive=hive, **more))

    def eventually(self, look, expected):
        """Asks again until the answer is the expected one."""
        deadline = time.monotonic() + VISIBLE_SECONDS
        while (seen := look()) != expected and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        self.assertEqual(seen, expected)

    def refused(self, code, call):
        with self.assertRaises(grpc.RpcError) as refusal:
            call()
        self.assertEqual(refusal.exception.code(), code, refusal.exception.details())
        return refusal.exception.details()


class Scheduler(AgainstTheQueen):
    def test_reflection_names_every_service(self):
        services = {"rbee.v1.FleetService", "rbee.v1.SchedulerService", "rbee.v1.HiveService", "grpc.health.v1.Health"}
        self.assertLessEqual(services, self.queen.services())

    def test_the_queen_is_healthy(self):
        health = health_pb2_grpc.HealthStub(self.queen.channel)
        for service in ["", "rbee.v1.FleetService", "rbee.v1.SchedulerService"]:
            answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=DEADLINE_SECONDS)
            self.assertEqual(answer.status, health_pb2.HealthCheckResponse.SERVING, service)

    def test_every_worker_is_listed_with_its_numbers(self):
        answer = self.queen.call("FleetService/ListWorkers", filter=self.queen.message("Filter", hive=HIVE))
        self.assertEqual([name(w) for w in answer.workers], sorted(f"{HIVE}/{g}/{i}" for g, i, *_ in WORKERS))
        ports = {f"{HIVE}/{group}/{instance}": port for group, instance, _, port, _ in WORKERS}
        for worker in answer.workers:
            self.assertGreater(worker.spec.pid, 0)
            self.assertEqual(worker.spec.endpoint.port, ports[name(worker)])
            self.assertTrue(worker.stats.HasField("cpu_pct"))
            self.assertGreater(worker.stats.memory_current_bytes, 0)
            self.assertTrue(worker.HasField("age"))

    def test_idle_workers_are_found(self):
        answer = self.queen.call("SchedulerService/FindIdleWorkers", options=self.options())
        idle = {f"{HIVE}/{group}/{instance}" for group, instance, _, _, share in WORKERS if share == 0}
        self.assertEqual({name(worker) for worker in answer.workers}, idle)

    def test_a_model_is_found_by_its_exact_name_only(self):
        def found(model, **more):
            method = "SchedulerService/FindWorkersWithModel"
            return [name(w) for w in self.queen.call(method, options=self.options(), model=model, **more).workers]

        self.assertEqual(found("qwen2.5-7b"), [f"{HIVE}/llm/8081"])
        self.assertEqual(found("qwen2.5-7b", idle=True), [f"{HIVE}/llm/8081"])
        self.assertEqual(found("qwen"), [])
        self.assertEqual(found("Qwen2.5-7B"), [])
        self.assertEqual(
            found("Qwen2.5-7B", match=self.queen.number("ModelMatch", "MODEL_MATCH_IGNORE_CASE")),
            [f"{HIVE}/llm/8081"],
        )

    def test_where_there_is_no_gpu_nobody_has_capacity(self):
        hive = self.queen.call("FleetService/GetHive", id=HIVE).hive
        if hive.gpus:
            self.skipTest("this machine has a GPU")
        method = "SchedulerService/FindWorkersWithCapacity"
        answer = self.queen.call(method, options=self.options(), required_vram_bytes=1)
        self.assertEqual(list(answer.workers), [])

    def test_a_bad_filter_is_refused_by_the_name_of_its_field(self):
        for field in ["hive", "group", "instance"]:
            with self.subTest(field):
                bad = self.queen.message("Filter", **{field: "../x"})
                call = lambda: self.queen.call("FleetService/ListWorkers", filter=bad)
                self.assertIn(field, self.refused(grpc.StatusCode.INVALID_ARGUMENT, call))


class Watcher(AgainstTheQueen):
    def test_a_watch_is_a_snapshot_and_then_what_moves(self):
        watch = self.queen.call(
            "FleetService/Watch", timeout=4 * DEADLINE_SECONDS, filter=self.queen.message("Filter", hive=HIVE)
        )
        self.addCleanup(watch.cancel)
        first = next(watch)
        self.assertEqual(first.WhichOneof("event"), "snapshot_begin")
        initial = self.queen.number("SnapshotReason", "SNAPSHOT_REASON_INITIAL")
        self.assertEqual(first.snapshot_begin.reason, initial)
        shown, later = {}, set()
        for event in watch:
            if event.WhichOneof("event") == "snapshot_end":
                self.assertTrue(event.snapshot_end.revision)
                break
            shown |= {name(worker): worker.spec.model for worker in event.update.workers}
        self.assertEqual(shown, {f"{HIVE}/{group}/{instance}": model for group, instance, model, _, _ in WORKERS})
        for event in watch:
            later.add(event.WhichOneof("event"))
            if {"update", "bookmark"} <= later:
                break
        self.assertEqual(later, {"update", "bookmark"})

    def test_a_watch_resumes_where_it_was(self):
        method, only = "FleetService/Watch", self.queen.message("Filter", hive=HIVE)
        watch = self.queen.call(method, timeout=2 * DEADLINE_SECONDS, filter=only)
        revision = next(event.snapshot_end.revision for event in watch if event.HasField("snapshot_end"))
        watch.cancel()
        watch = self.queen.call(method, timeout=2 * DEADLINE_SECONDS, filter=only, resume_after=revision)
        self.addCleanup(watch.cancel)
        self.assertIn(next(watch).WhichOneof("event"), {"update", "bookmark"})


class Hive(AgainstTheQueen):
    def start(self, hive_id, gpus=(), rows=lambda hive: []):
        hive = PlainHive(self.queen, hive_id, gpus).register()
        hive.rows = rows(hive)
        hive.push()
        self.addCleanup(hive.stopping.set)
        return hive

    def with_model(self, hive, model):
        method = "SchedulerService/FindWorkersWithModel"
        return [name(w) for w in self.queen.call(method, options=self.options(hive), model=model).workers]

    def test_snapshots_alone_are_enough_to_be_found(self):
        hive = self.start("py-snapshots", rows=lambda hive: [hive.row(1, "1", model="mistral-7b", cpu_pct=1.5)])
        self.eventually(lambda: self.with_model("py-snapshots", "mistral-7b"), ["py-snapshots/py/1"])
        worker = self.queen.call("FleetService/GetWorker", name="py-snapshots/py/1").worker
        self.assertAlmostEqual(worker.stats.cpu_pct, 1.5)
        self.assertFalse(worker.stats.HasField("gpu_util_pct"))
        hive.rows = []
        self.eventually(lambda: self.with_model("py-snapshots", "mistral-7b"), [])
        summary = hive.end()
        self.assertGreaterEqual(summary.frames_accepted, 2)
        self.assertEqual(summary.frames_refused, 0)
        self.assertEqual(summary.fields_dropped, 0)

    def test_a_number_that_is_none_is_dropped_and_the_rest_is_kept(self):
        def rows(hive):
            bad = dict(cpu_pct=math.nan, gpu_util_pct=-1.0, io_read_bytes_per_second=math.inf, rss_bytes=GIB)
            return [hive.row(1, "bad", model="nan", **bad), hive.row(2, "good", model="nan", cpu_pct=2.0)]

        hive = self.start("py-nan", rows=rows)
        self.eventually(lambda: self.with_model("py-nan", "nan"), ["py-nan/py/bad", "py-nan/py/good"])
        bad = self.queen.call("FleetService/GetWorker", name="py-nan/py/bad").worker.stats
        for field in ["cpu_pct", "gpu_util_pct", "io_read_bytes_per_second"]:
            self.assertFalse(bad.HasField(field), field)
        self.assertEqual(bad.rss_bytes, GIB)
        good = self.queen.call("FleetService/GetWorker", name="py-nan/py/good").worker.stats
        self.assertEqual(good.cpu_pct, 2.0)
        self.assertGreaterEqual(hive.end().fields_dropped, 3)

    def test_capacity_counts_the_gpu_that_a_worker_uses(self):
        gpu = self.queen.message("Gpu", uuid="GPU-py", name="plain", memory_total_bytes=24 * GIB, memory_used_bytes=8 * GIB)

        def rows(hive):
            use = self.queen.message("GpuUse", uuid="GPU-py", util_pct=0.0, vram_bytes=8 * GIB)
            ok = self.queen.number("GpuSampleState", "GPU_SAMPLE_STATE_OK")
            numbers = dict(gpu_util_pct=0.0, vram_bytes=8 * GIB, vram_total_bytes=24 * GIB)
            return [hive.row(1, "1", model="on-gpu", gpus=[use], gpu_sample_state=ok, **numbers)]

        def with_room(required):
            method, options = "SchedulerService/FindWorkersWithCapacity", self.options("py-gpu")
            return [name(w) for w in self.queen.call(method, options=options, required_vram_bytes=required).workers]

        self.start("py-gpu", [gpu], rows)
        self.eventually(lambda: with_room(15 * GIB), ["py-gpu/py/1"])
        # used + required < total: not at equality, which is 16 GiB.
        self.assertEqual(with_room(16 * GIB), [])
        self.assertEqual(with_room(16 * GIB - 4096), ["py-gpu/py/1"])
        basis = self.queen.number("IdleBasis", "IDLE_BASIS_GPU")
        idle = self.queen.call("SchedulerService/FindIdleWorkers", options=self.options("py-gpu"), basis=basis)
        self.assertEqual([name(worker) for worker in idle.workers], ["py-gpu/py/1"])

    def test_a_bad_hive_name_is_refused(self):
        for bad in ["../x", "", "UPPER", "x" * 65, "cpu.max"]:
            with self.subTest(bad):
                self.refused(grpc.StatusCode.INVALID_ARGUMENT, PlainHive(self.queen, bad).register)

    def test_a_bad_worker_name_is_refused(self):
        hive = self.start("py-bad-name", rows=lambda hive: [hive.row(1, "1", group="../x")])
        details = self.refused(grpc.StatusCode.INVALID_ARGUMENT, lambda: hive.stream.result(timeout=DEADLINE_SECONDS))
        self.assertIn("group", details)

    def test_a_newer_session_ends_the_older_one(self):
        older = self.start("py-twice", rows=lambda hive: [hive.row(1, "old", model="twice")])
        self.eventually(lambda: self.with_model("py-twice", "twice"), ["py-twice/py/old"])
        newer = PlainHive(self.queen, "py-twice")
        newer.hive.boot_id = older.hive.boot_id
        newer.register().rows = [newer.row(1, "new", model="twice")]
        self.addCleanup(newer.stopping.set)
        newer.push()
        self.refused(grpc.StatusCode.ABORTED, lambda: older.stream.result(timeout=DEADLINE_SECONDS))
        self.eventually(lambda: self.with_model("py-twice", "twice"), ["py-twice/py/new"])

    def test_a_hive_alive_from_another_boot_is_refused(self):
        self.start("py-twin", rows=lambda hive: [hive.row(1, "1", model="twin")])
        self.eventually(lambda: self.with_model("py-twin", "twin"), ["py-twin/py/1"])
        twin = PlainHive(self.queen, "py-twin")
        self.assertIn("py-twin", self.refused(grpc.StatusCode.ALREADY_EXISTS, twin.register))


if __name__ == "__main__":
    unittest.main()
