//! Files written by hand, byte by byte, by this crate and by PyTorch.

mod archives;
mod pickles;
mod round_trip;
mod selection;
mod storages;
mod support;
mod torch;
