//! Hosts from Kubernetes: the pods of an Indexed Job, which a headless Service gives names. Pure.
//!
//! A pod of such a Job is called by the Job's name and its index, and has the name `JOB-INDEX.SERVICE`
//! (kubernetes.io/docs/tasks/job/job-with-pod-to-pod-communication).

use super::Node;

/// How many pods there are, or MIN:MAX.
pub const NODES: &str = "JCS_K8S_NODES";
/// The Service.
pub const SERVICE: &str = "JCS_K8S_SERVICE";
/// The pod's number, which Kubernetes sets.
pub const INDEX: &str = "JOB_COMPLETION_INDEX";

/// What a pod's environment says.
#[derive(Clone, Debug, Default)]
pub struct Variables {
    /// [`NODES`].
    pub nodes: Option<String>,
    /// [`SERVICE`].
    pub service: Option<String>,
    /// [`INDEX`].
    pub index: Option<String>,
}

impl Variables {
    /// Of this process.
    pub fn of_process() -> Variables {
        let get = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        Variables { nodes: get(NODES), service: get(SERVICE), index: get(INDEX) }
    }
}

/// An environment that is not that of our manifests.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum K8sError {
    /// A variable is not set.
    #[error("--nodes k8s needs {0}, which k8s/base sets")]
    Missing(&'static str),
    /// A variable makes no sense.
    #[error("{variable}={value}: expected {expected}")]
    Wrong {
        /// Which.
        variable: &'static str,
        /// Its value.
        value: String,
        /// What it should be.
        expected: &'static str,
    },
    /// The host name is not that of a pod of an Indexed Job.
    #[error(
        "this host is called {host}, and a pod of index {index} of an Indexed Job is called JOB-{index}: does the pod's template set a hostname?"
    )]
    Hostname {
        /// The host name.
        host: String,
        /// The index.
        index: usize,
    },
}

/// The pods of the job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pods {
    /// All of them.
    pub list: Vec<Node>,
    /// The job does not run on fewer.
    pub least: usize,
    /// The number of this one.
    pub index: usize,
}

/// The pods, seen from the one called `host`.
pub fn pods(variables: &Variables, host: &str) -> Result<Pods, K8sError> {
    let service = variables.service.as_deref().ok_or(K8sError::Missing(SERVICE))?;
    let nodes = variables.nodes.as_deref().ok_or(K8sError::Missing(NODES))?;
    let index = variables.index.as_deref().ok_or(K8sError::Missing(INDEX))?;
    let wrong = |variable, value: &str, expected| K8sError::Wrong { variable, value: value.into(), expected };
    let number = |text: &str| text.parse::<usize>().ok().filter(|n| (1..=MOST).contains(n));
    let (least, most) = nodes.split_once(':').unwrap_or((nodes, nodes));
    let bounds = number(least).zip(number(most)).filter(|(least, most)| least <= most);
    let (least, most) = bounds.ok_or_else(|| wrong(NODES, nodes, "a number of pods, or MIN:MAX"))?;
    let index = index.parse().ok().filter(|index| *index < most);
    let index = index.ok_or_else(|| {
        let value = variables.index.as_deref().unwrap_or_default();
        wrong(INDEX, value, "a number below that of the pods (parallelism = completions = JCS_K8S_NODES)")
    })?;
    let label = host.split('.').next().unwrap_or_default();
    let job = label.strip_suffix(&format!("-{index}")).filter(|job| !job.is_empty());
    let job = job.ok_or_else(|| K8sError::Hostname { host: host.into(), index })?;
    let list = (0..most).map(|i| Node::new(format!("{job}-{i}.{service}"), None)).collect();
    Ok(Pods { list, least, index })
}

/// More pods than this are a slip of the finger.
const MOST: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn of(nodes: &str, index: &str, host: &str) -> Result<Pods, K8sError> {
        let some = |text: &str| Some(text.to_owned());
        pods(&Variables { nodes: some(nodes), service: some("jcs"), index: some(index) }, host)
    }

    #[test]
    fn pods_are_called_by_job_index_and_service() {
        let pods = of("3", "1", "covid-7-1").unwrap();
        let names: Vec<&str> = pods.list.iter().map(|node| node.name.as_str()).collect();
        assert_eq!(names, ["covid-7-0.jcs", "covid-7-1.jcs", "covid-7-2.jcs"]);
        assert_eq!((pods.least, pods.index), (3, 1));
        let elastic = of("1:2", "0", "covid-0.jcs.default.svc.cluster.local").unwrap();
        assert_eq!((elastic.list.len(), elastic.least, elastic.index), (2, 1, 0));
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let said = |result: Result<Pods, K8sError>| result.unwrap_err().to_string();
        assert!(said(pods(&Variables::default(), "a-0")).contains("JCS_K8S_SERVICE"));
        for nodes in ["0", "x", "3:2", "1:", "99999"] {
            assert!(said(of(nodes, "0", "a-0")).starts_with(&format!("JCS_K8S_NODES={nodes}: ")), "{nodes}");
        }
        assert!(said(of("2", "2", "a-2")).starts_with("JOB_COMPLETION_INDEX=2: "));
        for host in ["a-1", "-0", "gpu01"] {
            assert!(said(of("2", "0", host)).contains("Indexed Job"), "{host}");
        }
    }
}
