//! mpirun's options and environment: how it reaches the hosts, which networks it uses, what it hands on. Pure.
//!
//! Nothing secret stands in an option: whoever may list processes on a host would read it. Variables travel by name.

use crate::machine::Machine;
use crate::nodes::Reach;
use protocol::env;

/// The ssh that starts the daemons, where the user names none: it never asks for a password or for trust in a host key,
/// because nobody sits at this terminal.
pub const SSH: &str = "ssh -o BatchMode=yes -o ConnectTimeout=10";
/// By this variable a user puts another program in ssh's place.
pub const SSH_VARIABLE: &str = "PRTE_MCA_plm_ssh_agent";

/// Bridges that container engines and hypervisors make on every host, with the same address on each: a message to one
/// never leaves the host.
pub const HOST_ONLY: [&str; 6] = ["docker0", "podman0", "cni-podman0", "lxcbr0", "lxdbr0", "virbr0"];

/// Variables that mean on every host what they mean here. `CUDA_VISIBLE_DEVICES` is none: each host has its own.
const SHARED_PREFIXES: [&str; 16] = [
    "JCS_",
    "OMP_",
    "KMP_",
    "MKL_",
    "OPENBLAS_",
    // What of a processor oneDNN and libtorch use: other instructions round otherwise.
    "ONEDNN_",
    "DNNL_",
    "ATEN_",
    "TORCH_",
    "PYTORCH_",
    "NCCL_",
    "UCX_",
    "FI_",
    "AWS_",
    "RUST_",
    "MALLOC_",
];
/// Proxies, without which shards behind URLs are out of reach.
const SHARED: [&str; 6] = ["http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"];
/// Set for every worker, and different for each or for every start.
const OWN: [&str; 8] = [
    env::JCS_TOKEN,
    env::JCS_LAUNCHER,
    env::JCS_RESTART,
    env::RANK,
    env::LOCAL_RANK,
    env::WORLD_SIZE,
    env::LOCAL_WORLD_SIZE,
    env::NODE_RANK,
];

/// mpirun would pin every worker to one core, and waiting workers would spin. The hosts are given with every worker, so
/// that neither a hostfile nor a scheduler decides where it runs or how many there are.
pub fn options(reach: Reach, machine: &Machine) -> Vec<String> {
    let mut all = vec!["--map-by", ":OVERSUBSCRIBE", "--bind-to", "none", "--mca", "mpi_yield_when_idle", "1"];
    all.extend(["--output", "tag"]);
    match reach {
        Reach::Here => {}
        Reach::Slurm => all.extend(["--prtemca", "plm", "slurm"]),
        // From one host to all, so that only this one needs keys for the others.
        Reach::Ssh => all.extend(["--prtemca", "plm", "ssh", "--prtemca", "plm_ssh_no_tree_spawn", "1"]),
    }
    if reach == Reach::Ssh && !machine.has(SSH_VARIABLE) {
        all.extend(["--prtemca", "plm_ssh_agent", SSH]);
    }
    all.extend(["-x", env::JCS_TOKEN]);
    let mut all: Vec<String> = all.into_iter().map(String::from).collect();
    if reach != Reach::Here {
        all.extend(forwarded(&machine.variables).into_iter().flat_map(|name| ["-x".into(), name.to_owned()]));
    }
    all
}

/// What a worker on another host gets besides its own place. On one host it inherits everything.
fn forwarded(variables: &[String]) -> Vec<&str> {
    let shared = |name: &str| SHARED.contains(&name) || SHARED_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    // mpirun cuts a name at an equals sign and reads a star as a pattern.
    let plain = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let names = variables.iter().map(String::as_str);
    let mut all: Vec<&str> = names.filter(|name| shared(name) && plain(name) && !OWN.contains(name)).collect();
    all.sort_unstable();
    all
}

/// What mpirun finds in its environment besides the launcher's own. Networks that the user chose stay as they are.
pub fn environment(reach: Reach, machine: &Machine) -> Vec<(String, String)> {
    let mut all = Vec::new();
    if machine.root {
        all.extend(["OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"].map(|name| (name, "1".to_owned())));
    }
    let chosen = |names: &[&str]| names.iter().any(|name| machine.has(name));
    // Not so for mpirun's daemons: they try all addresses of each other, and PRRTE 3.0.11 crashes on some lists of
    // interfaces to leave out.
    if reach != Reach::Here && !chosen(&["OMPI_MCA_btl_tcp_if_include", "OMPI_MCA_btl_tcp_if_exclude"]) {
        all.push(("OMPI_MCA_btl_tcp_if_exclude", format!("127.0.0.0/8,sppp,{}", HOST_ONLY.join(","))));
    }
    all.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(variables: &[&str]) -> Machine {
        let variables = variables.iter().map(|name| (*name).to_owned()).collect();
        Machine {
            host: "gpu01".into(),
            cores: 2,
            gpus: 0,
            omp_num_threads: None,
            root: false,
            folder: "/work".into(),
            variables,
        }
    }

    fn line(reach: Reach, variables: &[&str]) -> String {
        options(reach, &machine(variables)).join(" ")
    }

    #[test]
    fn each_way_to_the_hosts_is_chosen_and_not_guessed() {
        let ssh = line(Reach::Ssh, &[]);
        assert!(ssh.contains("--prtemca plm ssh --prtemca plm_ssh_no_tree_spawn 1"), "{ssh}");
        assert!(ssh.contains("--prtemca plm_ssh_agent ssh -o BatchMode=yes"), "{ssh}");
        assert!(!line(Reach::Ssh, &[SSH_VARIABLE]).contains("agent"));
        let slurm = line(Reach::Slurm, &[]);
        assert!(slurm.contains("--prtemca plm slurm") && !slurm.contains("ssh"), "{slurm}");
        assert!(!line(Reach::Here, &[]).contains("plm"));
    }

    #[test]
    fn what_means_the_same_on_every_host_travels_by_name() {
        let set = [
            "PATH",
            "NCCL_DEBUG",
            "ONEDNN_MAX_CPU_ISA",
            "ATEN_CPU_CAPABILITY",
            "JCS_LOG",
            "AWS_SECRET_ACCESS_KEY",
            "CUDA_VISIBLE_DEVICES",
            "JCS_TOKEN",
            "OMP_x*",
        ];
        let ssh = line(Reach::Ssh, &set);
        let shared = ["ATEN_CPU_CAPABILITY", "AWS_SECRET_ACCESS_KEY", "JCS_LOG", "NCCL_DEBUG", "ONEDNN_MAX_CPU_ISA"];
        assert!(ssh.ends_with(&format!("-x JCS_TOKEN -x {}", shared.join(" -x "))), "{ssh}");
        assert!(line(Reach::Here, &set).ends_with("--output tag -x JCS_TOKEN"));
    }

    #[test]
    fn networks_are_the_users_or_all_but_those_of_one_host() {
        let names = |reach, set: &[&str]| {
            let all = environment(reach, &machine(set));
            all.iter().map(|(name, _)| name.as_str().to_owned()).collect::<Vec<_>>()
        };
        let ours = ["OMPI_MCA_btl_tcp_if_exclude"];
        assert_eq!(names(Reach::Ssh, &[]), ours);
        assert_eq!(names(Reach::Slurm, &["OMPI_MCA_btl", "PRTE_MCA_prte_if_include"]), ours);
        assert!(names(Reach::Here, &[]).is_empty());
        for given in ["OMPI_MCA_btl_tcp_if_include", "OMPI_MCA_btl_tcp_if_exclude"] {
            assert!(names(Reach::Ssh, &[given]).is_empty(), "{given}");
        }
    }
}
