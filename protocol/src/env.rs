//! Every environment variable that the product reads or sets, in one place.

use crate::Rank;
use std::str::FromStr;

/// This worker's rank within the job. Set by the launcher.
pub const RANK: &str = "RANK";
/// This worker's number on its node; also the index of its GPU. Set by the launcher.
pub const LOCAL_RANK: &str = "LOCAL_RANK";
/// Workers in all. Set by the launcher.
pub const WORLD_SIZE: &str = "WORLD_SIZE";
/// Workers on this node. Set by the launcher.
pub const LOCAL_WORLD_SIZE: &str = "LOCAL_WORLD_SIZE";
/// This node's number within the job. Set by the launcher.
pub const NODE_RANK: &str = "NODE_RANK";
/// OpenMP threads a worker. Set by the launcher on CPU (cores / local workers) unless it is given.
pub const OMP_NUM_THREADS: &str = "OMP_NUM_THREADS";
/// Addresses (`IP:port`, separated by commas) of the launcher's side channel, to be tried in this order. Set by the
/// launcher; a worker started alone has none.
pub const JCS_LAUNCHER: &str = "JCS_LAUNCHER";
/// The run's token, which the side channel asks for. Set by the launcher.
pub const JCS_TOKEN: &str = "JCS_TOKEN";
/// How many times the job was restarted before this start, from 0. Set by the launcher.
pub const JCS_RESTART: &str = "JCS_RESTART";
/// What `--nodes` says, where the command line does not.
pub const JCS_NODES: &str = "JCS_NODES";
/// The value of [`JCS_NODES`] in the pods of a Job.
pub const K8S: &str = "k8s";
/// How many workers the job may come to have (`--nodes MIN:MAX`); `train.global_batch = auto` is made for them. Set by the
/// launcher where that is more than it starts.
pub const JCS_MOST_WORKERS: &str = "JCS_MOST_WORKERS";
/// Log filter in the syntax of `tracing-subscriber` (`info` where it is absent). Read by every binary.
pub const JCS_LOG: &str = "JCS_LOG";

/// This process's place in the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Rank within the job.
    pub rank: Rank,
    /// Rank on this node.
    pub local_rank: usize,
    /// Workers in all.
    pub world_size: usize,
    /// Workers on this node.
    pub local_world_size: usize,
    /// This node's number.
    pub node_rank: usize,
}

/// A variable that is set to something unusable.
#[derive(Debug, thiserror::Error)]
pub enum BadVariable {
    /// It is no number.
    #[error(
        "environment variable {name}={value:?} is not a whole number; it is set by jcs-launch, unset it to run alone"
    )]
    Number {
        /// Its name.
        name: &'static str,
        /// Its value.
        value: String,
    },
    /// A rank outside the world.
    #[error("RANK={rank} is not below WORLD_SIZE={world_size}; both are set by jcs-launch, unset them to run alone")]
    Rank {
        /// `RANK`.
        rank: usize,
        /// `WORLD_SIZE`, 1 where it is unset.
        world_size: usize,
    },
}

impl Place {
    /// A job of one worker.
    pub const ALONE: Place = Place { rank: Rank(0), local_rank: 0, world_size: 1, local_world_size: 1, node_rank: 0 };

    /// Reads the place from the environment; a worker without `WORLD_SIZE` is alone.
    pub fn from_env() -> Result<Place, BadVariable> {
        let world_size = number(WORLD_SIZE, 1)?;
        let rank = number(RANK, 0)?;
        if rank >= world_size {
            return Err(BadVariable::Rank { rank, world_size });
        }
        Ok(Place {
            rank: Rank(rank),
            local_rank: number(LOCAL_RANK, 0)?,
            world_size,
            local_world_size: number(LOCAL_WORLD_SIZE, world_size)?,
            node_rank: number(NODE_RANK, 0)?,
        })
    }
}

/// The value of an unsigned variable, or `default` where it is unset.
pub fn number<T: FromStr>(name: &'static str, default: T) -> Result<T, BadVariable> {
    match std::env::var(name) {
        Err(_) => Ok(default),
        Ok(value) => value.parse().map_err(|_| BadVariable::Number { name, value }),
    }
}
