"""Fields of the operators' objects that k8s/ uses or might, as their sources have them. A name with an exclamation mark is required.

A type is TEXT, WHOLE, FLAG, QUANTITY, a set of words, [type], {field: type}; or what Kubernetes' own schemas know: POD (a pod template),
JOB (a Job's spec), SELECTOR, RESOURCES, ENV; or ANY, which nothing here uses. Metadata and status are not listed.
"""

TEXT, WHOLE, FLAG, QUANTITY, ANY = "text", "whole number", "true or false", "quantity", "anything"
POD, JOB, SELECTOR, RESOURCES, ENV = "pod template", "job", "selector", "resources", "environment"
WORDS = {"": TEXT}

# kubernetes-sigs/jobset, api/jobset/v1alpha2/jobset_types.go; the same in PyPI's kubeflow-trainer-api 2.3.0.
JOBSET = {
    "replicatedJobs": [{
        "name!": TEXT, "groupName": TEXT, "replicas": WHOLE,
        "template!": {"metadata": {"labels": WORDS, "annotations": WORDS}, "spec": JOB},
        "dependsOn": [{"name!": TEXT, "status!": {"Ready", "Complete"}}],
    }],
    "network": {"enableDNSHostnames": FLAG, "subdomain": TEXT, "publishNotReadyAddresses": FLAG},
    "successPolicy": {"operator!": {"All", "Any"}, "targetReplicatedJobs": [TEXT]},
    "failurePolicy": {
        "maxRestarts": WHOLE,
        "restartStrategy": {"Recreate", "BlockingRecreate", "InPlaceRestart"},
        "rules": [{
            "name!": TEXT,
            "action!": {"FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts", "RestartJob",
                        "RestartJobAndIgnoreMaxRestarts"},
            # The conditions with which Kubernetes ends a Job: k8s.io/api/batch/v1.
            "onJobFailureReasons": [{"BackoffLimitExceeded", "DeadlineExceeded", "FailedIndexes", "MaxFailedIndexesExceeded",
                                     "PodFailurePolicy"}],
            "onJobFailureMessagePatterns": [TEXT], "targetReplicatedJobs": [TEXT],
        }],
    },
    "startupPolicy": {"startupPolicyOrder!": {"AnyOrder", "InOrder"}},
    "suspend": FLAG,
    "coordinator": {"replicatedJob!": TEXT, "jobIndex": WHOLE, "podIndex": WHOLE},
    "managedBy": TEXT,
    "ttlSecondsAfterFinished": WHOLE,
    "volumeClaimPolicies": [ANY],
}

# PyPI's kubeflow-trainer-api 2.3.0 (kubeflow/trainer, pkg/apis/trainer/v1alpha1).
RUNTIME = {
    "mlPolicy": {"numNodes": WHOLE, "torch": ANY, "mpi": ANY, "flux": ANY, "jax": ANY, "xgboost": ANY},
    "podGroupPolicy": ANY,
    "template": {"metadata": {"labels": WORDS, "annotations": WORDS}, "spec": JOBSET},
}
TRAINJOB = {
    "runtimeRef!": {"apiGroup": TEXT, "kind": {"TrainingRuntime", "ClusterTrainingRuntime"}, "name!": TEXT},
    "trainer": {
        "image": TEXT, "command": [TEXT], "args": [TEXT], "env": ENV, "numNodes": WHOLE, "numProcPerNode": WHOLE,
        "resourcesPerNode": RESOURCES,
    },
    "initializer": ANY, "runtimePatches": [ANY], "suspend": FLAG, "managedBy": TEXT, "activeDeadlineSeconds": WHOLE,
}

# kubeflow/mpi-operator, pkg/apis/kubeflow/v2beta1/types.go.
REPLICAS = {"replicas": WHOLE, "template": POD, "restartPolicy": {"Always", "OnFailure", "Never", "ExitCode"}}
MPIJOB = {
    "slotsPerWorker": WHOLE, "runLauncherAsWorker": FLAG, "sshAuthMountPath": TEXT,
    "launcherCreationPolicy": {"AtStartup", "WaitForWorkersReady"},
    "mpiImplementation": {"OpenMPI", "Intel", "MPICH"},
    "mpiReplicaSpecs!": {"Launcher": REPLICAS, "Worker": REPLICAS},
    "runPolicy": {
        "cleanPodPolicy": {"", "All", "Running", "None"}, "ttlSecondsAfterFinished": WHOLE, "activeDeadlineSeconds": WHOLE,
        "backoffLimit": WHOLE, "suspend": FLAG, "managedBy": TEXT,
        "schedulingPolicy": {"minAvailable": WHOLE, "queue": TEXT, "minResources": ANY, "priorityClass": TEXT,
                             "scheduleTimeoutSeconds": WHOLE},
    },
}

# kubernetes-sigs/kueue, apis/kueue/v1beta2.
STOP = {"None", "Hold", "HoldAndDrain"}
FLAVOR = {"nodeLabels": WORDS, "nodeTaints": [ANY], "tolerations": [ANY], "topologyName": TEXT, "resourceWeights": ANY}
LOCAL_QUEUE = {"clusterQueue": TEXT, "stopPolicy": STOP, "fairSharing": ANY, "wallTimePolicy": ANY}
CLUSTER_QUEUE = {
    "resourceGroups": [{
        "coveredResources!": [TEXT],
        "flavors!": [{
            "name!": TEXT,
            "resources!": [{"name!": TEXT, "nominalQuota!": QUANTITY, "borrowingLimit": QUANTITY, "lendingLimit": QUANTITY}],
        }],
    }],
    "cohortName": TEXT,
    "queueingStrategy": {"StrictFIFO", "BestEffortFIFO"},
    "namespaceSelector": SELECTOR,
    "flavorFungibility": ANY,
    "preemption": {
        "reclaimWithinCohort": {"Never", "LowerPriority", "Any"},
        "borrowWithinCohort": {"policy": {"Never", "LowerPriority"}, "maxPriorityThreshold": WHOLE},
        "withinClusterQueue": {"Never", "LowerPriority", "LowerOrNewerEqualPriority"},
    },
    "admissionChecksStrategy": ANY, "stopPolicy": STOP, "fairSharing": ANY, "admissionScope": ANY, "concurrentAdmissionPolicy": ANY,
}

KINDS = {
    ("jobset.x-k8s.io/v1alpha2", "JobSet"): JOBSET,
    ("trainer.kubeflow.org/v1alpha1", "TrainJob"): TRAINJOB,
    ("trainer.kubeflow.org/v1alpha1", "TrainingRuntime"): RUNTIME,
    ("trainer.kubeflow.org/v1alpha1", "ClusterTrainingRuntime"): RUNTIME,
    ("kubeflow.org/v2beta1", "MPIJob"): MPIJOB,
    ("kueue.x-k8s.io/v1beta2", "ResourceFlavor"): FLAVOR,
    ("kueue.x-k8s.io/v1beta2", "ClusterQueue"): CLUSTER_QUEUE,
    ("kueue.x-k8s.io/v1beta2", "LocalQueue"): LOCAL_QUEUE,
}
