"""Breaks each rule in a rendered copy."""

import copy
import json
import sys

from .manifests import COMPONENT, NAME, load
from .rules import RULES, UNREADABLE, complaints

def pick(s, kind, name=None):
    return next(d for d in s.docs if d["kind"] == kind and name in (None, d["metadata"]["name"]))


def job(s):
    return pick(s, "Job")["spec"]


def pod_of(s):
    return job(s)["template"]["spec"]


def box(s):
    return pod_of(s)["containers"][0]


def deployment(s):
    return pick(s, "Deployment")["spec"]["template"]["spec"]


def policy(s, name="jcs-training"):
    return pick(s, "NetworkPolicy", name)["spec"]


def variable(s, name, value):
    next(e for e in box(s)["env"] if e["name"] == name)["value"] = value


def argument(s, old, new):
    args = box(s)["args"]
    args[args.index(old)] = new


def volume(s, name):
    return next(v for v in pod_of(s)["volumes"] if v["name"] == name)


def mounted(s, name):
    return next(m for m in box(s)["volumeMounts"] if m["name"] == name)


def put(table, **values):
    table.update(values)


def drop(table, *keys):
    for k in keys:
        del table[k]


def on_host(volume):
    del volume["emptyDir"]
    volume["hostPath"] = {"path": "/tmp"}


SECRET = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}}


def replicated(s):
    return pick(s, "JobSet")["spec"]["replicatedJobs"][0]["template"]["spec"]


def jobset(s):
    return pick(s, "JobSet")["spec"]


def runtime(s):
    return pick(s, "TrainingRuntime")["spec"]["template"]["spec"]


def runtime_job(s):
    return runtime(s)["replicatedJobs"][0]["template"]["spec"]


def reference(s):
    return pick(s, "TrainJob")["spec"]["runtimeRef"]


def quotas(s):
    return pick(s, "ClusterQueue")["spec"]["resourceGroups"][0]


def board(s):
    return deployment(s)["containers"][0]


def mpi_pod(s, role):
    return pick(s, "MPIJob")["spec"]["mpiReplicaSpecs"][role]["template"]["spec"]


def mpi(s, role):
    return mpi_pod(s, role)["containers"][0]


# Rule, set, what is done to it.
BREAKS = [
    ("schemas", "base", "a field that does not exist", lambda s: put(job(s), parallel=2)),
    ("schemas", "base", "a text for a number", lambda s: put(job(s), backoffLimit="6")),
    ("schemas", "base", "an unknown field deep inside", lambda s: put(box(s)["securityContext"], readonlyRootFilesystem=True)),
    ("operators", "jobset", "an unknown field", lambda s: put(jobset(s), restarts=3)),
    ("operators", "jobset", "an unknown field of the Job inside", lambda s: put(replicated(s), maxRetries=3)),
    ("operators", "jobset", "an action that does not exist", lambda s: put(jobset(s)["failurePolicy"]["rules"][0], action="Fail")),
    ("operators", "trainjob", "a field of an older version", lambda s: put(pick(s, "TrainJob")["spec"], podTemplateOverrides=[])),
    ("operators", "trainjob", "a number for a name", lambda s: put(reference(s), name=1)),
    ("operators", "trainjob", "an unknown field of the runtime", lambda s: put(pick(s, "TrainingRuntime")["spec"], numNodes=2)),
    ("operators", "mpijob", "a field of version 1", lambda s: put(pick(s, "MPIJob")["spec"], cleanPodPolicy="Running")),
    ("operators", "mpijob", "an unknown field of a pod", lambda s: put(mpi(s, "Worker"), gpu=1)),
    ("operators", "kueue-queues", "the older name of the cohort", lambda s: put(pick(s, "ClusterQueue")["spec"], cohort="all")),
    ("operators", "kueue-queues", "a strategy that does not exist", lambda s: put(pick(s, "ClusterQueue")["spec"], queueingStrategy="FIFO")),
    ("operators", "kueue-queues", "another version", lambda s: put(pick(s, "LocalQueue"), apiVersion="kueue.x-k8s.io/v9")),
    ("accepted", "base", "a mount without volume", lambda s: put(mounted(s, "tmp"), name="temp")),
    ("accepted", "base", "a probe of a port without name", lambda s: put(board(s)["readinessProbe"]["httpGet"], port="web")),
    ("accepted", "base", "more requested than allowed", lambda s: put(box(s)["resources"]["requests"], cpu="3")),
    ("accepted", "base", "exit codes out of order", lambda s: put(job(s)["podFailurePolicy"]["rules"][2]["onExitCodes"], values=[3, 2])),
    ("accepted", "trainjob", "another container's exit codes", lambda s: put(runtime_job(s)["podFailurePolicy"]["rules"][1]["onExitCodes"], containerName="jcs")),
    ("labels", "base", "no name", lambda s: drop(pick(s, "PersistentVolumeClaim")["metadata"]["labels"], NAME)),
    ("labels", "jobset", "pods without component", lambda s: drop(replicated(s)["template"]["metadata"]["labels"], COMPONENT)),
    ("references", "base", "another ConfigMap", lambda s: put(volume(s, "config")["configMap"], name="config")),
    ("references", "base", "another claim", lambda s: put(volume(s, "runs")["persistentVolumeClaim"], claimName="runs")),
    ("references", "base", "a Secret that nobody makes", lambda s: put(volume(s, "agent")["secret"], secretName="agent")),
    ("references", "s3", "variables of a Secret that nobody makes", lambda s: put(box(s)["envFrom"][0]["secretRef"], name="s3")),
    ("references", "base", "another account", lambda s: put(deployment(s), serviceAccountName="default")),
    ("references", "base", "a claim for one node", lambda s: put(pick(s, "PersistentVolumeClaim", "jcs-runs")["spec"], accessModes=["ReadWriteOnce"])),
    ("references", "trainjob", "another runtime", lambda s: put(reference(s), name="torch")),
    ("no_secrets", "base", "a Secret in the manifests", lambda s: s.docs.append(SECRET)),
    ("no_secrets", "s3", "a key as a variable", lambda s: box(s)["env"].append({"name": "AWS_SECRET_ACCESS_KEY", "value": "x"})),
    ("service", "base", "a selector for other pods", lambda s: put(pick(s, "Service", "jcs")["spec"]["selector"], **{COMPONENT: "train"})),
    ("service", "base", "a selector for TensorBoard, too", lambda s: drop(pick(s, "Service", "jcs")["spec"]["selector"], COMPONENT)),
    ("service", "base", "another subdomain", lambda s: put(pod_of(s), subdomain="peers")),
    ("service", "base", "an address of its own", lambda s: drop(pick(s, "Service", "jcs")["spec"], "clusterIP")),
    ("service", "base", "ready pods only", lambda s: put(pick(s, "Service", "jcs")["spec"], publishNotReadyAddresses=False)),
    ("service", "jobset", "no host names", lambda s: put(jobset(s)["network"], enableDNSHostnames=False)),
    ("nodes", "base", "more pods", lambda s: put(job(s), parallelism=3)),
    ("nodes", "base", "fewer nodes", lambda s: variable(s, "JCS_K8S_NODES", "1")),
    ("nodes", "base", "not Indexed", lambda s: drop(job(s), "completionMode")),
    ("nodes", "elastic", "more at least than at most", lambda s: variable(s, "JCS_K8S_NODES", "4:3")),
    ("nodes", "elastic", "other completions", lambda s: put(job(s), completions=4)),
    ("nodes", "jobset", "other completions", lambda s: put(replicated(s), completions=4)),
    ("nodes", "trainjob", "other nodes", lambda s: put(pick(s, "TrainJob")["spec"]["trainer"], numNodes=3)),
    ("variables", "base", "another Service", lambda s: variable(s, "JCS_K8S_SERVICE", "peers")),
    ("variables", "base", "not k8s", lambda s: variable(s, "JCS_NODES", "slurm")),
    ("variables", "base", "a variable without value", lambda s: argument(s, "run.dir=/runs/$(JCS_RUN)", "run.dir=/runs/$(RUN)")),
    ("variables", "base", "another port", lambda s: put(box(s)["ports"][0], containerPort=22)),
    ("variables", "all", "the name without its suffix", lambda s: variable(s, "JCS_K8S_SERVICE", "jcs")),
    ("exit_codes", "base", "143 not ignored", lambda s: job(s)["podFailurePolicy"]["rules"].pop(1)),
    ("exit_codes", "base", "disruptions not ignored", lambda s: job(s)["podFailurePolicy"]["rules"].pop(0)),
    ("exit_codes", "base", "3 tried again", lambda s: put(job(s)["podFailurePolicy"]["rules"][2]["onExitCodes"], values=[2])),
    ("exit_codes", "base", "4 ends the Job", lambda s: put(job(s)["podFailurePolicy"]["rules"][2]["onExitCodes"], values=[2, 3, 4])),
    ("exit_codes", "jobset", "143 counts", lambda s: replicated(s)["podFailurePolicy"]["rules"].pop(1)),
    ("restarts", "base", "restarts in place", lambda s: put(pod_of(s), restartPolicy="OnFailure")),
    ("restarts", "base", "two pods of one number", lambda s: put(job(s), podReplacementPolicy="TerminatingOrFailed")),
    ("restarts", "base", "one round of failures", lambda s: put(job(s), backoffLimit=2)),
    ("restarts", "base", "no success with pod 0", lambda s: drop(job(s), "successPolicy")),
    ("restarts", "jobset", "failures without restart", lambda s: put(replicated(s), backoffLimit=6)),
    ("gang", "jobset", "no restarts", lambda s: drop(jobset(s)["failurePolicy"], "maxRestarts")),
    ("gang", "trainjob", "a wrong configuration is tried again", lambda s: drop(runtime(s)["failurePolicy"], "rules")),
    ("grace", "base", "too short", lambda s: put(pod_of(s), terminationGracePeriodSeconds=40)),
    ("grace", "s3", "a longer one for the workers", lambda s: argument(s, "90", "120")),
    ("grace", "mpijob", "none", lambda s: drop(mpi_pod(s, "Launcher"), "terminationGracePeriodSeconds")),
    ("config", "base", "another file", lambda s: argument(s, "/etc/jcs/config/train.toml", "/etc/jcs/config/demo.toml")),
    ("config", "base", "an unknown table", lambda s: put(pick(s, "ConfigMap")["data"], **{"train.toml": "[dta]\ntrain = 1\n"})),
    ("config", "s3", "an unknown key among the arguments", lambda s: box(s)["args"].append("data.cache=/cache")),
    ("config", "base", "can change", lambda s: drop(pick(s, "ConfigMap"), "immutable")),
    ("paths", "base", "data elsewhere", lambda s: box(s)["args"].append("data.train=/data/demo")),
    ("paths", "base", "data that can be written", lambda s: drop(mounted(s, "shards"), "readOnly")),
    ("paths", "base", "the run directory elsewhere", lambda s: argument(s, "run.dir=/runs/$(JCS_RUN)", "run.dir=/elsewhere/$(JCS_RUN)")),
    ("paths", "base", "the run directory read-only", lambda s: put(mounted(s, "runs"), readOnly=True)),
    ("paths", "s3", "no upload", lambda s: box(s)["args"].remove("checkpoint.upload=$(JCS_STORE)/runs/$(JCS_RUN)")),
    ("cache", "s3", "a cache in the image", lambda s: argument(s, "data.cache_dir=/cache", "data.cache_dir=/var/cache")),
    ("cache", "s3", "a larger limit than the volume's", lambda s: argument(s, "data.cache_limit=18GB", "data.cache_limit=30GB")),
    ("key", "base", "another path", lambda s: variable(s, "JCS_AGENT", "/etc/jcs/key")),
    ("key", "base", "another file", lambda s: variable(s, "JCS_AGENT", "/etc/jcs/agent/secret")),
    ("key", "base", "readable by its owner", lambda s: put(volume(s, "agent")["secret"], defaultMode=0o400)),
    ("scratch", "base", "no /tmp", lambda s: box(s)["volumeMounts"].remove(mounted(s, "tmp"))),
    ("scratch", "base", "/dev/shm on disk", lambda s: drop(volume(s, "shm")["emptyDir"], "medium")),
    ("scratch", "gpu", "/dev/shm too small", lambda s: put(volume(s, "shm")["emptyDir"], sizeLimit="16Mi")),
    ("scratch", "base", "/dev/shm larger than memory", lambda s: put(volume(s, "shm")["emptyDir"], sizeLimit="8Gi")),
    ("scratch", "base", "no limit", lambda s: drop(volume(s, "tmp")["emptyDir"], "sizeLimit")),
    ("devices", "gpu", "more GPUs than workers", lambda s: put(box(s)["resources"]["limits"], **{"nvidia.com/gpu": "8"})),
    ("devices", "gpu", "no GPU", lambda s: drop(box(s)["resources"]["limits"], "nvidia.com/gpu")),
    ("devices", "gpu", "no toleration", lambda s: drop(pod_of(s), "tolerations")),
    ("devices", "cpu", "workers by chance", lambda s: argument(s, "2", "auto")),
    ("threads", "cpu", "more workers", lambda s: argument(s, "2", "4")),
    ("resources", "base", "no limit of memory", lambda s: drop(box(s)["resources"]["limits"], "memory")),
    ("resources", "base", "more memory than asked for", lambda s: put(box(s)["resources"]["limits"], memory="8Gi")),
    ("restricted", "base", "as root", lambda s: put(pod_of(s)["securityContext"], runAsNonRoot=False)),
    ("restricted", "base", "privileges", lambda s: drop(box(s)["securityContext"], "allowPrivilegeEscalation")),
    ("restricted", "base", "capabilities", lambda s: put(box(s)["securityContext"], capabilities={"drop": ["NET_RAW"]})),
    ("restricted", "base", "no seccomp", lambda s: drop(deployment(s)["securityContext"], "seccompProfile")),
    ("restricted", "base", "a folder of the host", lambda s: on_host(volume(s, "tmp"))),
    ("restricted", "base", "the host's network", lambda s: put(pod_of(s), hostNetwork=True)),
    ("restricted", "base", "a port of the host", lambda s: put(box(s)["ports"][0], hostPort=7078)),
    ("restricted", "demo-data", "an init container as root", lambda s: put(pod_of(s)["initContainers"][0]["securityContext"], runAsUser=0)),
    ("restricted", "mpijob", "sshd as root", lambda s: put(mpi_pod(s, "Worker")["securityContext"], runAsUser=0)),
    ("read_only", "base", "a root that can be written", lambda s: drop(box(s)["securityContext"], "readOnlyRootFilesystem")),
    ("any_user", "base", "a user", lambda s: put(pod_of(s)["securityContext"], runAsUser=1000)),
    ("any_user", "base", "a group of the volumes", lambda s: put(deployment(s)["securityContext"], fsGroup=1000)),
    ("any_user", "trainjob", "a user of the container", lambda s: put(runtime_job(s)["template"]["spec"]["containers"][0]["securityContext"], runAsUser=1000)),
    ("account", "base", "a token", lambda s: drop(pod_of(s), "automountServiceAccountToken")),
    ("account", "base", "a token of the account", lambda s: drop(pick(s, "ServiceAccount"), "automountServiceAccountToken")),
    ("account", "base", "variables of Services", lambda s: drop(pod_of(s), "enableServiceLinks")),
    ("network", "base", "no policy", lambda s: s.docs.remove(pick(s, "NetworkPolicy", "jcs-training"))),
    ("network", "base", "for other pods", lambda s: put(policy(s)["podSelector"]["matchLabels"], **{COMPONENT: "train"})),
    ("network", "base", "from everywhere", lambda s: drop(policy(s)["ingress"][0], "from")),
    ("network", "base", "from any pod", lambda s: put(policy(s)["ingress"][0], **{"from": [{"podSelector": {}}]})),
    ("network", "base", "from any namespace", lambda s: put(policy(s)["ingress"][0]["from"][0], namespaceSelector={})),
    ("network", "base", "the agent's port alone", lambda s: put(policy(s)["ingress"][0]["ports"][0], port=7078)),
    ("network", "base", "outgoing is free", lambda s: put(policy(s), policyTypes=["Ingress"])),
    ("network", "base", "no DNS", lambda s: policy(s)["egress"].pop(1)),
    ("network", "base", "not to its own pods", lambda s: policy(s)["egress"].pop(0)),
    ("network", "base", "to everywhere", lambda s: policy(s)["egress"].append({})),
    ("network", "s3", "not to the store", lambda s: policy(s)["egress"].pop(2)),
    ("tensorboard", "base", "another folder", lambda s: put(board(s), args=["--logdir=/logs", "--bind_all", "--port=6006"])),
    ("tensorboard", "base", "another volume", lambda s: put(deployment(s)["volumes"][0]["persistentVolumeClaim"], claimName="jcs-shards")),
    ("tensorboard", "base", "that can be written", lambda s: drop(board(s)["volumeMounts"][0], "readOnly")),
    ("tensorboard", "base", "no readiness", lambda s: drop(board(s), "readinessProbe")),
    ("tensorboard", "base", "no liveness", lambda s: drop(board(s), "livenessProbe")),
    ("tensorboard", "base", "another port", lambda s: put(board(s)["ports"][0], containerPort=8080)),
    ("tensorboard", "base", "a Service to another port", lambda s: put(pick(s, "Service", "jcs-tensorboard")["spec"]["ports"][0], targetPort="web")),
    ("tensorboard", "base", "open to the world", lambda s: drop(policy(s, "jcs-tensorboard"), "egress")),
    ("message", "base", "no last lines", lambda s: drop(box(s), "terminationMessagePolicy")),
    ("queue", "kueue", "not suspended", lambda s: drop(job(s), "suspend")),
    ("queue", "base", "suspended without a queue", lambda s: put(job(s), suspend=True)),
    ("queue", "kueue-queues", "another ClusterQueue", lambda s: put(pick(s, "LocalQueue")["spec"], clusterQueue="all")),
    ("queue", "kueue-queues", "another queue", lambda s: put(pick(s, "LocalQueue")["metadata"], name="ct")),
    ("queue", "kueue-queues", "another flavour", lambda s: put(pick(s, "ResourceFlavor")["metadata"], name="gpu")),
    ("queue", "kueue-queues", "resources out of order", lambda s: quotas(s)["coveredResources"].reverse()),
    ("queue", "kueue-queues", "no GPU", lambda s: put(quotas(s)["flavors"][0]["resources"][2], nominalQuota=0)),
    ("sshd", "mpijob", "another port", lambda s: put(mpi(s, "Worker")["ports"][0], containerPort=22)),
    ("sshd", "mpijob", "the key elsewhere", lambda s: put(pick(s, "MPIJob")["spec"], sshAuthMountPath="/root/.ssh")),
    ("sshd", "mpijob", "other paths", lambda s: put(mpi(s, "Worker"), volumeMounts=[])),
    ("sshd", "mpijob", "no readiness", lambda s: drop(mpi(s, "Worker"), "readinessProbe")),
    ("told", "base", "a file that is not there", lambda s: setattr(s, "text", s.text + "\nk8s/overlays/tpu\n")),
    ("told", "base", "a component that is not told of", lambda s: setattr(s, "text", s.text.replace("fsgroup", "group"))),
]


def broken():
    unseen, untried = [], RULES.keys() - {b[0] for b in BREAKS}
    for name, where, what, harm in BREAKS:
        s = copy.deepcopy(load(where))
        before = json.dumps([s.docs, s.text])
        harm(s)
        if json.dumps([s.docs, s.text]) == before:
            sys.exit(f"k8s: {name}: {what}: changes nothing in {where}")
        found = complaints(s)
        others = sorted(found.keys() - {name})
        seen = [text for text in found.get(name, []) if not text.startswith(UNREADABLE)]
        print(f"{name}, {where}: {what}: {seen[0] if seen else 'NOT SEEN'}" + (f" (also {', '.join(others)})" if others else ""))
        if not seen:
            unseen.append(f"{name}, {where}: {what}")
    print(f"k8s: {len(BREAKS) - len(unseen)} of {len(BREAKS)} changes seen, {len(RULES) - len(untried)} of {len(RULES)} rules broken")
    if unseen or untried:
        sys.exit("k8s: NOT SEEN: " + "; ".join(unseen + [f"{r} is never broken" for r in sorted(untried)]))
