//! The optimizer, over flat buffers, and its learning rate.

mod adam;
mod schedule;

pub use adam::{Adam, AdamSettings, Moments};
pub use schedule::learning_rate;
