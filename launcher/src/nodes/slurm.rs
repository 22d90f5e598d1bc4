//! A Slurm allocation, from the variables that Slurm gives a job. Pure: the variables are handed in.

use super::Node;
use super::ranges::{MOST_HOSTS, RangeError, expand, split_list};
use super::spec::{MOST_SLOTS, SpecError, checked};

/// What Slurm says about the job that the launcher runs in, as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variables {
    /// `SLURM_JOB_NODELIST`, else `SLURM_NODELIST`.
    pub node_list: String,
    /// `SLURM_JOB_NUM_NODES`, else `SLURM_NNODES`.
    pub node_count: Option<String>,
    /// `SLURM_TASKS_PER_NODE`, where the user asked for tasks.
    pub tasks_per_node: Option<String>,
    /// `SLURMD_NODENAME`: what Slurm calls this machine.
    pub this_node: Option<String>,
}

/// Variables that contradict each other.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SlurmError {
    /// The list of nodes.
    #[error("SLURM_JOB_NODELIST={list:?}: {source}")]
    List {
        /// Its value.
        list: String,
        /// What is wrong.
        source: SpecError,
    },
    /// Another number of nodes than names.
    #[error("SLURM_JOB_NODELIST={list:?} names {names} nodes, but SLURM_JOB_NUM_NODES={count}")]
    Count {
        /// The list.
        list: String,
        /// How many it names.
        names: usize,
        /// The other number.
        count: String,
    },
    /// Tasks that cannot be read, or not of as many nodes.
    #[error("SLURM_TASKS_PER_NODE={text:?}: {why}")]
    Tasks {
        /// Its value.
        text: String,
        /// What is wrong.
        why: String,
    },
}

/// The nodes of the allocation, with the tasks that Slurm was asked to start on each.
pub fn nodes(variables: &Variables) -> Result<Vec<Node>, SlurmError> {
    let list = &variables.node_list;
    let names = names(list).map_err(|source| SlurmError::List { list: list.clone(), source })?;
    if let Some(count) = variables.node_count.as_ref().filter(|count| count.parse() != Ok(names.len())) {
        return Err(SlurmError::Count { list: list.clone(), names: names.len(), count: count.clone() });
    }
    let tasks = match &variables.tasks_per_node {
        None => vec![None; names.len()],
        Some(text) => tasks(text, names.len())?.into_iter().map(Some).collect(),
    };
    Ok(names.into_iter().zip(tasks).map(|(name, tasks)| Node { name, slots: None, tasks }).collect())
}

fn names(list: &str) -> Result<Vec<String>, SpecError> {
    let mut all = Vec::new();
    for part in split_list(list)? {
        for name in expand(part)? {
            all.push(checked(name)?);
        }
        if all.len() > MOST_HOSTS {
            return Err(RangeError::TooMany { text: list.into() }.into());
        }
    }
    Ok(all)
}

/// `8(x2),4` is 8, 8, 4.
fn tasks(text: &str, nodes: usize) -> Result<Vec<usize>, SlurmError> {
    let wrong = |why: String| SlurmError::Tasks { text: text.into(), why };
    let mut all = Vec::new();
    for part in text.split(',') {
        let (tasks, times) = group(part).ok_or_else(|| wrong(format!("{part:?} is not of the form 8 or 8(x2)")))?;
        if all.len() + times > nodes {
            return Err(wrong(format!("it speaks of more than the {nodes} nodes of the allocation")));
        }
        all.extend(std::iter::repeat_n(tasks, times));
    }
    if all.len() == nodes { Ok(all) } else { Err(wrong(format!("it speaks of {} of {nodes} nodes", all.len()))) }
}

fn group(part: &str) -> Option<(usize, usize)> {
    let number = |digits: &str, most| digits.parse().ok().filter(|n| (1..=most).contains(n));
    match part.split_once("(x") {
        None => Some((number(part, MOST_SLOTS)?, 1)),
        Some((tasks, rest)) => Some((number(tasks, MOST_SLOTS)?, number(rest.strip_suffix(')')?, MOST_HOSTS)?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(list: &str, count: &str, tasks: &str) -> Result<String, String> {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let variables =
            Variables { node_list: list.into(), node_count: some(count), tasks_per_node: some(tasks), this_node: None };
        let nodes = nodes(&variables).map_err(|e| e.to_string())?;
        Ok(nodes.iter().map(Node::to_string).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn an_allocation_is_read_as_slurm_writes_it() {
        assert_eq!(read("gpu[01-02],big7", "3", "8(x2),4").unwrap(), "gpu01:8 gpu02:8 big7:4");
        assert_eq!(read("gpu01", "1", "8").unwrap(), "gpu01:8");
        assert_eq!(read("gpu[01-02]", "", "").unwrap(), "gpu01 gpu02");
        assert_eq!(read("n[1-4]", "4", "2,1(x2),2").unwrap(), "n1:2 n2:1 n3:1 n4:2");
    }

    #[test]
    fn contradictions_are_named() {
        let wrong = [
            (("gpu[01-02]", "3", ""), "names 2 nodes, but SLURM_JOB_NUM_NODES=3"),
            (("gpu[01-", "2", ""), "SLURM_JOB_NODELIST"),
            (("gpu[01-02]", "2", "8(x3)"), "more than the 2 nodes"),
            (("gpu[01-02]", "2", "8"), "speaks of 1 of 2 nodes"),
            (("gpu01", "1", "8(x"), "not of the form"),
            (("gpu01", "1", "0"), "not of the form"),
            (("gpu01", "1", "1(x99999999999)"), "not of the form"),
        ];
        for ((list, count, tasks), message) in wrong {
            let error = read(list, count, tasks).unwrap_err();
            assert!(error.contains(message), "{list} {count} {tasks}: {error}");
        }
    }
}
