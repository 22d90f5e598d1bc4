//! Tests of the choice of machines.

use super::*;

const HERE: Given = Given { spec: None, hostfile: None, slurm: None, k8s: None, this_host: "gpu01" };

fn allocation(list: &str, tasks: Option<&str>) -> slurm::Variables {
    slurm::Variables {
        node_list: list.into(),
        node_count: None,
        tasks_per_node: tasks.map(String::from),
        this_node: None,
    }
}

fn chosen(given: Given) -> Result<(String, Reach), String> {
    let nodes = choose(&given).map_err(|e| e.to_string())?;
    Ok((nodes.list.iter().map(Node::to_string).collect::<Vec<_>>().join(" "), nodes.reach))
}

fn of(spec: &str) -> Result<(String, Reach), String> {
    chosen(Given { spec: Some(spec), ..HERE })
}

#[test]
fn this_machine_has_many_names() {
    let here = |name: &str| Ok((name.to_owned(), Reach::Here));
    assert_eq!(chosen(HERE), here("gpu01"));
    for (spec, name) in [("1", "gpu01"), ("1:1", "gpu01"), ("gpu01.lab:4", "gpu01.lab:4"), ("GPU01", "GPU01")] {
        assert_eq!(of(spec), here(name), "{spec}");
    }
    for spec in ["localhost", "127.0.0.1:2", "[::1]:2"] {
        assert_eq!(of(spec), here(spec));
    }
    let full = Given { spec: Some("gpu01"), this_host: "gpu01.lab", ..HERE };
    assert_eq!(chosen(full), here("gpu01"));
    let other = Given { spec: Some("gpu01.home"), this_host: "gpu01.lab", ..HERE };
    assert_eq!(chosen(other), Ok(("gpu01.home".into(), Reach::Ssh)));
}

#[test]
fn hosts_are_reached_over_ssh() {
    assert_eq!(of("gpu02:8"), Ok(("gpu02:8".into(), Reach::Ssh)));
    assert_eq!(of("gpu[01-02]:8"), Ok(("gpu01:8 gpu02:8".into(), Reach::Ssh)));
}

#[test]
fn a_number_without_hosts_says_what_to_give() {
    for spec in ["2", "1:4", "2:4"] {
        let error = of(spec).unwrap_err();
        assert!(error.contains("--hostfile FILE") && error.contains("--nodes 1 is this machine"), "{error}");
    }
}

#[test]
fn hosts_named_twice_are_refused_with_both_places() {
    let error = of("gpu01:4,gpu02:8,Gpu01:4").unwrap_err();
    assert!(error.contains("host Gpu01 stands there twice, at positions 1 and 3"), "{error}");
    assert!(of("gpu[01-03,02]").unwrap_err().contains("positions 2 and 4"));
}

#[test]
fn localhost_is_no_name_beside_others() {
    let error = of("localhost:2,gpu02:2").unwrap_err();
    assert!(error.contains("by its name (gpu01)"), "{error}");
}

#[test]
fn a_hostfile_is_taken_whole_or_in_part() {
    let file = Some((Path::new("hosts"), "gpu01 slots=2\ngpu02 slots=2\ngpu03 slots=1\n"));
    let with = |spec| chosen(Given { spec, hostfile: file, ..HERE });
    assert_eq!(with(None).unwrap(), ("gpu01:2 gpu02:2 gpu03:1".into(), Reach::Ssh));
    assert_eq!(with(Some("2")).unwrap().0, "gpu01:2 gpu02:2");
    assert_eq!(with(Some("2:8")).unwrap().0, "gpu01:2 gpu02:2 gpu03:1");
    assert_eq!(with(Some("1")).unwrap(), ("gpu01:2".into(), Reach::Here));
    assert_eq!(with(Some("4")).unwrap_err(), "--nodes 4: 4 hosts asked for, 3 in hosts (4 - 3 = 1 missing)");
    assert!(with(Some("gpu01")).unwrap_err().contains("both name hosts"));
}

#[test]
fn slurms_allocation_is_taken_whole_or_in_part() {
    let variables = allocation("gpu[02-04]", Some("8(x2),4"));
    let with = |spec| chosen(Given { spec, slurm: Some(&variables), ..HERE });
    assert_eq!(with(None).unwrap(), ("gpu02:8 gpu03:8 gpu04:4".into(), Reach::Slurm));
    assert_eq!(with(Some("2")).unwrap(), ("gpu02:8 gpu03:8".into(), Reach::Slurm));
    assert_eq!(with(Some("2:9")).unwrap().0, "gpu02:8 gpu03:8 gpu04:4");
    assert_eq!(with(Some("gpu04:2,gpu02")).unwrap(), ("gpu04:2 gpu02".into(), Reach::Slurm));
    let error = with(Some("5:6")).unwrap_err();
    assert!(error.contains("3 in the Slurm allocation (5 - 3 = 2 missing)"), "{error}");
    assert!(with(Some("gpu02,gpu09")).unwrap_err().contains("gpu09 is not in this job's Slurm allocation"));
}

#[test]
fn an_allocation_of_this_machine_needs_no_srun() {
    let own = |this_node: Option<&str>, list| {
        let variables = slurm::Variables { this_node: this_node.map(String::from), ..allocation(list, None) };
        chosen(Given { slurm: Some(&variables), ..HERE }).unwrap().1
    };
    assert_eq!([own(None, "gpu01"), own(Some("node7"), "node7")], [Reach::Here, Reach::Here]);
    assert_eq!([own(None, "gpu[01-02]"), own(Some("node7"), "node8")], [Reach::Slurm, Reach::Slurm]);
}

#[test]
fn wrong_specs_are_quoted() {
    for (spec, part) in [("gpu[01-", "--nodes gpu[01-: "), ("k8s", "needs JCS_K8S_SERVICE"), ("0", "0")] {
        let error = of(spec).unwrap_err();
        assert!(error.contains(part), "{error}");
    }
}
