"""Checks licences, duplicate versions and sources of all dependencies by deny.toml, where cargo-deny is missing."""
import json
import re
import subprocess
import sys
import tomllib
from collections import defaultdict


def licensed(expression, allowed):
    """Whether an SPDX expression can be satisfied with the allowed licences alone."""
    # A licence with an exception is a licence of its own; "A/B" is the old way to write "A OR B".
    joined = expression.replace("/", " OR ").replace(" WITH ", "+WITH+")
    words = re.findall(r"[()]|[^\s()]+", joined)
    operators = {"OR": "or", "AND": "and", "(": "(", ")": ")"}
    # Nothing but True, False, or, and and parentheses is left to evaluate.
    return eval(" ".join(operators.get(word, str(word.replace("+WITH+", " WITH ") in allowed)) for word in words))


def complaints(packages, rules):
    """One sentence for everything that deny.toml does not allow."""
    allowed = set(rules["licenses"]["allow"])
    skipped = {entry["crate"]: entry for entry in rules["bans"]["skip"]}
    registries = {"registry+" + url for url in rules["sources"]["allow-registry"]}
    versions = defaultdict(set)
    for package in packages:
        versions[package["name"]].add(package["version"])
        name = f"{package['name']} {package['version']}"
        if not licensed(package["license"] or "none", allowed):
            yield f"{name}: licence {package['license']!r} is not allowed"
        if package["source"] not in registries | {None}:
            yield f"{name}: comes from {package['source']}"
    for name, found in sorted(versions.items()):
        unexplained = sorted(version for version in found if f"{name}@{version}" not in skipped)
        if len(unexplained) > 1:
            yield f"{name}: versions {', '.join(unexplained)}; one of them needs a reason under [bans] skip"
    for crate, entry in skipped.items():
        name, version = crate.split("@")
        if version not in versions[name] or len(versions[name]) < 2:
            yield f"{crate}: needs no line under [bans] skip any more"
        if not entry.get("reason"):
            yield f"{crate}: has no reason under [bans] skip"


def main():
    with open("deny.toml", "rb") as file:
        rules = tomllib.load(file)
    # The same targets as cargo-deny looks at.
    targets = [word for target in rules["graph"]["targets"] for word in ("--filter-platform", target)]
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--all-features", *targets]
    told = subprocess.run(command, stdout=subprocess.PIPE)
    if told.returncode != 0:
        return told.returncode
    metadata = json.loads(told.stdout)
    resolved = {node["id"] for node in metadata["resolve"]["nodes"]}
    packages = [package for package in metadata["packages"] if package["id"] in resolved]
    found = list(complaints(packages, rules))
    print("\n".join([*found, f"{len(packages)} packages, {len(found)} complaints"]))
    return 1 if found else 0


sys.exit(main())
