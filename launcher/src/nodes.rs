//! `--nodes`: which machines. Pure; this version runs on one machine, the one it is started on.

/// What `--nodes` asks for on this machine: a number of workers, where one is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThisMachine {
    /// The number after the colon.
    pub slots: Option<usize>,
}

/// A `--nodes` that this version cannot serve.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NodesError {
    /// Other machines, or more than one.
    #[error(
        "--nodes {spec}: this version runs on one machine, the one it is started on: --nodes 1, --nodes localhost:N or --nodes {this_host}:N"
    )]
    Elsewhere {
        /// The value as given.
        spec: String,
        /// This machine's name.
        this_host: String,
    },
    /// A number after the colon that is none.
    #[error("--nodes {spec}: {slots:?} is no number of workers (as in localhost:2)")]
    Slots {
        /// The value as given.
        spec: String,
        /// What stands after the colon.
        slots: String,
    },
}

/// Reads the value of `--nodes` on the machine called `this_host`.
pub fn parse(spec: &str, this_host: &str) -> Result<ThisMachine, NodesError> {
    let (host, slots) = match spec.split_once(':') {
        Some((host, slots)) => (host, Some(slots)),
        None => (spec, None),
    };
    let here = [this_host, first_label(this_host), "localhost", "127.0.0.1"].contains(&host);
    if !(here || (spec == "1" && slots.is_none())) {
        return Err(NodesError::Elsewhere { spec: spec.into(), this_host: this_host.into() });
    }
    match slots.map(|s| s.parse().ok().filter(|n| (1..=1024).contains(n)).ok_or(s)) {
        None => Ok(ThisMachine { slots: None }),
        Some(Ok(n)) => Ok(ThisMachine { slots: Some(n) }),
        Some(Err(slots)) => Err(NodesError::Slots { spec: spec.into(), slots: slots.into() }),
    }
}

fn first_label(host: &str) -> &str {
    host.split('.').next().unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_many_names() {
        for spec in ["1", "localhost", "gpu01", "gpu01.lab", "127.0.0.1"] {
            assert_eq!(parse(spec, "gpu01.lab"), Ok(ThisMachine { slots: None }), "{spec}");
        }
        assert_eq!(parse("gpu01:4", "gpu01"), Ok(ThisMachine { slots: Some(4) }));
    }

    #[test]
    fn other_machines_are_refused_by_name() {
        for spec in ["2", "0", "1:1", "1:4", "gpu02:8", "gpu01,gpu02", "gpu[01-04]:8", "k8s", ""] {
            let error = parse(spec, "gpu01").unwrap_err();
            assert!(matches!(error, NodesError::Elsewhere { .. }), "{spec}: {error}");
        }
    }

    #[test]
    fn slots_are_a_positive_number() {
        for spec in ["localhost:", "localhost:0", "localhost:two", "localhost:1:1", "localhost:-1"] {
            assert!(matches!(parse(spec, "h"), Err(NodesError::Slots { .. })), "{spec}");
        }
    }
}
