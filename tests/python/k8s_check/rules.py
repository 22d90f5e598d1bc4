"""What must hold of manifests. Each rule is a function that yields what is wrong; its first line says what it asks for."""

import functools
import json
import re
from pathlib import Path

import kubernetes_validate
import kubernetes_validate.utils

from . import fields
from .manifests import (
    COMPONENT, INSTANCE, MIB, NAME, ROOT, arguments, config_of, containers, environment, expand, file_keys, gpus, label, labels_of,
    jobsets, launches, limit, load, mount, pods, quantity, selects, trainings, volume_kind,
)

# The oldest that the manifests are for, and the newest that the schemas know.
KUBERNETES = ["1.31", "1.37"]
QUEUE = "kueue.x-k8s.io/queue-name"
AGENT_PORT = 7078
# Seconds that the launcher needs besides the workers' grace period, to end them and itself.
LAUNCHER_ENDS = 15
RULES = {}


def rule(function):
    RULES[function.__name__] = function
    return function


kubernetes_validate.utils.schema_contents = functools.cache(kubernetes_validate.utils.schema_contents)


@functools.cache
def against_schema(text):
    """Complaints about one object of Kubernetes' own, given as JSON."""
    d, wrong = json.loads(text), []
    for version in KUBERNETES:
        try:
            kubernetes_validate.validate(d, version, strict=True)
        except kubernetes_validate.ValidationError as e:
            wrong.append(f"Kubernetes {version}: {'.'.join(map(str, e.path))}: {e.message[:200]}")
        except kubernetes_validate.SchemaNotFoundError as e:
            wrong.append(e.message)
    return wrong


def is_kubernetes(d):
    return d["apiVersion"].split("/")[0] in ("v1", "apps", "batch", "networking.k8s.io")


@rule
def schemas(s):
    """Strictly what the API's schemas say."""
    for d in s.own:
        if is_kubernetes(d):
            for wrong in against_schema(json.dumps(d)):
                yield f"{d['kind']} {d['metadata']['name']}: {wrong}"


def against_fields(value, kind, path):
    if kind == fields.ANY:
        return
    if isinstance(kind, dict):
        if not isinstance(value, dict):
            yield f"{path}: no object"
            return
        if set(kind) == {""}:
            yield from (w for k, v in value.items() for w in against_fields(v, kind[""], f"{path}.{k}"))
            return
        names = {k.rstrip("!"): v for k, v in kind.items()}
        yield from (f"{path}: no field {k}" for k in value.keys() - names.keys())
        yield from (f"{path}: {k[:-1]} is missing" for k in kind if k.endswith("!") and k[:-1] not in value)
        for k in value.keys() & names.keys():
            yield from against_fields(value[k], names[k], f"{path}.{k}")
    elif isinstance(kind, list):
        if not isinstance(value, list):
            yield f"{path}: no list"
            return
        for i, v in enumerate(value):
            yield from against_fields(v, kind[0], f"{path}[{i}]")
    elif isinstance(kind, set):
        if value not in kind:
            yield f"{path}: {value!r} is none of {', '.join(sorted(kind))}"
    elif kind == fields.TEXT and not isinstance(value, str):
        yield f"{path}: no text"
    elif kind == fields.WHOLE and (not isinstance(value, int) or isinstance(value, bool)):
        yield f"{path}: no whole number"
    elif kind == fields.FLAG and not isinstance(value, bool):
        yield f"{path}: neither true nor false"
    elif kind == fields.QUANTITY and not re.fullmatch(r"[0-9.]+(m|k|[MGT]i?|Ki)?", str(value)):
        yield f"{path}: no quantity"
    elif kind in (fields.POD, fields.JOB, fields.SELECTOR, fields.RESOURCES, fields.ENV):
        yield from (f"{path}: {w}" for w in against_schema(json.dumps(wrapped(value, kind))))


def wrapped(value, kind):
    """A part that Kubernetes has a type for, in an object of its own, so that there is a schema for it."""
    container = {"name": "any"}
    if kind == fields.JOB:
        return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "any"}, "spec": value}
    if kind == fields.SELECTOR:
        spec = {"podSelector": value}
        return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "any"}, "spec": spec}
    if kind == fields.RESOURCES:
        value = {"spec": {"containers": [container | {"resources": value}]}}
    elif kind == fields.ENV:
        value = {"spec": {"containers": [container | {"env": value}]}}
    return {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "any"}, "template": value}


@rule
def operators(s):
    """Objects of operators have the fields that these publish, and no others."""
    for d in s.own:
        if is_kubernetes(d):
            continue
        where = f"{d['kind']} {d['metadata']['name']}"
        kind = fields.KINDS.get((d["apiVersion"], d["kind"]))
        if kind is None:
            yield f"{where}: {d['apiVersion']} is not known"
            continue
        yield from (f"{where}: no field {k}" for k in d.keys() - {"apiVersion", "kind", "metadata", "spec"})
        yield from against_fields(d.get("spec", {}), kind, f"{where}: spec")


@rule
def accepted(s):
    """What the API server refuses besides: names, ports, mounts, requests, and rules that go with others."""
    for d in s.own:
        name = d["metadata"]["name"]
        if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", name):
            yield f"{d['kind']} {name}: no name"
    for where, template in pods(s):
        pod = template["spec"]
        volumes = [v["name"] for v in pod.get("volumes", [])]
        if len(set(volumes)) != len(volumes):
            yield f"{where}: two volumes of one name"
        ports = {p.get("name") for c in containers(pod) for p in c.get("ports", [])}
        for c in containers(pod):
            paths = [m["mountPath"] for m in c.get("volumeMounts", [])]
            if len(set(paths)) != len(paths):
                yield f"{where}: two mounts at one path"
            yield from (f"{where}: no volume {m['name']}" for m in c.get("volumeMounts", []) if m["name"] not in volumes)
            for probe in (c[k] for k in ("startupProbe", "readinessProbe", "livenessProbe") if k in c):
                port = (probe.get("httpGet") or probe.get("tcpSocket"))["port"]
                if isinstance(port, str) and port not in ports:
                    yield f"{where}: a probe asks for port {port}, which has no such name"
            limits = c.get("resources", {}).get("limits", {})
            for key, value in c.get("resources", {}).get("requests", {}).items():
                if key in limits and quantity(value) > quantity(limits[key]):
                    yield f"{where}: more {key} requested than allowed"
    for t in trainings(s):
        if len(f"{t.host}-{t.nodes - 1}") > 63:
            yield f"{t.where}: the pods' host names are longer than 63"
        names = {c["name"] for c in t.pod["containers"]}
        for r in t.job.get("podFailurePolicy", {}).get("rules", []):
            codes = r.get("onExitCodes", {})
            if codes.get("containerName") not in names | {None}:
                yield f"{t.where}: podFailurePolicy names a container that is not there"
            if codes.get("values", []) != sorted(set(codes.get("values", []))) or 0 in codes.get("values", []):
                yield f"{t.where}: exit codes of podFailurePolicy must be in order, each once, without 0"


@rule
def labels(s):
    """Everything has the project's labels, so that one selector finds it."""
    for d in s.own:
        if label(d, NAME) != "jcs":
            yield f"{d['kind']} {d['metadata']['name']}: {NAME} is not jcs"
    for where, template in pods(s):
        if labels_of(template).get(NAME) != "jcs" or not labels_of(template).get(COMPONENT) or not labels_of(template).get(INSTANCE):
            yield f"{where}: its pods lack {NAME}, {INSTANCE} or {COMPONENT}"


@rule
def references(s):
    """Whatever pods name is there: ConfigMaps, claims, accounts; Secrets are made by commands of docs/kubernetes.md."""
    for where, template in pods(s):
        pod = template["spec"]
        secrets = [v["secret"]["secretName"] for v in pod.get("volumes", []) if "secret" in v]
        for c in containers(pod):
            secrets += [f["secretRef"]["name"] for f in c.get("envFrom", []) if "secretRef" in f]
            secrets += [e["valueFrom"]["secretKeyRef"]["name"] for e in c.get("env", []) if "secretKeyRef" in e.get("valueFrom", {})]
        for secret in secrets:
            if f"create secret generic {secret} " not in s.text:
                yield f"{where}: docs/kubernetes.md does not make the Secret {secret}"
        for v in pod.get("volumes", []):
            if "configMap" in v and not s.named("ConfigMap", v["configMap"]["name"]):
                yield f"{where}: no ConfigMap {v['configMap']['name']}"
            if "persistentVolumeClaim" in v and not s.named("PersistentVolumeClaim", v["persistentVolumeClaim"]["claimName"]):
                yield f"{where}: no claim {v['persistentVolumeClaim']['claimName']}"
        if not s.named("ServiceAccount", pod.get("serviceAccountName", "")):
            yield f"{where}: no ServiceAccount {pod.get('serviceAccountName')}"
    for d in s.of("PersistentVolumeClaim"):
        if d["spec"]["accessModes"] != ["ReadWriteMany"]:
            yield f"claim {d['metadata']['name']}: pods on several nodes mount it, so it must be ReadWriteMany"
    for d in (d for d in s.own if d["kind"] == "TrainJob"):
        ref = d["spec"]["runtimeRef"]
        if not s.named(ref.get("kind", "ClusterTrainingRuntime"), ref["name"]):
            yield f"TrainJob {d['metadata']['name']}: no runtime {ref['name']}"


@rule
def no_secrets(s):
    """Nothing secret is rendered, and nothing that looks like it stands in a variable or argument."""
    yield from (f"a Secret is rendered: {d['metadata']['name']}" for d in s.of("Secret"))
    for where, template in pods(s):
        for c in containers(template["spec"]):
            for e in c.get("env", []):
                if re.search("SECRET|TOKEN|PASSWORD|ACCESS_KEY", e["name"]) and e.get("value"):
                    yield f"{where}: {e['name']} has a value"


@rule
def service(s):
    """A headless Service, with the subdomain's name, selects the pods of the training and no others, before they are ready."""
    for t in trainings(s):
        if t.kind != "Job":
            continue
        found = s.named("Service", t.service)
        if not found:
            yield f"{t.where}: subdomain {t.service!r} is no Service"
            continue
        spec = found["spec"]
        if not selects(spec.get("selector", {"none": ""}), labels_of(t.template)) or not spec.get("selector"):
            yield f"Service {t.service} does not select the pods"
        yield from (f"Service {t.service} selects pods of {where}" for where, other in pods(s)
                    if where != t.where and selects(spec.get("selector", {}), labels_of(other)))
        if spec.get("clusterIP") != "None":
            yield f"Service {t.service} is not headless"
        if spec.get("publishNotReadyAddresses") is not True:
            yield f"Service {t.service} publishes pods only when they are ready"
        if [p["port"] for p in spec.get("ports", [])] != [AGENT_PORT]:
            yield f"Service {t.service} has another port than the agent's"
    for where, spec in jobsets(s):
        network = spec.get("network", {})
        if network.get("enableDNSHostnames") is not True or network.get("publishNotReadyAddresses") is False:
            yield f"{where}: its pods have no names before they are ready"


@rule
def nodes(s):
    """Indexed; parallelism, completions and the most that JCS_K8S_NODES allows are one number."""
    for t in trainings(s):
        if t.job.get("completionMode") != "Indexed":
            yield f"{t.where}: not Indexed"
        found = re.fullmatch(r"(?:(\d+):)?(\d+)", environment(t).get("JCS_K8S_NODES", ""))
        if not found:
            yield f"{t.where}: JCS_K8S_NODES is neither N nor MIN:MAX"
            continue
        least, most = int(found[1] or found[2]), int(found[2])
        if not 1 <= least <= most:
            yield f"{t.where}: JCS_K8S_NODES has {least} as least and {most} as most"
        if not t.job.get("parallelism") == t.job.get("completions") == most:
            yield f"{t.where}: parallelism {t.job.get('parallelism')}, completions {t.job.get('completions')}, JCS_K8S_NODES {found[0]}"
    for where, spec in jobsets(s):
        yield from (f"{where}: {r['name']} has replicas" for r in spec["replicatedJobs"] if r.get("replicas", 1) != 1)


@rule
def variables(s):
    """What makes jcs-launch find its place: the same command in every pod, and the variables for it."""
    for t in trainings(s):
        known = environment(t)
        wanted = {"JCS_NODES": "k8s", "JCS_K8S_SERVICE": t.service}
        yield from (f"{t.where}: {k} is {known.get(k)!r}, not {v!r}" for k, v in wanted.items() if known.get(k) != v)
        if t.container.get("command") != ["jcs-launch"]:
            yield f"{t.where}: its command is not jcs-launch"
        unknown = re.findall(r"\$\([^)]*\)", " ".join(expand(a, known) for a in t.container.get("args", [])))
        yield from (f"{t.where}: {u} has no value" for u in unknown)
        if [p["containerPort"] for p in t.container.get("ports", [])] != [int(known.get("JCS_AGENT_PORT", AGENT_PORT))]:
            yield f"{t.where}: its port is not the agent's"
        if "nodes" in arguments(t)[0] or "hostfile" in arguments(t)[0]:
            yield f"{t.where}: hosts are given twice"


def action(job, code, disrupted):
    """What the Job controller does about a failed pod."""
    for r in job.get("podFailurePolicy", {}).get("rules", []):
        codes, conditions = r.get("onExitCodes"), r.get("onPodConditions", [])
        if codes and (code in codes["values"]) == (codes["operator"] == "In"):
            return r["action"]
        if disrupted and any(c["type"] == "DisruptionTarget" and c.get("status", "True") == "True" for c in conditions):
            return r["action"]
    return "Count"


@rule
def exit_codes(s):
    """Disruptions and 143 are ignored, 2 and 3 end the Job at once, anything else counts as a failure."""
    wanted = {(143, False): "Ignore", (143, True): "Ignore", (137, True): "Ignore", (2, False): "FailJob", (3, False): "FailJob"}
    wanted |= {(code, False): "Count" for code in (1, 4, 5, 6, 130, 137, 139)}
    for t in trainings(s):
        for (code, disrupted), want in wanted.items():
            got = action(t.job, code, disrupted)
            if got != want:
                yield f"{t.where}: exit code {code}{' of a disrupted pod' if disrupted else ''} leads to {got}, not {want}"


@rule
def restarts(s):
    """Pods are replaced when they have ended, by the Job; it gives up after three rounds of failures, a JobSet's at the first."""
    for t in trainings(s):
        if t.pod.get("restartPolicy") != "Never":
            yield f"{t.where}: restartPolicy is not Never"
        if t.job.get("podReplacementPolicy") != "Failed":
            yield f"{t.where}: podReplacementPolicy is not Failed"
        least = 3 * t.nodes if t.kind == "Job" else 0
        if t.job.get("backoffLimit", -1) < least or t.kind != "Job" and t.job["backoffLimit"]:
            yield f"{t.where}: backoffLimit is {t.job.get('backoffLimit')}, and should be {least}"
        if t.job.get("successPolicy") != {"rules": [{"succeededIndexes": "0"}]}:
            yield f"{t.where}: it does not succeed with pod 0, where the launcher is"


@rule
def gang(s):
    """A JobSet, or a runtime's, makes all pods anew after a failure, and gives up at once where the Job did."""
    for where, spec in jobsets(s):
        policy = spec.get("failurePolicy", {})
        if policy.get("maxRestarts", 0) < 1:
            yield f"{where}: no restarts"
        if policy.get("restartStrategy") != "BlockingRecreate":
            yield f"{where}: pods of two starts could meet"
        ends = [r["action"] for r in policy.get("rules", []) if r.get("onJobFailureReasons") == ["PodFailurePolicy"]]
        if ends != ["FailJobSet"]:
            yield f"{where}: exit codes 2 and 3 do not end it"


@rule
def grace(s):
    """Kubernetes waits longer than the launcher's grace period before it kills."""
    for t in launches(s):
        given = int(arguments(t)[0].get("grace-period", 30))
        pod = t.pod.get("terminationGracePeriodSeconds", 30)
        if pod < given + LAUNCHER_ENDS:
            yield f"{t.where}: {pod} s are too short for --grace-period {given} and {LAUNCHER_ENDS} s to end"


def config_keys():
    """The keys that configs/schema.json has, `table.key`."""
    schema = json.loads((ROOT / "configs" / "schema.json").read_text())
    tables = {table: schema["$defs"][of["$ref"].rsplit("/", 1)[1]] for table, of in schema["properties"].items() if "$ref" in of}
    return {f"{table}.{key}" for table, of in tables.items() for key in of["properties"]}


@rule
def config(s):
    """The configuration is in a ConfigMap that cannot change under a run, is TOML, and has no unknown keys."""
    keys = config_keys()
    for t in launches(s):
        found = config_of(s, t)
        if found is None:
            yield f"{t.where}: no configuration at {arguments(t)[1]}"
            continue
        yield from (f"{t.where}: no key {k}" for k in found if ".".join(k.split(".")[:2]) not in keys)
    yield from (f"ConfigMap {d['metadata']['name']} can change" for d in s.of("ConfigMap") if d.get("immutable") is not True)


def is_url(text):
    return re.match(r"(s3|https?)://", str(text)) is not None


@rule
def paths(s):
    """Data, run directory and cache lie in volumes: data that is read only, run directories where they are kept or uploaded."""
    for t in launches(s):
        found = config_of(s, t) or {}
        for key in ("data.train", "data.eval"):
            place = found.get(key, "")
            at = mount(t.pod, t.container, place)
            if not place or is_url(place):
                continue
            if not place.startswith("/") or not at:
                yield f"{t.where}: {key} = {place} is in no volume"
            elif "persistentVolumeClaim" not in at[1] or at[0].get("readOnly") is not True:
                yield f"{t.where}: {key} = {place} is not in a claim that is mounted read-only"
        if not found.get("data.train"):
            yield f"{t.where}: data.train is not given"
        run = found.get("run.dir", "")
        at = mount(t.pod, t.container, run)
        if not at or at[0].get("readOnly"):
            yield f"{t.where}: run.dir = {run} is in no volume that can be written"
        elif "emptyDir" in at[1] and not is_url(found.get("checkpoint.upload", "")):
            yield f"{t.where}: run.dir = {run} ends with the pod, and nothing is uploaded"
        elif at[0]["mountPath"].rstrip("/") == run.rstrip("/"):
            yield f"{t.where}: run.dir = {run} is a volume's root, without a name of its own"


@rule
def cache(s):
    """What is streamed has a cache in a volume with a limit, and stays below it."""
    for t in launches(s):
        found = config_of(s, t) or {}
        if not is_url(found.get("data.train", "")):
            continue
        at = mount(t.pod, t.container, str(found.get("data.cache_dir", "")))
        if not at or "emptyDir" not in at[1]:
            yield f"{t.where}: data.cache_dir = {found.get('data.cache_dir')} is in no volume of the pod's own"
            continue
        most, size = str(found.get("data.cache_limit", "")).replace("B", ""), at[1]["emptyDir"].get("sizeLimit")
        if not most or not size or quantity(most) > quantity(size):
            yield f"{t.where}: data.cache_limit = {most or None} is not below the volume's limit {size}: the pod would be evicted"


@rule
def key(s):
    """The agent's key is a file of a Secret, which any user can read and nobody can write."""
    for t in trainings(s):
        file = environment(t).get("JCS_AGENT", "")
        at = mount(t.pod, t.container, file)
        if not at or "secret" not in at[1]:
            yield f"{t.where}: JCS_AGENT = {file} is in no Secret"
            continue
        inside = file[len(at[0]["mountPath"].rstrip("/")) + 1:]
        source = at[1]["secret"]
        if inside not in (file_keys(source) or {inside: ""}):
            yield f"{t.where}: JCS_AGENT = {file} is no item of the Secret"
        if source.get("defaultMode", 0o644) & 0o777 != 0o444 or at[0].get("readOnly") is not True:
            yield f"{t.where}: the agent's key is not mounted for reading by everybody alone"


@rule
def scratch(s):
    """/tmp and /dev/shm can be written; the latter is memory, enough for the workers, and part of the limit."""
    for t in launches(s):
        count = int(arguments(t)[0].get("nproc-per-node", 1))
        tmp, shm = mount(t.pod, t.container, "/tmp/x"), mount(t.pod, t.container, "/dev/shm/x")
        if not tmp or "emptyDir" not in tmp[1] or tmp[0].get("readOnly"):
            yield f"{t.where}: /tmp is no emptyDir"
        if not shm or shm[1].get("emptyDir", {}).get("medium") != "Memory":
            yield f"{t.where}: /dev/shm is not memory"
            continue
        size = shm[1]["emptyDir"].get("sizeLimit")
        if not size or quantity(size) < max(64 * MIB, 16 * MIB * count):
            yield f"{t.where}: /dev/shm of {size} is too small for {count} workers"
        elif quantity(size) > limit(t.container, "memory") / 2:
            yield f"{t.where}: /dev/shm of {size} can take most of the memory"
    for where, template in pods(s):
        for v in template["spec"].get("volumes", []):
            if "emptyDir" in v and "sizeLimit" not in v["emptyDir"]:
                yield f"{where}: {v['name']} can fill the node's disk"


@rule
def devices(s):
    """One worker a GPU, and CUDA where there are GPUs alone."""
    for t in trainings(s):
        count, device = gpus(t.container), (config_of(s, t) or {}).get("run.device", "auto")
        workers = arguments(t)[0].get("nproc-per-node", "auto")
        if not workers.isdigit():
            yield f"{t.where}: --nproc-per-node is {workers}, no number"
        elif count and int(workers) != count:
            yield f"{t.where}: {workers} workers for {count} GPUs"
        if device == "cuda" and not count or device == "cpu" and count:
            yield f"{t.where}: run.device = {device} with {count} GPUs"
        if count and not any(x.get("key") == "nvidia.com/gpu" for x in t.pod.get("tolerations", [])):
            yield f"{t.where}: does not tolerate the taint of nodes with GPUs"


@rule
def threads(s):
    """As many threads as CPUs, where they are given."""
    for t in trainings(s):
        given, workers = environment(t).get("OMP_NUM_THREADS"), arguments(t)[0].get("nproc-per-node", "1")
        if given and workers.isdigit() and int(given) * int(workers) != limit(t.container, "cpu"):
            yield f"{t.where}: {workers} workers of {given} threads on {limit(t.container, 'cpu'):g} CPUs"


@rule
def resources(s):
    """Every container asks for CPU and memory, and has limits; memory is what it asked for."""
    for where, template in pods(s):
        for c in containers(template["spec"]):
            asked, allowed = c.get("resources", {}).get("requests", {}), c.get("resources", {}).get("limits", {})
            if not {"cpu", "memory"} <= asked.keys() or not {"cpu", "memory"} <= allowed.keys():
                yield f"{where}: {c['name']} lacks requests or limits"
            elif label_is_training(template) and c["command"] == ["jcs-launch"] and asked["memory"] != allowed["memory"]:
                yield f"{where}: {c['name']} may take more memory than it asked for, and be the first to be evicted"


def label_is_training(template):
    return labels_of(template).get(COMPONENT) == "training"


VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
SYSCTLS = {"kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start", "net.ipv4.tcp_syncookies",
           "net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports", "net.ipv4.tcp_keepalive_time",
           "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem",
           "net.ipv4.tcp_wmem"}


@rule
def restricted(s):
    """The Pod Security Standard `restricted`."""
    for where, template in pods(s):
        pod = template["spec"]
        whole = pod.get("securityContext", {})
        yield from (f"{where}: {k}" for k in ("hostNetwork", "hostPID", "hostIPC") if pod.get(k))
        yield from (f"{where}: volume {v['name']} is a {volume_kind(v)}" for v in pod.get("volumes", []) if volume_kind(v) not in VOLUMES)
        yield from (f"{where}: sysctl {x['name']}" for x in whole.get("sysctls", []) if x["name"] not in SYSCTLS)
        for c in containers(pod):
            own = whole | c.get("securityContext", {})
            wrong = {
                "runs as root": own.get("runAsNonRoot") is not True or own.get("runAsUser") == 0,
                "may gain privileges": own.get("allowPrivilegeEscalation") is not False,
                "is privileged": own.get("privileged", False),
                "keeps capabilities": "ALL" not in own.get("capabilities", {}).get("drop", []),
                "adds capabilities": set(own.get("capabilities", {}).get("add", [])) - {"NET_BIND_SERVICE"},
                "has no seccomp profile": own.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"),
                "has another /proc": own.get("procMount", "Default") != "Default",
                "chooses its SELinux user or role": own.get("seLinuxOptions", {}).keys() & {"user", "role"},
                "has no AppArmor": own.get("appArmorProfile", {}).get("type", "RuntimeDefault") not in ("RuntimeDefault", "Localhost"),
                "is a host process": own.get("windowsOptions", {}).get("hostProcess", False),
                "takes a port of the host": any(p.get("hostPort") for p in c.get("ports", [])),
            }
            yield from (f"{where}: {c['name']} {what}" for what, is_so in wrong.items() if is_so)


@rule
def read_only(s):
    """No container writes to its image."""
    for where, template in pods(s):
        for c in containers(template["spec"]):
            if c.get("securityContext", {}).get("readOnlyRootFilesystem") is not True:
                yield f"{where}: {c['name']} can write to its root"


@rule
def any_user(s):
    """No user or group is chosen, so that OpenShift can. ssh needs a user with a name, and the component fsgroup is for plain clusters."""
    for where, template in pods(s):
        if where.startswith("MPIJob "):
            continue
        for at in [template["spec"]] + containers(template["spec"]):
            chosen = at.get("securityContext", {}).keys() & {"runAsUser", "runAsGroup", "supplementalGroups", "fsGroup"}
            chosen -= {"fsGroup"} if s.fsgroup else set()
            yield from (f"{where}: {k} is chosen" for k in sorted(chosen))
        if s.name == "all" and "fsGroup" not in template["spec"].get("securityContext", {}):
            yield f"{where}: the component fsgroup left it out"


@rule
def account(s):
    """No pod has a token for the API server, nor variables of Services, which begin with JCS_ here."""
    for d in s.of("ServiceAccount"):
        if d.get("automountServiceAccountToken") is not False:
            yield f"ServiceAccount {d['metadata']['name']} mounts its token"
    for where, template in pods(s):
        if template["spec"].get("automountServiceAccountToken") is not False:
            yield f"{where}: mounts a token"
        if template["spec"].get("enableServiceLinks") is not False:
            yield f"{where}: gets variables of Services"


def tcp_everywhere(r):
    return r.get("ports") == [{"protocol": "TCP"}]


@rule
def network(s):
    """Pods of a training talk with each other, DNS, and the store where there is one; with nothing else."""
    for where, template in pods(s):
        if not label_is_training(template):
            continue
        of_pod = [d["spec"] for d in s.of("NetworkPolicy") if selects(d["spec"]["podSelector"], labels_of(template))]
        if len(of_pod) != 1 or sorted(of_pod[0].get("policyTypes", [])) != ["Egress", "Ingress"]:
            yield f"{where}: {len(of_pod)} policies for it, instead of one for both directions"
            continue
        policy = of_pod[0]

        def is_peers(who):
            only = [list(p) == ["podSelector"] and p["podSelector"] for p in who]
            return bool(only) and all(p and p != {} and selects(p, labels_of(template)) for p in only)
        into = policy.get("ingress", [])
        if len(into) != 1 or not is_peers(into[0].get("from", [])) or not tcp_everywhere(into[0]):
            yield f"{where}: others than its own pods reach it, or these not on every port"
        out = policy.get("egress", [])
        if not any(is_peers(r.get("to", [])) and tcp_everywhere(r) for r in out):
            yield f"{where}: does not reach its own pods"
        beyond = {(p.get("protocol", "TCP"), p.get("port")) for r in out if not is_peers(r.get("to", [])) for p in r.get("ports", [{}])}
        if not {("UDP", 53), ("TCP", 53)} <= beyond:
            yield f"{where}: does not reach DNS"
        remote = any(is_url(v) for t in launches(s) for v in (config_of(s, t) or {}).values())
        allowed = {(protocol, port) for protocol in ("UDP", "TCP") for port in (53, 5353)} | ({("TCP", 443)} if remote else set())
        if remote and ("TCP", 443) not in beyond:
            yield f"{where}: does not reach its store"
        yield from (f"{where}: reaches {protocol} {port or 'ports of all numbers'} anywhere" for protocol, port in beyond - allowed)
        others = [w for w, other in pods(s) if not label_is_training(other) and selects(policy["podSelector"], labels_of(other))]
        yield from (f"{where}: its policy is also that of {w}" for w in others)


def claim_of(volume):
    return volume.get("persistentVolumeClaim", {}).get("claimName")


@rule
def tensorboard(s):
    """TensorBoard reads the volume of the runs, cannot write it, and is asked whether it answers."""
    for d in (d for d in s.own if d["kind"] == "Deployment"):
        pod, where = d["spec"]["template"]["spec"], f"Deployment {d['metadata']['name']}"
        c = pod["containers"][0]
        given = dict(a[2:].split("=", 1) for a in c["args"] if "=" in a)
        at = mount(pod, c, given.get("logdir", ""))
        runs = [mount(t.pod, t.container, (config_of(s, t) or {}).get("run.dir", "")) for t in launches(s)]
        claims = {claim_of(found[1]) for found in runs if found}
        if not at or {claim_of(at[1])} != claims or at[0].get("readOnly") is not True:
            yield f"{where}: --logdir is not the volume of the runs, mounted read-only"
        if not selects(d["spec"]["selector"], labels_of(d["spec"]["template"])):
            yield f"{where}: its selector does not match its pods"
        port = [p["containerPort"] for p in c["ports"]]
        if port != [int(given.get("port", 0))]:
            yield f"{where}: its port is not --port"
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            if "httpGet" not in c.get(probe, {}):
                yield f"{where}: no {probe}"
        services = [x for x in s.of("Service") if selects(x["spec"].get("selector", {}), labels_of(d["spec"]["template"]))]
        names = {p["name"] for p in c["ports"]}
        if len(services) != 1 or any(p.get("targetPort") not in names for p in services[0]["spec"]["ports"]):
            yield f"{where}: no Service leads to its port"
        policies = [x["spec"] for x in s.of("NetworkPolicy") if selects(x["spec"]["podSelector"], labels_of(d["spec"]["template"]))]
        reached = [p.get("port") for x in policies for r in x["ingress"] for p in r.get("ports", [{}])]
        if len(policies) != 1 or policies[0].get("egress") != [] or reached != port:
            yield f"{where}: no policy that lets only its port be reached"


@rule
def message(s):
    """`kubectl describe` shows why a launcher ended, even where it left no message."""
    for t in launches(s):
        if t.container.get("terminationMessagePolicy") != "FallbackToLogsOnError" or "terminationMessagePath" in t.container:
            yield f"{t.where}: its last lines are not shown"


@rule
def queue(s):
    """A Job for a queue starts suspended; queues, flavours and quotas fit together and to the Jobs."""
    for d in s.own:
        where = f"{d['kind']} {d['metadata']['name']}"
        if d["kind"] == "Job" and (label(d, QUEUE) is not None) != (d["spec"].get("suspend") is True):
            yield f"{where}: {QUEUE} and suspend go together"
        if d["kind"] == "LocalQueue" and not s.named("ClusterQueue", d["spec"]["clusterQueue"]):
            yield f"{where}: no ClusterQueue {d['spec']['clusterQueue']}"
        if d["kind"] == "LocalQueue" and d["metadata"]["name"] != label(load("kueue").of("Job")[0], QUEUE):
            yield f"{where}: the component kueue names another queue"
        if d["kind"] == "ClusterQueue":
            for group in d["spec"]["resourceGroups"]:
                for flavor in group["flavors"]:
                    if not s.named("ResourceFlavor", flavor["name"]):
                        yield f"{where}: no flavour {flavor['name']}"
                    if [r["name"] for r in flavor["resources"]] != group["coveredResources"]:
                        yield f"{where}: flavour {flavor['name']} has other resources than the group, or in another order"
                quotas = {r["name"]: quantity(r["nominalQuota"]) for f in group["flavors"] for r in f["resources"]}
                for name in ("cpu", "gpu"):
                    t = next(iter(trainings(load(name))))
                    for resource, asked in (t.container["resources"]["requests"] | t.container["resources"]["limits"]).items():
                        if quotas.get(resource, 0) < t.nodes * quantity(asked):
                            yield f"{where}: too little {resource} for the overlay {name}"


@rule
def sshd(s):
    """An MPIJob's launcher reaches its workers' sshd, with the operator's key; both have the same paths."""
    for d in (d for d in s.own if d["kind"] == "MPIJob"):
        spec, where = d["spec"], f"MPIJob {d['metadata']['name']}"
        launcher, worker = (spec["mpiReplicaSpecs"][r]["template"]["spec"]["containers"][0] for r in ("Launcher", "Worker"))
        agent = next((e["value"] for e in launcher["env"] if e["name"] == "PRTE_MCA_plm_ssh_agent"), "")
        port = re.search(r"-p (\d+)", agent)
        ports = {port and port[1], str(next(iter(worker["ports"]))["containerPort"]), worker["args"][worker["args"].index("-p") + 1]}
        if len(ports) != 1:
            yield f"{where}: ssh and sshd have several ports: {ports}"
        home = spec.get("sshAuthMountPath", "/root/.ssh")
        for option in ("HostKey", "AuthorizedKeysFile"):
            if not any(a.startswith(f"{option}={home}/") for a in worker["args"]):
                yield f"{where}: {option} is not where the operator puts its key"
        if "--hostfile" not in launcher["args"] or "/etc/mpi/hostfile" not in launcher["args"]:
            yield f"{where}: the launcher does not read the operator's hostfile"
        if launcher["volumeMounts"] != worker["volumeMounts"]:
            yield f"{where}: launcher and workers see other paths"
        if spec.get("launcherCreationPolicy") == "WaitForWorkersReady" and "readinessProbe" not in worker:
            yield f"{where}: the launcher waits for workers to be ready, and they always are"


@rule
def told(s):
    """docs/kubernetes.md names what is there, and nothing that is not; each overlay says what a SIGTERM means."""
    if s.name != "base":
        return
    for path in sorted(set(re.findall(r"(?<![\w/.-])k8s/[\w./-]*\w", s.text))):
        if not (ROOT / path).exists():
            yield f"docs/kubernetes.md names {path}, which is not there"
    here = [str(p.relative_to(ROOT)) for folder in ("overlays", "components", "optional") for p in (ROOT / "k8s" / folder).iterdir()]
    for path in sorted(here):
        last = Path(path).name
        if path not in s.text and f"`{last}`" not in s.text:
            yield f"docs/kubernetes.md does not name {path}"
        file = ROOT / path / "kustomization.yaml" if (ROOT / path).is_dir() else ROOT / path
        training = "overlays" in path or last in ("jobset.yaml", "trainjob.yaml", "mpijob.yaml")
        if training and "# SIGTERM to " not in file.read_text():
            yield f"{path} does not say what a SIGTERM means"


UNREADABLE = "cannot be read: "


def complaints(s):
    """By rule. What the schemas complain of may keep other rules from reading it."""
    all_found = {}
    for name, function in RULES.items():
        found = []
        try:
            found.extend(function(s))
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, StopIteration) as e:
            found.append(f"{UNREADABLE}{e!r}")
        if found:
            all_found[name] = found
    return all_found
