"""A `grpcurl` against a running fleet: what reflection tells, calls, and a watch."""
import json
import os
import subprocess
import threading
import unittest

from fleet import WORKERS, documents, name

HIVE = os.environ["RBEE_HIVE"]
DEADLINE_SECONDS = 10
# grpcurl ends by itself at its deadline; this is for one that does not.
HANG_SECONDS = 30
SERVICES = ["rbee.v1.FleetService", "rbee.v1.HiveService", "rbee.v1.SchedulerService", "grpc.health.v1.Health"]


def grpcurl(*words, request=None):
    command = [os.environ["GRPCURL"], "-plaintext", "-max-time", str(DEADLINE_SECONDS)]
    if request is not None:
        command += ["-d", json.dumps(request)]
    return subprocess.run(
        [*command, os.environ["RBEE_ADDR"], *words], capture_output=True, text=True, timeout=HANG_SECONDS
    )


def until_moving(lines):
    """The events of a watch up to its first update and bookmark after the snapshot, or all there are."""
    events, text, missing = [], "", {"snapshotEnd", "update", "bookmark"}
    for line in lines:
        text += line
        if line.startswith("}"):
            events += documents(text)
            text = ""
            kind = next(iter(events[-1]))
            if kind == "snapshotEnd" or "snapshotEnd" not in missing:
                missing.discard(kind)
        if not missing:
            break
    return events


class Grpcurl(unittest.TestCase):
    def tell(self, *words, request=None):
        done = grpcurl(*words, request=request)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def test_every_service_is_listed(self):
        listed = self.tell("list").split()
        for service in SERVICES:
            self.assertIn(service, listed)
        methods = self.tell("list", "rbee.v1.SchedulerService")
        for method in ["FindIdleWorkers", "FindWorkersWithModel", "FindWorkersWithCapacity"]:
            self.assertIn(method, methods)

    def test_methods_and_messages_are_described(self):
        self.assertIn("stream .rbee.v1.WatchResponse", self.tell("describe", "rbee.v1.FleetService"))
        described = self.tell("describe", "rbee.v1.ProcessStats")
        for field in ["cpu_pct", "memory_current_bytes", "gpu_util_pct", "vram_bytes"]:
            self.assertIn(field, described)

    def test_every_worker_is_listed(self):
        request = {"filter": {"hive": HIVE}}
        answer = json.loads(self.tell("rbee.v1.FleetService/ListWorkers", request=request))
        listed = {name(worker): worker["spec"]["model"] for worker in answer["workers"]}
        self.assertEqual(listed, {f"{HIVE}/{group}/{instance}": model for group, instance, model, _, _ in WORKERS})
        for worker in answer["workers"]:
            self.assertIn("cpuPct", worker["stats"])
            self.assertGreater(int(worker["stats"]["memoryCurrentBytes"]), 0)

    def test_a_model_is_found_by_its_exact_name_only(self):
        method = "rbee.v1.SchedulerService/FindWorkersWithModel"
        options = {"filter": {"hive": HIVE}}
        answer = json.loads(self.tell(method, request={"options": options, "model": "llama-3.2-1b"}))
        self.assertEqual([name(worker) for worker in answer["workers"]], [f"{HIVE}/llm/8080"])
        answer = json.loads(self.tell(method, request={"options": options, "model": "llama"}))
        self.assertEqual(answer.get("workers", []), [])
        glob = {"options": options, "model": "llama*", "match": "MODEL_MATCH_GLOB"}
        answer = json.loads(self.tell(method, request=glob))
        self.assertEqual([name(worker) for worker in answer["workers"]], [f"{HIVE}/llm/8080"])

    def test_watch_shows_the_fleet_and_then_what_moves(self):
        request = json.dumps({"filter": {"hive": HIVE}})
        # This grpcurl's -max-time ends at the response's headers, so a stream that never ends is ended here.
        command = [os.environ["GRPCURL"], "-plaintext", "-d", request, os.environ["RBEE_ADDR"]]
        watch = subprocess.Popen([*command, "rbee.v1.FleetService/Watch"], stdout=subprocess.PIPE, text=True)
        end = threading.Timer(HANG_SECONDS, watch.kill)
        end.start()
        try:
            events = until_moving(watch.stdout)
        finally:
            end.cancel()
            watch.kill()
            watch.communicate()
        kinds = [next(iter(event)) for event in events]
        self.assertEqual(kinds[0], "snapshotBegin")
        self.assertIn("snapshotEnd", kinds)
        end = kinds.index("snapshotEnd")
        shown = {name(worker) for event in events[:end] for worker in event.get("update", {}).get("workers", [])}
        self.assertEqual(shown, {f"{HIVE}/{group}/{instance}" for group, instance, *_ in WORKERS})
        self.assertLessEqual({"update", "bookmark"}, set(kinds[end:]))
        bookmark = next(event["bookmark"] for event in events[end:] if "bookmark" in event)
        self.assertGreaterEqual(bookmark["workersOnline"], len(WORKERS))

    def test_a_bad_filter_is_refused(self):
        done = grpcurl("rbee.v1.FleetService/ListWorkers", request={"filter": {"group": "../x"}})
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("InvalidArgument", done.stderr)
        self.assertIn("group", done.stderr)


if __name__ == "__main__":
    unittest.main()
