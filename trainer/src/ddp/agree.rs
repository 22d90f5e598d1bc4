//! Before the first step: do all ranks run the same thing, and from the same weights?

use super::{Error, Flats};
use crate::model::Store;
use collectives::{Collective, Label};
use tch::{Kind, Tensor};
use torch_ext::DeviceBuffer;

/// Two ranks differ.
#[derive(Debug, thiserror::Error)]
#[error(
    "rank {rank} differs from rank 0 in {what}: '{theirs}' there, '{ours}' on rank 0; give all ranks the same configuration and version"
)]
pub struct Difference {
    rank: usize,
    what: &'static str,
    theirs: String,
    ours: String,
}

/// Checks that `description`, a list of lines, is the same on all ranks; every rank finds the same difference.
pub fn same_everywhere(collective: &dyn Collective, what: &'static str, description: &[String]) -> Result<(), Error> {
    let mine = description.join("\n").into_bytes();
    let all = collective.all_gather(mine, Label::new(0, "check that all ranks are alike"))?;
    match first_difference(&all) {
        None => Ok(()),
        Some((rank, theirs, ours)) => Err(Difference { rank, what, theirs, ours }.into()),
    }
}

/// Names, shapes and types of the parameters, for [`same_everywhere`].
pub fn describe_parameters(store: &Store) -> Vec<String> {
    store.trainable().map(|e| format!("{} {:?} {:?}", e.name, e.tensor.size(), e.tensor.kind())).collect()
}

fn first_difference(all: &[Vec<u8>]) -> Option<(usize, String, String)> {
    let (rank, other) = all.iter().enumerate().find(|(_, other)| **other != all[0])?;
    let line = |bytes: &[u8], i: usize| {
        let text = String::from_utf8_lossy(bytes);
        text.lines().nth(i).unwrap_or("nothing").to_owned()
    };
    let lines = all[0].split(|b| *b == b'\n').count().max(other.split(|b| *b == b'\n').count());
    (0..lines).map(|i| (rank, line(other, i), line(&all[0], i))).find(|(_, a, b)| a != b)
}

/// Gives every rank the weights and buffers of rank `root`.
pub fn broadcast_weights(collective: &dyn Collective, root: usize, store: &Store, flats: &Flats) -> Result<(), Error> {
    if collective.world_size() == 1 {
        return Ok(());
    }
    let label = Label::new(0, "weights broadcast");
    for values in flats.values() {
        collective.broadcast(DeviceBuffer::new(values)?, root, label)?;
    }
    for entry in store.entries().iter().filter(|e| !e.trainable) {
        // Counters are integers, which collectives do not know; every count fits a float64.
        let kind = if entry.tensor.kind() == Kind::Float { Kind::Float } else { Kind::Double };
        let flat = entry.tensor.detach().to_kind(kind).contiguous();
        collective.broadcast(DeviceBuffer::new(&flat)?, root, label)?;
        let mut target: Tensor = entry.tensor.detach();
        target.copy_(&flat);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_different_line_is_found() {
        let all = [b"a [1]\nb [2]".to_vec(), b"a [1]\nb [2]".to_vec(), b"a [1]\nb [3]".to_vec()];
        assert_eq!(first_difference(&all), Some((2, "b [3]".into(), "b [2]".into())));
        assert_eq!(first_difference(&all[..2]), None);
        let shorter = [b"a\nb".to_vec(), b"a".to_vec()];
        assert_eq!(first_difference(&shorter), Some((1, "nothing".into(), "b".into())));
    }
}
