//! Weights, gradients and moments of all parameters, in flat buffers that follow a [`Layout`].

use super::Error;
use super::layout::{Layout, Parameter};
use crate::model::Store;
use crate::optim::{Adam, Moments};
use collectives::{Collective, Label};
use tch::{Device, Kind, Tensor};
use torch_ext::DeviceBuffer;

/// The flat buffers of one bucket.
#[derive(Debug)]
struct Bucket {
    values: Tensor,
    gradient: Tensor,
    moments: Moments,
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
    buckets: Vec<Bucket>,
}

impl Flats {
    /// Moves the trainable tensors of `store` into buffers of this layout.
    pub fn new(store: &Store, layout: Layout) -> Result<Flats, Error> {
        let parameters = describe(store);
        let leaves = store.trainable().map(|e| e.tensor.shallow_clone()).collect();
        layout.check(parameters.len()).map_err(Error::Layout)?;
        let mut flats = Flats { parameters, leaves, layout, buckets: Vec::new() };
        flats.buckets = flats.build(|flats, p| flats.leaves[p].detach(), |_, _| None);
        flats.attach()?;
        Ok(flats)
    }

    /// Moves everything into buffers of another layout; no value changes.
    pub fn rearrange(&mut self, layout: Layout) -> Result<(), Error> {
        layout.check(self.parameters.len()).map_err(Error::Layout)?;
        let moments: Vec<(Tensor, Tensor)> = (0..self.parameters.len()).map(|p| self.moments_of(p)).collect();
        self.layout = layout;
        self.buckets = self.build(
            |flats, p| flats.leaves[p].detach(),
            |_, p| Some((moments[p].0.shallow_clone(), moments[p].1.shallow_clone())),
        );
        self.attach()
    }

    fn build(
        &self,
        value: impl Fn(&Flats, usize) -> Tensor,
        moments: impl Fn(&Flats, usize) -> Option<(Tensor, Tensor)>,
    ) -> Vec<Bucket> {
        let device = self.leaves.first().map_or(Device::Cpu, Tensor::device);
        let bucket = |b: usize| {
            let (offsets, length) = self.layout.offsets(b, &self.parameters);
            let zeros = || Tensor::zeros([length as i64], (Kind::Float, device));
            let (values, mean, square) = (zeros(), zeros(), zeros());
            for (&p, &offset) in self.layout.buckets[b].iter().zip(&offsets) {
                self.view(&values, p, offset).copy_(&value(self, p));
                if let Some((m, s)) = moments(self, p) {
                    self.view(&mean, p, offset).copy_(&m);
                    self.view(&square, p, offset).copy_(&s);
                }
            }
            Bucket { values, gradient: zeros(), moments: Moments { mean, square }, offsets }
        };
        tch::no_grad(|| (0..self.layout.buckets.len()).map(bucket).collect())
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

    /// First and second moment of a parameter, copied.
    pub fn moments_of(&self, p: usize) -> (Tensor, Tensor) {
        let (b, offset) = self.place(p);
        let moments = &self.buckets[b].moments;
        (self.view(&moments.mean, p, offset).copy(), self.view(&moments.square, p, offset).copy())
    }

    /// Sets the moments of a parameter; both of its shape.
    pub fn set_moments_of(&mut self, p: usize, mean: &Tensor, square: &Tensor) {
        let (b, offset) = self.place(p);
        let moments = &self.buckets[b].moments;
        self.view(&moments.mean, p, offset).copy_(mean);
        self.view(&moments.square, p, offset).copy_(square);
    }

    /// Gives every rank the moments of rank 0.
    pub fn broadcast_moments(&self, collective: &dyn Collective) -> Result<(), Error> {
        let label = Label::new(0, "optimizer broadcast");
        for b in &self.buckets {
            for moments in [&b.moments.mean, &b.moments.square] {
                collective.broadcast(DeviceBuffer::new(moments)?, 0, label)?;
            }
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
    pub fn update(&mut self, adam: &Adam, lr: f64, step: u64) {
        for b in &mut self.buckets {
            adam.update(&mut b.values, &mut b.gradient, &mut b.moments, lr, step);
        }
    }
}

/// Names and shapes of the tensors that learn.
pub(super) fn describe(store: &Store) -> Vec<Parameter> {
    store.trainable().map(|e| Parameter { name: e.name.clone(), shape: e.tensor.size() }).collect()
}
