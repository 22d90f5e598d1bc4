//! The reducer on one rank: what it must see, say and never do.

use collectives::{Alone, Collective, Error, Label, Pending};
use jcs::ddp::{self, Layout, Limits, Reducer, Settings};
use jcs::model::{Init, Store};
use jcs::optim::Optimizer;
use protocol::config::Optim;
use std::sync::{Arc, Mutex};
use tch::{Device, Kind, Tensor};
use torch_ext::DeviceBuffer;

/// One rank that notes which buckets were sent, and the first gradient value of `watched[bucket]` then. What bytes are gathered
/// are its own, and `other`, where there is one.
#[derive(Default)]
struct Noting {
    other: Option<Vec<u8>>,
    sent: Mutex<Vec<(usize, f64)>>,
    watched: Mutex<Vec<Tensor>>,
}

impl Collective for Noting {
    fn rank(&self) -> usize {
        0
    }
    fn world_size(&self) -> usize {
        1
    }
    fn name(&self) -> String {
        "noting".into()
    }
    fn all_reduce(&self, buffer: DeviceBuffer, label: Label) -> Pending {
        let bucket = label.bucket.unwrap();
        let value = self.watched.lock().unwrap().get(bucket).map_or(0.0, |t| t.grad().double_value(&[0]));
        self.sent.lock().unwrap().push((bucket, value));
        Alone.all_reduce(buffer, label)
    }
    fn broadcast(&self, _: DeviceBuffer, _: usize, _: Label) -> Result<(), Error> {
        Ok(())
    }
    fn all_gather(&self, bytes: Vec<u8>, label: Label) -> Result<Vec<Vec<u8>>, Error> {
        Ok(Alone.all_gather(bytes, label)?.into_iter().chain(self.other.clone()).collect())
    }
    fn barrier(&self, _: Label) -> Result<(), Error> {
        Ok(())
    }
    fn any(&self, flag: bool, _: Label) -> Result<bool, Error> {
        Ok(flag)
    }
    fn shutdown(&self, _: Label) -> Result<(), Error> {
        Ok(())
    }
}

/// Parameters a, b, c of 16 values each; one bucket each.
fn store() -> (Store, [Tensor; 3]) {
    let mut store = Store::new(Device::Cpu);
    let mut root = store.root();
    let parameters = ["a", "b", "c"].map(|n| root.parameter(n, &[16], Init::Const(1.0)));
    (store, parameters)
}

const ONE_EACH: Limits = Limits { first: 1, rest: 1 };

fn reducer(store: &Store, overlap: bool) -> (Reducer, Arc<Noting>) {
    let notes = Arc::new(Noting::default());
    (with(notes.clone(), store, None, overlap).unwrap(), notes)
}

fn with(
    collective: Arc<dyn Collective>,
    store: &Store,
    layout: Option<Layout>,
    overlap: bool,
) -> Result<Reducer, ddp::Error> {
    let settings = Settings { layout, limits: ONE_EACH, overlap, compress: false };
    Reducer::new(collective, store, Optimizer::new(&Optim::default()), settings)
}

fn sent(notes: &Noting) -> Vec<usize> {
    notes.sent.lock().unwrap().iter().map(|(bucket, _)| *bucket).collect()
}

#[test]
fn accumulation_adds_and_communicates_once() {
    let (store, [a, b, c]) = store();
    let (mut r, notes) = reducer(&store, true);
    let loss = |k: f64| (&a * k + &b * (2.0 * k) + &c).sum(Kind::Float);
    r.flats.zero_gradients();
    r.backward(&loss(1.0), 0, false).unwrap();
    assert_eq!(sent(&notes), [0usize; 0]);
    r.backward(&loss(3.0), 0, true).unwrap();
    r.finish(0.25).unwrap();
    assert_eq!(sent(&notes), [0, 1, 2]);
    let gradient = |t: &Tensor| t.grad().double_value(&[0]);
    assert_eq!([gradient(&a), gradient(&b), gradient(&c)], [1.0, 2.0, 0.5]);
}

#[test]
fn buckets_leave_in_the_order_of_their_index_whatever_order_they_fill_in() {
    let (store, [a, b, c]) = store();
    // Bucket 0 holds a, whose gradient comes last: c and b wait for it.
    let notes = Arc::new(Noting::default());
    *notes.watched.lock().unwrap() = [&a, &b, &c].map(Tensor::shallow_clone).into();
    let layout = Layout { buckets: vec![vec![0], vec![1], vec![2]], settled: true };
    let mut r = with(notes.clone(), &store, Some(layout), true).unwrap();
    r.backward(&((&a * 2.0 + &b) * &c).sum(Kind::Float), 5, true).unwrap();
    // Each with its gradient complete: none leaves before it is full.
    assert_eq!(*notes.sent.lock().unwrap(), [(0, 2.0), (1, 1.0), (2, 3.0)]);
    r.finish(1.0).unwrap();
}

#[test]
fn without_overlap_nothing_leaves_before_the_end() {
    let (store, [a, b, c]) = store();
    let (mut r, notes) = reducer(&store, false);
    r.backward(&(&a + &b + &c).sum(Kind::Float), 0, true).unwrap();
    assert_eq!(sent(&notes), [0usize; 0]);
    r.finish(1.0).unwrap();
    assert_eq!(sent(&notes), [0, 1, 2]);
}

#[test]
fn a_parameter_without_gradient_is_named() {
    let (store, [a, _, _]) = store();
    let (mut r, _) = reducer(&store, true);
    let error = r.backward(&a.sum(Kind::Float), 0, true).unwrap_err();
    assert!(matches!(&error, ddp::Error::NoGradient { name, more: 1 } if name == "b"), "{error}");
    assert!(error.to_string().contains("'b' (and 1 more) got no gradient"), "{error}");
}

#[test]
fn a_parameter_that_the_loss_does_not_use_can_be_frozen_and_leaves_the_buckets() {
    let (mut store, [a, b, c]) = store();
    (&a * 2.0 + &c).sum(Kind::Float).backward();
    assert_eq!(store.freeze_without_gradient(), ["b"]);
    assert!(!b.requires_grad() && !a.grad().defined());
    let (mut r, notes) = reducer(&store, true);
    r.backward(&(&a * 2.0 + &c).sum(Kind::Float), 0, true).unwrap();
    r.finish(1.0).unwrap();
    assert_eq!(sent(&notes), [0, 1]);
}

#[test]
fn settling_moves_the_buckets_but_no_value() {
    let (store, [a, b, c]) = store();
    tch::no_grad(|| a.detach().copy_(&Tensor::arange(16, (Kind::Float, Device::Cpu))));
    let (mut r, _) = reducer(&store, true);
    assert_eq!(r.flats.layout().buckets, [vec![2], vec![1], vec![0]]);
    r.backward(&((&b * 2.0 + &a) * &c).sum(Kind::Float), 0, true).unwrap();
    r.finish(1.0).unwrap();
    r.flats.set_state_of(0, &[&a.detach(), &(a.detach() * 2.0)]);
    r.settle(1).unwrap();
    assert!(r.flats.layout().settled);
    assert_eq!(a.double_value(&[7]), 7.0);
    assert_eq!(r.flats.state_of(0)[1].double_value(&[7]), 14.0);
    let settled = r.flats.layout().clone();
    r.flats.zero_gradients();
    r.backward(&((&b * 2.0 + &a) * &c).sum(Kind::Float), 1, true).unwrap();
    r.finish(1.0).unwrap();
    r.settle(2).unwrap();
    assert_eq!((r.flats.layout(), c.grad().double_value(&[7])), (&settled, 9.0));
}

#[test]
fn a_layout_of_another_network_is_refused() {
    let (store, _) = store();
    let layout = Layout { buckets: vec![vec![0], vec![7]], settled: true };
    let error = with(Arc::new(Alone), &store, Some(layout), true).err().unwrap();
    assert!(error.to_string().contains("does not fit the network"), "{error}");
}

#[test]
fn passes_after_it_is_abandoned_send_nothing_and_leave_alone_what_travels() {
    let (store, [a, b, c]) = store();
    let (mut r, notes) = reducer(&store, true);
    r.flats.zero_gradients();
    // The bucket of `c` is on its way when the pass fails.
    torch_ext::set_grad_hook(&a, || Err("no memory".into())).unwrap();
    let loss = || (&a + &b + &c).sum(Kind::Float);
    assert!(r.backward(&loss(), 0, true).is_err());
    let (before, travels) = (sent(&notes), c.grad());
    assert_eq!(before.first(), Some(&0));
    r.abandon().unwrap();
    assert!(!c.grad().defined());
    loss().backward();
    assert_eq!(sent(&notes), before);
    assert_eq!((travels.double_value(&[0]), c.grad().double_value(&[0])), (1.0, 1.0));
}

#[test]
fn it_can_be_abandoned_before_the_first_pass() {
    let (store, [a, b, c]) = store();
    let (mut r, notes) = reducer(&store, true);
    r.abandon().unwrap();
    (&a + &b + &c).sum(Kind::Float).backward();
    assert_eq!(sent(&notes), [0usize; 0]);
}

#[test]
fn a_rank_with_another_network_is_named() {
    let (store, _) = store();
    let ours = ddp::describe_parameters(&store);
    let other = Noting { other: Some(ours.join("\n").replace("b [16]", "b [17]").into_bytes()), ..Noting::default() };
    let error = ddp::same_everywhere(&other, "its parameters", &ours).unwrap_err().to_string();
    let told = "rank 1 differs from rank 0 in its parameters: 'b [17] Float' there, 'b [16] Float' on rank 0";
    assert!(error.starts_with(told), "{error}");
    assert!(
        ddp::same_everywhere(&Noting { other: Some(ours.join("\n").into_bytes()), ..Noting::default() }, "", &ours)
            .is_ok()
    );
}
