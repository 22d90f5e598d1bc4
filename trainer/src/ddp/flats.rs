//! Weights, gradients and optimizer state of all parameters, in flat buffers that follow a [`Layout`].

use super::Error;
use super::layout::{Layout, Parameter};
use crate::model::Store;
use crate::optim::{Optimizer, Part};
use collectives::{Collective, Label};
use tch::{Device, Kind, Tensor};
use torch_ext::DeviceBuffer;

/// The flat buffers of one bucket.
#[derive(Debug)]
struct Bucket {
    values: Tensor,
    gradient: Tensor,
    /// One for each of [`Optimizer::slots`].
    slots: Vec<Tensor>,
    /// Factor of the rate of each element; none where all are 1.
    rates: Option<Tensor>,
    offsets: Vec<usize>,
}

/// Flat buffers of a network. Invariant: each parameter's data and gradient are views into its
/// bucket's `values` and `gradient`.
#[derive(Debug)]
pub struct Flats {
    parameters: Vec<Parameter>,
    /// The leaves of autograd, by parameter index.
    leaves: Vec<Tensor>,
    layout: Layout,
    optimizer: Optimizer,
    buckets: Vec<Bucket>,
}

impl Flats {
    /// Moves the trainable tensors of `store` into buffers of this layout.
    pub fn new(store: &Store, layout: Layout, optimizer: Optimizer) -> Result<Flats, Error> {
        let parameters = describe(store);
        let leaves = store.trainable().map(|e| e.tensor.shallow_clone()).collect();
        layout.check(parameters.len()).map_err(Error::Layout)?;
        let mut flats = Flats { parameters, leaves, layout, optimizer, buckets: Vec::new() };
        flats.buckets = flats.build(|_| None);
        flats.attach()?;
        Ok(flats)
    }

    /// Moves everything into buffers of another layout; no value changes.
    pub fn rearrange(&mut self, layout: Layout) -> Result<(), Error> {
        layout.check(self.parameters.len()).map_err(Error::Layout)?;
        // Views keep the old buckets alive until they are copied.
        let state: Vec<Vec<Tensor>> = (0..self.parameters.len()).map(|p| self.state_of(p)).collect();
        self.layout = layout;
        self.buckets = self.build(|p| Some(&state[p]));
        self.attach()
    }

    /// Buckets with the weights as they are, and the optimizer's state of each parameter where there is one.
    fn build<'a>(&self, state: impl Fn(usize) -> Option<&'a Vec<Tensor>>) -> Vec<Bucket> {
        let device = self.leaves.first().map_or(Device::Cpu, Tensor::device);
        let bucket = |b: usize| {
            let (offsets, length) = self.layout.offsets(b, &self.parameters);
            let zeros = || Tensor::zeros([length as i64], (Kind::Float, device));
            let (values, slots) = (zeros(), self.optimizer.slots().iter().map(|_| zeros()).collect::<Vec<_>>());
            for (&p, &offset) in self.layout.buckets[b].iter().zip(&offsets) {
                self.view(&values, p, offset).copy_(&self.leaves[p].detach());
                for (slot, state) in slots.iter().zip(state(p).into_iter().flatten()) {
                    self.view(slot, p, offset).copy_(state);
                }
            }
            Bucket { rates: self.rates(b, &offsets, zeros()), values, gradient: zeros(), slots, offsets }
        };
        tch::no_grad(|| (0..self.layout.buckets.len()).map(bucket).collect())
    }

    fn rates(&self, b: usize, offsets: &[usize], flat: Tensor) -> Option<Tensor> {
        let members = &self.layout.buckets[b];
        let factor = |p: usize| self.optimizer.factor(&self.parameters[p].name);
        if members.iter().all(|&p| factor(p) == 1.0) {
            return None;
        }
        for (&p, &offset) in members.iter().zip(offsets) {
            let _ = self.view(&flat, p, offset).fill_(factor(p));
        }
        Some(flat)
    }

    /// Makes each parameter's data and gradient views into its bucket.
    fn attach(&mut self) -> Result<(), Error> {
        for (b, bucket) in self.buckets.iter().enumerate() {
            for (&p, &offset) in self.layout.buckets[b].iter().zip(&bucket.offsets) {
                let value = self.view(&bucket.values, p, offset);
                self.leaves[p].set_data(&value);
                torch_ext::set_grad(&self.leaves[p], &self.view(&bucket.gradient, p, offset))?;
            }
        }
        Ok(())
    }

    fn view(&self, flat: &Tensor, p: usize, offset: usize) -> Tensor {
        let parameter = &self.parameters[p];
        flat.narrow(0, offset as i64, parameter.elements() as i64).view(parameter.shape.as_slice())
    }

    fn place(&self, p: usize) -> (usize, usize) {
        for (b, members) in self.layout.buckets.iter().enumerate() {
            if let Some(i) = members.iter().position(|&q| q == p) {
                return (b, self.buckets[b].offsets[i]);
            }
        }
        unreachable!("Layout::check holds for every layout of Flats")
    }

    /// Names of the optimizer's state, in the order of [`Self::state_of`].
    pub fn slots(&self) -> &'static [&'static str] {
        self.optimizer.slots()
    }

    /// The optimizer's state of a parameter: views into the buckets, which the next step overwrites.
    pub fn state_of(&self, p: usize) -> Vec<Tensor> {
        let (b, offset) = self.place(p);
        self.buckets[b].slots.iter().map(|slot| self.view(slot, p, offset)).collect()
    }

    /// Sets the optimizer's state of a parameter; all tensors of its shape.
    pub fn set_state_of(&mut self, p: usize, state: &[&Tensor]) {
        let (b, offset) = self.place(p);
        for (slot, state) in self.buckets[b].slots.iter().zip(state) {
            self.view(slot, p, offset).copy_(state);
        }
    }

    /// Gives every rank the optimizer's state of rank `root`.
    pub fn broadcast_state(&self, collective: &dyn Collective, root: usize) -> Result<(), Error> {
        let label = Label::new(0, "optimizer broadcast");
        for slot in self.buckets.iter().flat_map(|b| &b.slots) {
            collective.broadcast(DeviceBuffer::new(slot)?, root, label)?;
        }
        Ok(())
    }

    /// The parameters, in registration order.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// The leaf of a parameter.
    pub(super) fn leaf(&self, p: usize) -> &Tensor {
        &self.leaves[p]
    }

    /// The layout in force.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The flat gradient of each bucket.
    pub(super) fn gradients(&self) -> impl Iterator<Item = &Tensor> {
        self.buckets.iter().map(|b| &b.gradient)
    }

    /// The flat weights of each bucket.
    pub(super) fn values(&self) -> impl Iterator<Item = &Tensor> {
        self.buckets.iter().map(|b| &b.values)
    }

    /// Sets all gradients to zero.
    pub fn zero_gradients(&mut self) {
        for b in &mut self.buckets {
            let _ = b.gradient.zero_();
        }
    }

    /// Multiplies all gradients.
    pub fn scale_gradients(&mut self, factor: f64) {
        for b in &mut self.buckets {
            b.gradient *= factor;
        }
    }

    /// 2-norm of the whole gradient, summed in float64 in bucket order.
    pub fn gradient_norm(&self) -> f64 {
        let square = |b: &Bucket| b.gradient.square().sum(Kind::Double).double_value(&[]);
        self.buckets.iter().map(square).sum::<f64>().sqrt()
    }

    /// One update of all weights; `step` counts from 1.
    pub fn update(&mut self, lr: f64, step: u64) {
        for b in &mut self.buckets {
            let Bucket { values, gradient, slots, rates, .. } = b;
            self.optimizer.update(Part { values, gradient, slots, rates: rates.as_ref() }, lr, step);
        }
    }
}

/// Names and shapes of the tensors that learn.
pub(super) fn describe(store: &Store) -> Vec<Parameter> {
    store.trainable().map(|e| Parameter { name: e.name.clone(), shape: e.tensor.size() }).collect()
}
