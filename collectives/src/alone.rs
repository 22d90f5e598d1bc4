//! The backend of a job of one worker: everything is already everywhere.

use crate::{Collective, Error, Label, Moment, Pending, Span};
use torch_ext::DeviceBuffer;

/// One rank.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

impl Collective for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn world_size(&self) -> usize {
        1
    }

    fn name(&self) -> String {
        "alone".into()
    }

    fn all_reduce(&self, _buffer: DeviceBuffer, label: Label) -> Pending {
        Pending::until(label, || {
            let now = Moment::now();
            Ok(Span { started: now.clone(), finished: now })
        })
    }

    fn broadcast(&self, _buffer: DeviceBuffer, _root: usize, _label: Label) -> Result<(), Error> {
        Ok(())
    }

    fn all_gather(&self, bytes: Vec<u8>, _label: Label) -> Result<Vec<Vec<u8>>, Error> {
        Ok(vec![bytes])
    }

    fn barrier(&self, _label: Label) -> Result<(), Error> {
        Ok(())
    }

    fn any(&self, flag: bool, _label: Label) -> Result<bool, Error> {
        Ok(flag)
    }

    fn shutdown(&self, _label: Label) -> Result<(), Error> {
        Ok(())
    }
}
