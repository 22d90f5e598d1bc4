//! The launcher with the real mpirun and a fake worker.

mod common;
mod ends;
mod starts;
