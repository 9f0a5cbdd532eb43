#!/usr/bin/env python3
"""Every test that the user's document names exists under that name, in the file that tests/README.md says.

With --write, the table in tests/README.md is made anew from the sources.
"""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
README = ROOT / "tests/README.md"
KINDS = {
    "unit": """spawn_creates_cgroup spawn_applies_cpu_limit spawn_applies_memory_limit spawn_returns_pid
        collect_reads_cgroup_stats collect_queries_nvidia_smi collect_parses_cmdline collect_calculates_uptime
        collect_handles_missing_gpu collect_handles_dead_process enumerate_walks_cgroup_tree
        collect_all_workers_returns_all collect_group_filters_by_group collect_instance_single_worker
        collect_handles_empty_cgroup update_workers_stores_correctly get_workers_returns_stored
        get_all_workers_flattens find_idle_workers_filters find_workers_with_model_matches
        find_workers_with_capacity_checks_vram update_workers_thread_safe cleanup_stale_removes_old_workers
        send_heartbeat_posts_to_queen send_heartbeat_includes_workers send_heartbeat_handles_collection_failure
        start_heartbeat_task_sends_every_1s stream_sends_queen_heartbeat stream_forwards_hive_telemetry
        stream_handles_broadcast_lag stream_handles_client_disconnect""",
    "integration": """test_end_to_end_telemetry_flow test_worker_dies_removed_from_registry test_scheduling_queries
        test_queen_restart_recovers test_hive_restart_clears_workers""",
    "fault": """test_nvidia_smi_timeout test_cgroup_permission_denied test_queen_5xx_error
        test_broadcast_channel_full""",
    "benchmark": """bench_collection_10_workers bench_heartbeat_payload_size bench_sse_latency
        stress_1000_workers""",
}
BEGIN, END = "<!-- named: begin -->", "<!-- named: end -->"


def sources():
    for folder in ("common", "hive", "queen", "cli", "tests"):
        for path in sorted((ROOT / folder).rglob("*.rs")):
            if "target" not in path.parts:
                yield path.relative_to(ROOT), path.read_text()


def main():
    places = {}
    for path, text in sources():
        for name in re.findall(r"\bfn (\w+)\s*[(<]", text):
            places.setdefault(name, path)
    lines = ["| name | kind | file |", "| --- | --- | --- |"]
    missing = []
    for kind, names in KINDS.items():
        for name in names.split():
            if name in places:
                lines.append(f"| `{name}` | {kind} | `{places[name]}` |")
            else:
                missing.append(name)
    table = "\n".join([BEGIN, *lines, END])
    text = README.read_text()
    written = re.sub(re.escape(BEGIN) + ".*" + re.escape(END), lambda _: table, text, flags=re.S)
    if "--write" in sys.argv:
        README.write_text(written)
    elif written != text:
        sys.exit("tests/README.md: the table is out of date; run tests/tools/named.py --write")
    if missing:
        sys.exit("no test is named " + ", ".join(missing))
    print(f"{len(lines) - 2} tests of the document are where tests/README.md says")


main()
