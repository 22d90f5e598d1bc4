"""Checks the manifests in k8s/ without a cluster.

    k8s.py check [DIR ...]          every rule on everything in k8s/, or on these folders with a kustomization
    k8s.py broken                   breaks each rule in a rendered copy, and fails where the rule does not complain
    k8s.py render NAME              what `kubectl apply` would get
    k8s.py command OVERLAY INDEX    what the pod with this index runs, as JSON

NAME is an overlay (base, cpu, gpu, kueue, s3, elastic), a file of k8s/optional without its ending, `mine`, the folder that
docs/kubernetes.md has its reader write, or `all`, all components at once. setup/k8s.sh makes the Python that this needs, with kubectl
beside it.
"""

import json
import sys

import yaml

# Nothing but the sources stays in the repository's folder.
sys.dont_write_bytecode = True

from k8s_check.breaks import broken
from k8s_check.manifests import OPTIONAL, OVERLAYS, environment, expand, load, mount, trainings
from k8s_check.rules import KUBERNETES, RULES, complaints


def check(folders):
    wrong = 0
    for name in folders or OVERLAYS + ["mine", "all"] + OPTIONAL:
        s = load(name)
        found = complaints(s)
        kinds = ", ".join(sorted({d["kind"] for d in s.own}))
        print(f"{name}: {len(s.own)} objects ({kinds}): " + ("ok" if not found else "WRONG"))
        for r, texts in found.items():
            wrong += len(texts)
            for text in texts:
                print(f"  {r}: {text}")
    print(f"k8s: {len(RULES)} rules, Kubernetes {' and '.join(KUBERNETES)}: {wrong} complaints")
    sys.exit(1 if wrong else 0)


def command(name, index):
    """What the container of one pod is given."""
    s = load(name)
    t = trainings(s)[0]
    if not 0 <= index < t.nodes:
        sys.exit(f"k8s: {name} has pods 0 to {t.nodes - 1}")
    known_values = environment(t, index)
    mounts = []
    for m in t.container["volumeMounts"]:
        source = {k: v for k, v in mount(t.pod, t.container, m["mountPath"])[1].items() if k != "name"}
        mounts.append({"path": m["mountPath"], "read_only": m.get("readOnly", False), "volume": source})
    print(json.dumps({
        "host": f"{t.host}-{index}",
        "service": t.service,
        "pods": t.nodes,
        "image": t.container["image"],
        "command": t.container["command"],
        "args": [expand(a, known_values) for a in t.container["args"]],
        "env": known_values,
        "env_from_secrets": [f["secretRef"]["name"] for f in t.container.get("envFrom", [])],
        "grace_seconds": t.pod["terminationGracePeriodSeconds"],
        "mounts": mounts,
        "config_maps": {d["metadata"]["name"]: d["data"] for d in s.of("ConfigMap")},
    }, indent=2))


def main():
    given = sys.argv[1:]
    match given:
        case ["check", *folders]:
            check(folders)
        case ["broken"]:
            broken()
        case ["render", name]:
            print(yaml.safe_dump_all(load(name).own, sort_keys=False), end="")
        case ["command", name, index] if index.isdigit():
            command(name, int(index))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
