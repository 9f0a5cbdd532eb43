"""`buf curl` against a running fleet: gRPC and grpc-web, schema by reflection and from the .proto files."""
import json
import os
import subprocess
import unittest

from fleet import WORKERS, documents, name

HIVE = os.environ["RBEE_HIVE"]
DEADLINE = "10s"
# buf ends by itself at its deadline; this is for a buf that does not.
HANG_SECONDS = 30
# buf's exit status is the gRPC code, shifted by three bits.
INVALID_ARGUMENT = 3 << 3
DEADLINE_EXCEEDED = 4 << 3
NOT_FOUND = 5 << 3

REFLECTED = {
    "grpc": ["--http2-prior-knowledge", "--protocol", "grpc"],
    "grpc-web": ["--http2-prior-knowledge", "--protocol", "grpcweb"],
}
# Without reflection there is nothing that needs h2, so this is grpc-web as a browser without TLS speaks it.
EVERY_WAY = REFLECTED | {"grpc-web over HTTP/1.1": ["--schema", "proto", "--protocol", "grpcweb"]}


def curl(method, request, flags, deadline=DEADLINE):
    url = f"{os.environ['RBEE_URL']}/rbee.v1.{method}"
    command = [os.environ["BUF"], "curl", "--timeout", deadline, *flags, "-d", json.dumps(request), url]
    return subprocess.run(command, capture_output=True, text=True, timeout=HANG_SECONDS)


class BufCurl(unittest.TestCase):
    def ask(self, method, request, flags):
        done = curl(method, request, flags)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def test_idle_workers_are_answered(self):
        idle = {f"{HIVE}/{group}/{instance}" for group, instance, _, _, share in WORKERS if share == 0}
        for way, flags in EVERY_WAY.items():
            with self.subTest(way):
                answer = self.ask("SchedulerService/FindIdleWorkers", {"options": {"filter": {"hive": HIVE}}}, flags)
                self.assertEqual({name(worker) for worker in answer["workers"]}, idle)
                for worker in answer["workers"]:
                    self.assertEqual(worker["stats"]["activity"], "ACTIVITY_IDLE")
                    self.assertIn("endpoint", worker["spec"])
                    self.assertIn("age", worker)
                self.assertGreaterEqual(answer["coverage"]["hivesLive"], 1)
                self.assertTrue(answer["revision"])

    def test_the_filter_narrows_the_idle_workers(self):
        request = {"options": {"filter": {"hive": HIVE, "model": "bge-small-en"}}}
        for way, flags in EVERY_WAY.items():
            with self.subTest(way):
                answer = self.ask("SchedulerService/FindIdleWorkers", request, flags)
                self.assertEqual([name(worker) for worker in answer["workers"]], [f"{HIVE}/embed/1"])

    def test_every_worker_is_listed_in_the_order_of_names(self):
        expected = sorted((f"{HIVE}/{group}/{instance}", model) for group, instance, model, _, _ in WORKERS)
        for way, flags in EVERY_WAY.items():
            with self.subTest(way):
                answer = self.ask("FleetService/ListWorkers", {"filter": {"hive": HIVE}}, flags)
                self.assertEqual([(name(worker), worker["spec"]["model"]) for worker in answer["workers"]], expected)
                for worker in answer["workers"]:
                    self.assertGreater(worker["spec"]["pid"], 0)
                    self.assertEqual(worker["state"], "WORKER_STATE_RUNNING")
                    self.assertEqual(worker["freshness"], "FRESHNESS_LIVE")

    def test_pages_follow_one_another_without_gap(self):
        request, seen = {"filter": {"hive": HIVE}, "pageSize": 1}, []
        for _ in WORKERS:
            answer = self.ask("FleetService/ListWorkers", request, REFLECTED["grpc"])
            seen += [name(worker) for worker in answer["workers"]]
            request["pageToken"] = answer.get("nextPageToken", "")
        self.assertEqual(seen, sorted(f"{HIVE}/{group}/{instance}" for group, instance, *_ in WORKERS))
        self.assertEqual(request["pageToken"], "")

    def test_a_bad_filter_is_refused_by_the_name_of_its_field(self):
        requests = {
            "SchedulerService/FindIdleWorkers": {"options": {"filter": {"group": "../x"}}},
            "FleetService/ListWorkers": {"filter": {"group": "../x"}},
        }
        for way, flags in EVERY_WAY.items():
            for method, request in requests.items():
                with self.subTest(way, method=method):
                    done = curl(method, request, flags)
                    self.assertEqual(done.returncode, INVALID_ARGUMENT, done.stdout + done.stderr)
                    self.assertIn("group", done.stderr)

    def test_an_unknown_worker_is_not_found(self):
        for way, flags in EVERY_WAY.items():
            with self.subTest(way):
                done = curl("FleetService/GetWorker", {"name": f"{HIVE}/llm/none"}, flags)
                self.assertEqual(done.returncode, NOT_FOUND, done.stdout + done.stderr)

    def test_watch_streams_a_snapshot_and_then_bookmarks(self):
        for way, flags in EVERY_WAY.items():
            with self.subTest(way):
                done = curl("FleetService/Watch", {"filter": {"hive": HIVE}}, flags, deadline="6s")
                self.assertEqual(done.returncode, DEADLINE_EXCEEDED, done.stderr)
                events = documents(done.stdout)
                kinds = [next(iter(event)) for event in events]
                self.assertEqual(kinds[0], "snapshotBegin")
                end = kinds.index("snapshotEnd")
                shown = {name(worker) for event in events[:end] for worker in event.get("update", {}).get("workers", [])}
                self.assertEqual(shown, {f"{HIVE}/{group}/{instance}" for group, instance, *_ in WORKERS})
                self.assertIn("bookmark", kinds[end:])


if __name__ == "__main__":
    unittest.main()
