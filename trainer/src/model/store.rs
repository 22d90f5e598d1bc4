//! The tensors of a network: names, values, and which of them learn, in registration order.

use tch::{Device, Kind, Tensor};

/// How a tensor begins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// Normal with mean 0 and variance 2 / fan-in (He et al., 2015).
    He,
    /// Normal with mean 0 and this standard deviation.
    Normal(f64),
    /// One value.
    Const(f64),
}

/// A named tensor.
#[derive(Debug)]
pub struct Entry {
    /// Name in the official implementation.
    pub name: String,
    /// The value; a leaf of autograd where it learns.
    pub tensor: Tensor,
    /// Whether the optimizer changes it; buffers do not learn.
    pub trainable: bool,
}

/// All tensors of a network, in registration order, which is the same on every rank.
#[derive(Debug)]
pub struct Store {
    entries: Vec<Entry>,
    device: Device,
}

impl Store {
    /// An empty store whose tensors will be made on `device`, float32.
    pub fn new(device: Device) -> Store {
        Store { entries: Vec::new(), device }
    }

    /// The scope of the network's root.
    pub fn root(&mut self) -> Scope<'_> {
        Scope { store: self, prefix: String::new() }
    }

    /// Every tensor, in registration order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The tensors that learn, in registration order.
    pub fn trainable(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|e| e.trainable)
    }

    /// Freezes the parameters without a gradient, takes the gradients away from the others, and returns
    /// the names of the frozen ones.
    pub fn freeze_without_gradient(&mut self) -> Vec<String> {
        let mut frozen = Vec::new();
        for entry in self.entries.iter_mut().filter(|e| e.trainable) {
            if entry.tensor.grad().defined() {
                // Fails only for a tensor that cannot have a gradient.
                let _ = torch_ext::clear_grad(&entry.tensor);
            } else {
                let _ = entry.tensor.requires_grad_(false);
                entry.trainable = false;
                frozen.push(entry.name.clone());
            }
        }
        frozen
    }

    /// The tensor of this name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.entries.iter().find(|e| e.name == name).map(|e| &e.tensor)
    }

    /// Where the tensors are.
    pub fn device(&self) -> Device {
        self.device
    }
}

/// A place in the tree of names.
pub struct Scope<'a> {
    store: &'a mut Store,
    prefix: String,
}

impl Scope<'_> {
    /// The scope below this one.
    pub fn child(&mut self, name: impl std::fmt::Display) -> Scope<'_> {
        let prefix = format!("{}{name}.", self.prefix);
        Scope { store: self.store, prefix }
    }

    /// Registers a tensor that learns, and returns a handle to it.
    pub fn parameter(&mut self, name: &str, shape: &[i64], init: Init) -> Tensor {
        let tensor = self.make(shape, init).set_requires_grad(true);
        self.register(name, tensor, true)
    }

    /// Registers a tensor that does not learn, and returns a handle to it.
    pub fn buffer(&mut self, name: &str, shape: &[i64], value: f64) -> Tensor {
        let tensor = self.make(shape, Init::Const(value));
        self.register(name, tensor, false)
    }

    /// Registers a count of batches (`num_batches_tracked` of `torch.nn.BatchNorm2d`).
    pub fn counter(&mut self, name: &str) -> Tensor {
        let zero = Tensor::zeros([0i64; 0], (Kind::Int64, self.store.device));
        self.register(name, zero, false)
    }

    fn register(&mut self, name: &str, tensor: Tensor, trainable: bool) -> Tensor {
        let handle = tensor.shallow_clone();
        self.store.entries.push(Entry { name: format!("{}{name}", self.prefix), tensor, trainable });
        handle
    }

    /// Drawn on the CPU, so that a seed means the same weights on every device.
    fn make(&self, shape: &[i64], init: Init) -> Tensor {
        let mut tensor = Tensor::zeros(shape, (Kind::Float, Device::Cpu));
        let tensor = match init {
            Init::Const(0.0) => tensor,
            Init::Const(value) => tensor.fill_(value),
            Init::Normal(sigma) => tensor.normal_(0.0, sigma),
            Init::He => {
                let fan_in: i64 = shape[1..].iter().product();
                tensor.normal_(0.0, (2.0 / fan_in as f64).sqrt())
            }
        };
        tensor.to_device(self.store.device)
    }
}
